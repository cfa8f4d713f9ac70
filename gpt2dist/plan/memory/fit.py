"""Does it fit? GPU memory of a step of `gpt2dist train`, and the largest micro-batch."""

from __future__ import annotations

from dataclasses import replace

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.memory.terms import Memory, estimate
from gpt2dist.plan.memory.training import trained_parameters, training_counts

HEADROOM = 0.08
"""Share of the memory to leave free when a micro-batch is chosen: 9 in 10 published runs that the
formulas had not seen lie within it (docs/planner-memory.md)."""


def memory(model: ModelConfig, layout: Layout) -> Memory:
    """One GPU's memory at its peak, term by term."""
    trained, all_weights = trained_parameters(model, layout), parameters(model)
    held = all_weights if layout.lora_rank is None else all_weights + trained
    return estimate(model, layout, training_counts(model, layout), held, trained)


def largest_micro_batch(model: ModelConfig, layout: Layout, free_gib: float, limit: int) -> int:
    """Largest micro-batch up to `limit` that fits in `free_gib`; 0 when not even 1 does."""
    low, high = 0, limit  # memory never falls with the micro-batch
    while low < high:
        middle = (low + high + 1) // 2
        if memory(model, replace(layout, micro_batch=middle)).peak_gib <= free_gib:
            low = middle
        else:
            high = middle - 1
    return low


def micro_batch_for(
    model: ModelConfig, layout: Layout, free_gib: float, sequences_per_gpu: int
) -> int:
    """Largest divisor of `sequences_per_gpu` that fits in `free_gib`; 0 when not even 1 does."""
    best = largest_micro_batch(model, layout, free_gib, sequences_per_gpu)
    return largest_divisor(sequences_per_gpu, best)


def largest_divisor(number: int, most: int) -> int:
    """Largest divisor of `number` up to `most`; 0 when there is none."""
    return next((size for size in range(min(number, most), 0, -1) if number % size == 0), 0)


def runs_at_once(model: ModelConfig, layout: Layout, free_gib: float) -> int:
    """Processes that train such a model side by side on one GPU, one sequence at a time each."""
    alone = replace(layout, gpus_per_node=1, nodes=1, micro_batch=1)
    return int(free_gib / memory(model, alone).peak_gib)
