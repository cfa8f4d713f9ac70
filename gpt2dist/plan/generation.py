"""What writing text with a model takes of a GPU: the arithmetic of `gpt2dist sample`."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.layout import Precision
from gpt2dist.plan.machine.hardware import Gpu

WEIGHT_BYTES = 4
"""`sample` keeps fp32 weights and computes under autocast."""

GIB = 2**30


@dataclass(frozen=True)
class Generation:
    """Of one GPU."""

    weights_gib: float
    cache_gib: float
    "Keys and values of one sequence of full context."
    tokens_per_s_at_most: float
    "Of one sequence: each token reads all weights and, in the mean, half the cache."


def generation(model: ModelConfig, gpu: Gpu, precision: Precision) -> Generation:
    """Bounded by memory bandwidth, as decoding one sequence is (arXiv:2211.05102, section 2)."""
    weights = WEIGHT_BYTES * parameters(model)
    cache = (4 if precision == "fp32" else 2) * 2 * model.layers * model.context * model.width
    return Generation(
        weights_gib=weights / GIB,
        cache_gib=cache / GIB,
        tokens_per_s_at_most=1e9 * gpu.bandwidth_gbs / (weights + cache / 2),
    )
