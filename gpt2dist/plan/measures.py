"""When it does not fit: the cheapest list of measures that makes it fit.

Costs are relative tokens per second, coarse on purpose; gpt2dist.plan.speed.throughput predicts the
speed of the layout that comes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.memory.fit import largest_divisor, largest_micro_batch, memory

LORA_RANK = 16

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
    best = None
    for variant in _variants(layout):
        fitting = largest_micro_batch(model, variant, gpu_memory_gib, layout.micro_batch)
        if not fitting:
            continue
        size = largest_divisor(sequences_per_gpu, fitting)
        variant = replace(variant, micro_batch=size, accumulation=sequences_per_gpu // size)
        if host_gib is not None and memory(model, variant).host_gib > host_gib:
            continue
        measures = _measures(model, layout, variant)
        rank = _rank(measures)
        if best is None or rank < best[0]:
            best = rank, variant, measures
    return best and best[1:]


def micro_batch_speed(model: ModelConfig, micro_batch: int) -> float:
    """Share of a GPU's best speed that a micro-batch reaches."""
    tokens = micro_batch * model.context
    return tokens / (tokens + HALF_SPEED_TOKENS)


def _variants(layout: Layout) -> Iterator[Layout]:
    """The layout under every combination of measures but the micro-batch."""
    half = layout.precision != "fp32"
    # On one GPU stages 1 and 2 save nothing by themselves; 16-bit weights and offload need them.
    highest = 3 if layout.gpus > 1 else max(2, layout.zero_stage)
    choices: dict[str, tuple[object, ...]] = {
        "mixed_precision": (layout.mixed_precision, "engine" if half else layout.mixed_precision),
        "recompute": (layout.recompute, True),
        "optimizer": (layout.optimizer, "adamw8bit"),
        "lora_rank": (layout.lora_rank, layout.lora_rank or LORA_RANK),
        "offload": (layout.offload, "optimizer"),
        "zero_stage": tuple(range(layout.zero_stage, highest + 1)),
    }
    for values in product(*map(dict.fromkeys, choices.values())):
        change: dict[str, Any] = dict(zip(choices, values))
        variant = replace(layout, **change)
        # DeepSpeed's 16-bit mode and its offload need a ZeRO optimizer around AdamW.
        engine = half and variant.mixed_precision == "engine"
        if variant.zero_stage or not (engine or variant.offload == "optimizer"):
            yield variant


def _measures(model: ModelConfig, start: Layout, end: Layout) -> tuple[Measure, ...]:
    """The measures between two layouts, each with what it saves after those before it."""
    micro, stage, mixed = end.micro_batch, end.zero_stage, end.mixed_precision
    slower = micro_batch_speed(model, micro) / micro_batch_speed(model, start.micro_batch)
    host_gib = memory(model, end).host_gib
    possible = (
        (
            ("micro_batch", "accumulation"),
            f"accumulate {end.accumulation} micro-batches of {micro}",
            f"cluster.micro_batch={micro}",
            slower,
            "the same step in smaller pieces: the loss curve does not change",
        ),
        (
            ("zero_stage",),
            f"ZeRO stage {stage}",
            f"zero.stage={stage}",
            ZERO_SPEED[stage] / ZERO_SPEED[start.zero_stage],
            _zero_note(end),
        ),
        (
            ("mixed_precision",),
            "16-bit weights with fp32 masters",
            f"cluster.mixed_precision={mixed}",
            ENGINE_SPEED,
            "DeepSpeed's own mode instead of autocast; slightly other rounding",
        ),
        (
            ("recompute",),
            "recompute activations",
            "cluster.recompute=true",
            RECOMPUTE_SPEED,
            "each block's forward pass runs again in the backward pass",
        ),
        (("optimizer",), "8-bit Adam", None, ADAM_8BIT_SPEED, NOT_IN_TRAIN),
        (
            ("offload",),
            "offload optimizer",
            None,
            OFFLOAD_SPEED,
            f"{host_gib:.1f} GiB of host memory per machine; {NOT_IN_TRAIN}",
        ),
        (
            ("lora_rank",),
            f"LoRA rank {end.lora_rank}",
            None,
            1.0,
            f"trains adapters beside frozen weights: fine-tuning only; {NOT_IN_TRAIN}",
        ),
    )
    layout, taken = start, []
    for names, title, setting, speed, note in possible:
        change: dict[str, Any] = {name: getattr(end, name) for name in names}
        after = replace(layout, **change)
        if after != layout:
            saves_gib = memory(model, layout).peak_gib - memory(model, after).peak_gib
            taken.append(Measure(title, setting, saves_gib, speed, note))
            layout = after
    return tuple(taken)


def _zero_note(layout: Layout) -> str:
    if layout.gpus == 1:
        return (
            "one GPU: nothing to share, and DeepSpeed keeps fp32 masters even of fp32 weights; "
            "16-bit weights and offload need it"
        )
    shared = ("nothing", "optimizer states", "optimizer states and gradients", "all states")
    return f"{shared[layout.zero_stage]} shared by {layout.gpus} GPUs"


def _rank(measures: Sequence[Measure]) -> tuple[int, float, int]:
    """Smaller is better: what train can run, the speed that is lost, the number of measures."""
    kind = 0 if all(measure.setting for measure in measures) else 1
    if any(measure.name.startswith("LoRA") for measure in measures):
        kind = 2
    return kind, -math.prod(measure.speed for measure in measures), len(measures)
