"""What a rank does in a test, as a program: `python scenarios.py NAME ARGUMENTS RANK WORLD STORE`.

Ranks are real processes over gloo, without Ray. A scenario returns JSON.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gpt2dist.config.load import resolve
from gpt2dist.config.schema import Config
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.model.optim import build_adamw
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.placement import Placement
from gpt2dist.train.core import checkpoint
from gpt2dist.train.core.control import Control
from gpt2dist.train.core.engine import Engine
from gpt2dist.train.core.loop import TrainState

SEQUENCES, CONTEXT, VOCAB = 8, 16, 257
RATE = 1e-2


def tiny_config(stage: int = 0, mixed_precision: str = "autocast", **model: Any) -> Config:
    config = resolve(
        "debug",
        [
            "model.layers=2",
            "model.heads=2",
            "model.width=32",
            f"model.context={CONTEXT}",
            f"model.vocab={VOCAB}",
            "data.tokenizer=bytes",
            f"train.batch_tokens={SEQUENCES * CONTEXT}",
            "train.tokens=1280",
            "optim.warmup_steps=0",
            f"zero.stage={stage}",
            f"cluster.mixed_precision={mixed_precision}",
        ],
    )
    return replace(config, model=replace(config.model, **model))


def batch(step: int) -> torch.Tensor:
    """The whole batch of a step, int64 [SEQUENCES, CONTEXT + 1]; some targets do not count."""
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randint(0, 40, (SEQUENCES, CONTEXT + 1), generator=generator)  # learnable


def targets(tokens: torch.Tensor) -> torch.Tensor:
    """Targets with an uneven number ignored per sequence, to catch averages of averages."""
    result = tokens[:, 1:].clone()
    for row in range(len(result)):
        result[row, : row % 5] = -100
    return result


def build(config: Config, micro_batch: int, precision: str = "fp32") -> Engine:
    torch.manual_seed(7)
    model = GPT2(config.model, recompute=config.cluster.recompute)
    return wrap(model, config, micro_batch, precision)


def wrap(model: GPT2, config: Config, micro_batch: int, precision: str = "fp32") -> Engine:
    world = dist.get_world_size()
    placement = Placement(
        device="cpu",
        device_name="test",
        layout=Layout(
            gpus_per_node=world,
            micro_batch=micro_batch,
            accumulation=SEQUENCES // world // micro_batch,
            precision=precision,
            mixed_precision=config.cluster.mixed_precision,
            kernels="eager",
            zero_stage=config.zero.stage,
        ),
        threads=1,
    )
    return Engine(model, build_adamw(model, config.optim, "cpu"), config, placement)


def train_step(engine: Engine, step: int, micro_batch: int) -> dict:
    share = SEQUENCES // engine.world
    tokens = batch(step)
    wanted = targets(tokens)
    valid = int((wanted >= 0).sum())
    own = slice(engine.rank * share, (engine.rank + 1) * share)
    loss_sum = torch.zeros((), dtype=torch.float64)
    for inputs, targets_BT in zip(
        tokens[own, :-1].split(micro_batch), wanted[own].split(micro_batch)
    ):
        loss_sum += engine.accumulate(inputs, targets_BT, valid)
    result = engine.step(RATE)
    return {
        "loss": Control().total(float(loss_sum))[0] / valid,
        "grad_norm": result.grad_norm,
        "applied": result.applied,
    }


def follow(stages: list[int], micro_batch: int, steps: int, precision: str = "fp32") -> Any:
    """Losses and gradient norms of `steps` steps at each stage."""
    torch.set_num_threads(1)
    curves = {}
    for stage in stages:
        engine = build(tiny_config(stage), micro_batch, precision)
        curves[str(stage)] = [train_step(engine, step, micro_batch) for step in range(steps)]
        curves[f"understood {stage}"] = engine.config
    return curves


def config_of(case: str) -> tuple[Config, str]:
    """Config and precision of a case such as `bf16-engine-1`: precision, mode, ZeRO stage."""
    precision, mode, stage = case.split("-")
    return tiny_config(int(stage), mode), precision


def save_then_continue(cases: list[str], folder: str) -> Any:
    """Save after 3 steps of each case, then go on to step 6 without interruption."""
    torch.set_num_threads(1)
    curves = {}
    for case in cases:
        config, precision = config_of(case)
        engine = build(config, 2, precision)
        for step in range(3):
            train_step(engine, step, 2)
        run_dir = Path(folder) / f"{case}-{engine.world}"
        run_dir.mkdir(parents=True, exist_ok=True)
        state = TrainState(3, 3, 3 * SEQUENCES * CONTEXT, "test", SEQUENCES)
        checkpoint.save(run_dir, engine, state, Control().gather)
        curves[case] = [train_step(engine, step, 2)["loss"] for step in range(3, 6)]
        curves[f"digest {case}"] = digest(engine)
    return curves


def resume(pairs: list[tuple[str, str]]) -> Any:
    """By each pair of a checkpoint and a case: what `resumed` gives."""
    torch.set_num_threads(1)
    return {f"{Path(folder).name} -> {case}": resumed(case, folder) for folder, case in pairs}


def resumed(case: str, folder: str) -> dict[str, list[float]]:
    """Losses of steps 3 to 5 after loading a checkpoint in a case, and the digest at the end."""
    found = checkpoint.newest_valid(Path(folder), print)
    assert found is not None
    config, precision = config_of(case)
    model = GPT2(config.model)
    model.load_state_dict(found.weights())
    engine = wrap(model, config, 2, precision)
    engine.load_optimizer(found.parameter_reader(), found.state.applied_steps)
    assert steps_applied(engine) == 3
    losses = [train_step(engine, step, 2)["loss"] for step in range(3, 6)]
    return {"losses": losses, "digest": digest(engine)}


def save_and_resume(cases: list[str], folder: str) -> Any:
    """Each case uninterrupted and resumed, in one process."""
    outcomes = {}
    for case in cases:
        curves = save_then_continue([case], folder)
        outcomes[case] = {
            "whole": {"losses": curves[case], "digest": curves[f"digest {case}"]},
            "resumed": resumed(case, f"{folder}/{case}-{dist.get_world_size()}"),
        }
    return outcomes


def poisoned(cases: list[str]) -> Any:
    """A step whose data makes the loss NaN changes neither weights nor moments."""
    torch.set_num_threads(1)
    outcome = {}
    for case in cases:
        config, precision = config_of(case)
        engine = build(config, 2, precision)
        train_step(engine, 0, 2)
        before = digest(engine)
        bad = poison_step(engine)
        outcome[case] = {
            "applied": bad,
            "unchanged": digest(engine) == before,
            "next": train_step(engine, 1, 2),
            "steps": steps_applied(engine),
        }
    return outcome


def poison_step(engine: Engine) -> bool:
    """One step whose loss is infinite; returns whether it was applied."""
    for micro in batch(0)[: SEQUENCES // engine.world].split(2):
        engine.accumulate(micro[:, :-1], micro[:, 1:], 5e-324)  # type: ignore[arg-type] # 1 / 5e-324 is infinite
    return engine.step(RATE).applied


def steps_applied(engine: Engine) -> int:
    """Steps that AdamW has applied; skipped ones do not count."""
    states = engine._torch_optimizer().state.values()
    return int(next(state["step"] for state in states if "step" in state))


def digest(engine: Engine) -> list[float]:
    """Sums that change with any bit of weights or moments."""
    values = []
    for state in engine.parameter_states():
        for tensor in (state.weight, state.exp_avg, state.exp_avg_sq):
            values.append(float(tensor.double().flatten().dot(_ramp(tensor.numel()))))
    return values


def _ramp(count: int) -> torch.Tensor:
    return torch.linspace(1, 2, count, dtype=torch.float64)


def _main() -> None:
    name, arguments, rank, world, store = sys.argv[1:]
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, int(world)),
        rank=int(rank),
        world_size=int(world),
    )
    result = globals()[name](**json.loads(arguments))
    dist.barrier()
    dist.destroy_process_group()
    Path(f"{store}.{rank}.json").write_text(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # on a busy machine gloo's threads now and then abort the interpreter's own exit


if __name__ == "__main__":
    _main()
