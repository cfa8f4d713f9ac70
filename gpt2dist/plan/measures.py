"""When it does not fit: the cheapest list of measures that makes it fit.

Costs are relative tokens per second, coarse on purpose; gpt2dist.plan.speed.throughput predicts the
speed of the layout that comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.memory.fit import largest_micro_batch, memory

LORA_RANK = 16

STAGES: tuple[Literal[0, 1, 2, 3], ...] = (0, 1, 2, 3)

HALF_SPEED_TOKENS = 1900
"""Micro-batch at which a GPU reaches half its speed: languini-kitchen's medium model on a 3090
reaches 0.27 of its best with 512 tokens and 0.94 with 4,096."""

RECOMPUTE_SPEED = 0.75
"""A second forward pass: 4/3 of the work (Korthikanti et al., arXiv:2205.05198)."""

ZERO_SPEED = {0: 1.0, 1: 0.99, 2: 0.96, 3: 0.88}
"""Assumed. Stage 1 sends what plain data parallelism sends, stage 2 reduces every micro-batch,
stage 3 also gathers the weights twice (ZeRO, arXiv:1910.02054, section 7)."""

ENGINE_SPEED = 0.98
"""Assumed: one more conversion of all gradients."""

ADAM_8BIT_SPEED = 0.99
"Assumed."

OFFLOAD_SPEED = 0.6
"Assumed: gradients and weights cross PCIe every step and a CPU updates them."

NOT_IN_TRAIN = "`gpt2dist train` cannot do this yet; the memory is arithmetic"


@dataclass(frozen=True)
class Measure:
    name: str
    setting: str | None
    "Override for `gpt2dist train`; None when it has no such option, and then `note` says so."
    saves_gib: float
    "Of GPU memory, given the measures before it in the list."
    speed: float
    "Relative tokens/s after it, 1.0 = free."
    note: str


@dataclass(frozen=True)
class _Step:
    """A measure and the layout after it."""

    measure: Measure
    layout: Layout


def measures_to_fit(
    model: ModelConfig,
    layout: Layout,
    gpu_memory_gib: float,
    sequences_per_gpu: int,
    host_gib: float | None = None,
) -> tuple[Layout, tuple[Measure, ...]] | None:
    """The layout that fits and the measures that lead to it; None when no list of them does.

    Lists that `gpt2dist train` can run come first, then those that still train every weight, then
    LoRA; among these the one that keeps the most speed, then the shortest. `sequences_per_gpu` are
    those of one optimizer step; `host_gib` limits what may be offloaded on a machine.
    """
    if memory(model, layout).peak_gib <= gpu_memory_gib:
        return layout, ()
    best: tuple[tuple[int, float, int], list[_Step]] | None = None
    for candidate in _variants(layout):
        fitting = largest_micro_batch(model, candidate, gpu_memory_gib, layout.micro_batch)
        if not fitting:
            continue
        size = next(size for size in range(fitting, 0, -1) if sequences_per_gpu % size == 0)
        candidate = _with_micro_batch(candidate, layout, size, sequences_per_gpu)
        if host_gib is not None and memory(model, candidate).host_gib > host_gib:
            continue
        steps = _steps(model, layout, candidate)
        rank = _rank(steps)
        if best is None or rank < best[0]:
            best = rank, steps
    if best is None:
        return None
    return best[1][-1].layout, tuple(step.measure for step in best[1])


def micro_batch_speed(model: ModelConfig, micro_batch: int) -> float:
    """Share of a GPU's best speed that a micro-batch reaches."""
    tokens = micro_batch * model.context
    return tokens / (tokens + HALF_SPEED_TOKENS)


def _with_micro_batch(candidate: Layout, layout: Layout, size: int, sequences: int) -> Layout:
    if size == layout.micro_batch:
        return candidate
    return replace(candidate, micro_batch=size, accumulation=sequences // size)


def _variants(layout: Layout) -> list[Layout]:
    """The layout under every combination of measures but the micro-batch."""
    # On one GPU stages 1 and 2 save nothing by themselves; 16-bit weights and offload need them.
    highest = 3 if layout.gpus > 1 else max(2, layout.zero_stage)
    stages = [stage for stage in STAGES if layout.zero_stage <= stage <= highest]
    found = []
    switches = product((False, True), repeat=5)
    for (engine, recompute, small_adam, lora, offload), stage in product(switches, stages):
        variant = replace(
            layout,
            zero_stage=stage,
            mixed_precision="engine" if engine else layout.mixed_precision,
            recompute=recompute or layout.recompute,
            optimizer="adamw8bit" if small_adam else layout.optimizer,
            lora_rank=LORA_RANK if lora and layout.lora_rank is None else layout.lora_rank,
            offload="optimizer" if offload else layout.offload,
        )
        half = variant.precision != "fp32"
        # DeepSpeed's 16-bit mode and its offload need a ZeRO optimizer around AdamW.
        needs_zero = (half and variant.mixed_precision == "engine") or offload
        if not (engine and not half) and not (needs_zero and stage == 0):
            found.append(variant)
    return list(dict.fromkeys(found))


def _steps(model: ModelConfig, start: Layout, end: Layout) -> list[_Step]:
    """The measures between two layouts, each with what it saves after those before it."""
    layout, steps = start, []

    def take(name: str, setting: str | None, speed: float, note: str, **change: object) -> None:
        nonlocal layout
        after = replace(layout, **change)  # type: ignore[arg-type]
        saves = memory(model, layout).peak_gib - memory(model, after).peak_gib
        steps.append(_Step(Measure(name, setting, saves, speed, note), after))
        layout = after

    if end.micro_batch != start.micro_batch:
        take(
            f"accumulate {end.accumulation} micro-batches of {end.micro_batch}",
            f"cluster.micro_batch={end.micro_batch}",
            micro_batch_speed(model, end.micro_batch) / micro_batch_speed(model, start.micro_batch),
            "the same step in smaller pieces: the loss curve does not change",
            micro_batch=end.micro_batch,
            accumulation=end.accumulation,
        )
    if end.zero_stage != start.zero_stage:
        take(
            f"ZeRO stage {end.zero_stage}",
            f"zero.stage={end.zero_stage}",
            ZERO_SPEED[end.zero_stage] / ZERO_SPEED[start.zero_stage],
            _zero_note(end),
            zero_stage=end.zero_stage,
        )
    if end.mixed_precision != start.mixed_precision:
        take(
            "16-bit weights with fp32 masters",
            f"cluster.mixed_precision={end.mixed_precision}",
            ENGINE_SPEED,
            "DeepSpeed's own mode instead of autocast; slightly other rounding",
            mixed_precision=end.mixed_precision,
        )
    if end.recompute != start.recompute:
        take(
            "recompute activations",
            "cluster.recompute=true",
            RECOMPUTE_SPEED,
            "each block's forward pass runs again in the backward pass",
            recompute=True,
        )
    if end.optimizer != start.optimizer:
        take("8-bit Adam", None, ADAM_8BIT_SPEED, NOT_IN_TRAIN, optimizer=end.optimizer)
    if end.offload != start.offload:
        host = memory(model, end).host_gib
        take(
            "offload optimizer",
            None,
            OFFLOAD_SPEED,
            f"{host:.1f} GiB of host memory per machine; {NOT_IN_TRAIN}",
            offload=end.offload,
        )
    if end.lora_rank != start.lora_rank:
        take(
            f"LoRA rank {end.lora_rank}",
            None,
            1.0,
            f"trains adapters beside frozen weights: fine-tuning only; {NOT_IN_TRAIN}",
            lora_rank=end.lora_rank,
        )
    return steps


def _zero_note(layout: Layout) -> str:
    if layout.gpus == 1:
        return (
            "one GPU: nothing to share, and DeepSpeed keeps fp32 masters even of fp32 weights; "
            "16-bit weights and offload need it"
        )
    shared = {1: "optimizer states", 2: "optimizer states and gradients", 3: "all states"}
    return f"{shared[layout.zero_stage]} shared by {layout.gpus} GPUs"


def _rank(steps: list[_Step]) -> tuple[int, float, int]:
    """Smaller is better: what train can run, the speed that is lost, the number of measures."""
    names = [step.measure for step in steps]
    kind = 0 if all(measure.setting for measure in names) else 1
    if any(measure.name.startswith("LoRA") for measure in names):
        kind = 2
    speed = 1.0
    for measure in names:
        speed *= measure.speed
    return kind, -speed, len(names)
