"""Tokens per second and memory of every size, as planned and as measured."""

from __future__ import annotations

from collections.abc import Iterator

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.plan.machine.hardware import find_gpu
from gpt2dist.plan.placement import Placement
from gpt2dist.plan.plan_record import Plan
from gpt2dist.train.predicted import plan_here
from gpt2dist.train.probe import measure as probe
from proof.bench import SIZES, Bench, placed

MEMORY_SHARE = 0.08
"How far the measured memory may lie from the plan's."
QUICK = ["model.layers=1", "model.width=64", "model.heads=2", "model.context=64", "model.vocab=257",
         "data.tokenizer=bytes", "train.batch_tokens=256", "train.tokens=25600",
         "optim.warmup_steps=0", "cluster.micro_batch=2"]  # fmt: skip


def measure(bench: Bench) -> None:
    """Every size as it would be placed, then 124M and the larger ones placed otherwise."""
    if bench.quick:
        _one(bench, "debug", "debug", (f"cluster.device={bench.device}", *QUICK))
        return
    for name, recipe, words in _cases():
        _one(bench, name, recipe, words)


def _cases() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for recipe in SIZES:
        yield recipe, recipe, ("cluster.workers=1",)
    for micro_batch in (16, 32, 128):
        words = ("cluster.workers=1", f"cluster.micro_batch={micro_batch}")
        yield f"gpt2-124m, micro-batch {micro_batch}", "gpt2-124m", words
    for recipe in ("gpt2-124m", "gpt2-1558m"):
        for recompute in ("true", "false"):
            words = ("cluster.workers=1", f"cluster.recompute={recompute}")
            yield f"{recipe}, recompute={recompute}", recipe, words
    yield "gpt2-124m, eager", "gpt2-124m", ("cluster.workers=1", "cluster.compile=false")
    yield "gpt2-1558m, eager", "gpt2-1558m", ("cluster.workers=1", "cluster.compile=false")


def _one(bench: Bench, name: str, recipe: str, words: tuple[str, ...]) -> None:
    with bench.each(f"{name}: tokens/s", seconds=15):
        try:
            config, placement = placed(recipe, *words)
            measured = probe(config, placement, steps=4 if bench.quick else 8)
        except (BadInput, RunFailure) as refusal:
            bench.found(f"{name}: tokens/s", None, note=str(refusal))
            return
        accumulation = placement.accumulation
        rate = measured.tokens_per_s(accumulation)
        how = f"micro-batch {placement.micro_batch} x {accumulation}, {placement.precision}"
        how += f", {placement.layout.kernels}"
        how += ", recomputation" if placement.layout.recompute else ""
        bench.found(f"{name}: tokens/s", rate, "tokens/s", least=0, note=how)
        bench.found(f"{name}: memory", measured.peak_gib, "GiB")
        plan = _plan(config, placement)
        if plan is None or plan.throughput is None:
            return
        share = measured.peak_gib / plan.peak_gib - 1
        bench.found(f"{name}: memory against the plan", share, least=-0.3, most=MEMORY_SHARE)
        low, high = plan.throughput.low, plan.throughput.high
        bench.found(
            f"{name}: tokens/s against the plan",
            rate / plan.throughput.tokens_per_s,
            note=f"planned {low:,.0f} to {high:,.0f}",
            least=low / plan.throughput.tokens_per_s,
        )
        if plan.throughput.mfu is not None:
            mfu = plan.throughput.mfu * rate / plan.throughput.tokens_per_s
            bench.found(f"{name}: MFU of the published peak", mfu)
        ceiling = bench.known(f"{recipe}: matrix products")
        if ceiling is not None:
            reached = rate * plan.flops_per_token / (ceiling * 1e12)
            bench.found(f"{name}: share of the measured ceiling", reached)


def _plan(config: Config, placement: Placement) -> Plan | None:
    """What the planner says of this GPU; None where its table has none such."""
    if find_gpu(placement.device_name) is None:
        return None
    return plan_here(config, placement, (0.0, "proof"), None, data_ready=True)
