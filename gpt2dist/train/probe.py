"""`gpt2dist plan --probe`: the speed and memory of real training steps on this machine."""

from __future__ import annotations

import datetime
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from gpt2dist.config.schema import Config
from gpt2dist.errors import RunFailure
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.model.optim import build_adamw
from gpt2dist.plan.goals import Goal
from gpt2dist.plan.placement import Placement, place
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.speed.probes import PROBES_FILE, Probe, save_probe
from gpt2dist.track.ledger import OWN_MACHINE, no_price, price_usd_per_hour
from gpt2dist.train.core.control import single_process_group
from gpt2dist.train.core.engine import Engine
from gpt2dist.train.machine import probe_machine
from gpt2dist.train.predicted import plan_here

PROBE_STEPS = 20
WARMUP_STEPS = 3
"""Not measured: kernels are compiled, caches filled, moments allocated."""


def probe_plan(config: Config, goal: Goal, say: Callable[[str], None]) -> Plan:
    """Measure `config` on one device of this machine, keep the figures, and plan with them."""
    paid = price_usd_per_hour(config.cluster, os.environ)
    if goal.usd is not None and paid[1] == OWN_MACHINE:
        raise no_price(f"--usd {goal.usd:g}")
    placement = place(config, probe_machine(), single_process=True)
    say(
        f"measuring {PROBE_STEPS} steps of {placement.micro_batch} x {config.model.context} tokens "
        f"on {placement.device_name}, {placement.precision}"
    )
    probe = measure(config, placement)
    save_probe(Path(config.paths.runs) / PROBES_FILE, probe)
    return plan_here(config, placement, paid, probe, goal=goal)


def measure(config: Config, placement: Placement, steps: int = PROBE_STEPS) -> Probe:
    """Take `steps` optimizer steps of one micro-batch each on random tokens."""
    torch.set_num_threads(placement.threads)
    torch.manual_seed(config.train.seed)
    short = replace(placement, layout=replace(placement.layout, accumulation=1))
    cuda = placement.device == "cuda"
    micro_seconds, optimizer_seconds = [], []
    try:
        with single_process_group(placement.device):
            model = GPT2(config.model, recompute=placement.layout.recompute)
            if placement.compile:
                model.compile_blocks()
            model.to(placement.torch_device)
            engine = Engine(
                model, build_adamw(model, config.optim, placement.device), config, short
            )
            tokens = torch.randint(
                config.model.vocab,
                (placement.micro_batch, config.model.context + 1),
                device=placement.torch_device,
            )
            for step in range(WARMUP_STEPS + steps):
                began = _now(cuda)
                engine.accumulate(tokens[:, :-1], tokens[:, 1:], tokens[:, 1:].numel())
                computed = _now(cuda)
                engine.step(config.optim.peak_lr)
                ended = _now(cuda)
                if step >= WARMUP_STEPS:
                    micro_seconds.append(computed - began)
                    optimizer_seconds.append(ended - computed)
            peak = torch.cuda.max_memory_reserved() if cuda else _peak_process_bytes()
    except torch.cuda.OutOfMemoryError:
        raise RunFailure(
            f"the GPU ran out of memory with cluster.micro_batch={placement.micro_batch}; try "
            f"cluster.micro_batch={max(1, placement.micro_batch // 2)} or cluster.recompute=true"
        ) from None
    return Probe(
        device=placement.device_name,
        precision=placement.precision,
        model=config.model,
        micro_batch=placement.micro_batch,
        recompute=placement.layout.recompute,
        tokens_per_micro_batch=placement.micro_batch * config.model.context,
        micro_batch_seconds=statistics.median(micro_seconds),
        optimizer_seconds=statistics.median(optimizer_seconds),
        peak_gib=peak / 2**30,
        measured_at=datetime.date.today().isoformat(),
    )


def _now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_process_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
