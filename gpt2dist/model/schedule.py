"""The learning rate as a function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from gpt2dist.config.schema import OptimConfig


def learning_rate(step: int, optim: OptimConfig, total_steps: int) -> float:
    """Rate of optimizer step `step` (0 .. total_steps - 1).

    Warm-up is linear: its first step uses peak/warmup_steps, its last the peak. The decay then
    reaches final_lr_fraction x peak_lr exactly at the last step. `wsd` (warm-up, stable, decay;
    Hu et al., arXiv:2404.06395) falls linearly over the last decay_fraction of all steps.
    """
    if step < optim.warmup_steps:
        return optim.peak_lr * (step + 1) / optim.warmup_steps
    final = optim.final_lr_fraction
    if optim.schedule == "constant":
        share = 1.0
    elif optim.schedule == "cosine":
        share = final + (1 - final) * 0.5 * (
            1 + math.cos(math.pi * _fallen(step, optim.warmup_steps, total_steps))
        )
    else:
        start = optim.warmup_steps
        if optim.schedule == "wsd":
            start = max(start, total_steps - round(optim.decay_fraction * total_steps))
        share = 1 - (1 - final) * _fallen(step, start, total_steps)
    return optim.peak_lr * share


def _fallen(step: int, start: int, total_steps: int) -> float:
    """How much of the decay is done: 0 up to the last step before `start`, 1 at the last step."""
    return min(1.0, max(0.0, (step - start + 1) / max(1, total_steps - start)))
