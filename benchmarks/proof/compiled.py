"""Does torch.compile keep to one graph, through training, validation and sampling?"""

from __future__ import annotations

import torch
from torch._dynamo.utils import counters

from gpt2dist.evaluate.sampling import Sampling, generate
from gpt2dist.evaluate.validation import validation_loss
from gpt2dist.train.core.control import single_process_group
from proof.bench import TINY, Bench, batch, build, placed, train_step


def measure(bench: Bench) -> None:
    """Graphs and breaks: all blocks share one graph, validation may add one, sampling none."""
    compiled = "false" if bench.quick else "true"
    words = (f"cluster.device={bench.device}", f"cluster.compile={compiled}", "zero.stage=1")
    with bench.each("compiled"), single_process_group(bench.device):
        torch._dynamo.reset()
        counters.clear()
        config, placement = placed("debug", *TINY, *words)
        began = bench.now()
        engine = build(config, placement)
        if bench.quick:  # the same graphs, without the minute that Inductor takes on a CPU
            for block in engine.module.blocks:
                block.compile(backend="eager")
            engine.module.compiled = True
        train_step(engine, config, 0)
        bench.found("first step with compilation", bench.now() - began, "s")
        for step in range(1, 4):
            train_step(engine, config, step)
        bench.found("graphs after training", _graphs(), most=1)
        with engine.autocast():
            windows = batch(config, 9)[: placement.micro_batch]
            validation_loss(engine.module, [(windows, len(windows))], device=engine.device)
            bench.found("graphs after validation", _graphs(), most=2)
            list(generate(engine.module, [1, 2, 3], Sampling(8, seed=1)))
        bench.found("graphs after sampling", _graphs(), most=2)
        train_step(engine, config, 4)
        bench.found("graphs after going on", _graphs(), most=2)
        bench.found("graph breaks", sum(counters["graph_break"].values()), most=0)


def _graphs() -> int:
    return counters["stats"]["unique_graphs"]
