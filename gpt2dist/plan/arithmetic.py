"""How many parameters a model has, how many FLOPs a trained token costs, and what writing takes."""

from __future__ import annotations

from dataclasses import dataclass

from gpt2dist.config.schema import ModelConfig

WEIGHT_BYTES = 4
"""`sample` keeps fp32 weights and computes under autocast."""

GIB = 2**30


def parameters(model: ModelConfig) -> int:
    """Trained numbers: token and position embeddings (the head is tied), L blocks, final norm.

    A block has four matrices (3 + 1 + 4 + 4) d^2, their biases 9 d and two norms 4 d.
    """
    d = model.width
    block = 12 * d * d + 13 * d
    return (model.vocab + model.context) * d + model.layers * block + 2 * d


def block_matrices(model: ModelConfig) -> int:
    """Numbers in the matrices of all blocks, 12 d^2 each."""
    return 12 * model.layers * model.width**2


def lora_parameters(model: ModelConfig, rank: int) -> int:
    """Adapters beside qkv, both projections and the MLP's first matrix: r (in + out) each."""
    d = model.width
    return model.layers * rank * ((d + 3 * d) + (d + d) + (d + 4 * d) + (4 * d + d))


def flops_per_token(model: ModelConfig) -> int:
    """Model FLOPs of one trained token, forward and backward, at full context.

    6 N_matmul + 12 L d T with N_matmul = 12 L d^2 + V d: PaLM (arXiv:2204.02311), appendix B, as
    nanoGPT counts. Attention is counted in full, not its causal half, as in published MFU.
    """
    matmul = block_matrices(model) + model.vocab * model.width
    return 6 * matmul + 12 * model.layers * model.width * model.context


@dataclass(frozen=True)
class Generation:
    """Text from a model on one GPU: the arithmetic of `gpt2dist sample`."""

    weights_gib: float
    cache_gib: float
    "Keys and values of one sequence of full context."
    tokens_per_s_at_most: float
    "Of one sequence: each token reads all weights and, in the mean, half the cache."


def generation(model: ModelConfig, bandwidth_gbs: float, cache_bytes: int = 2) -> Generation:
    """Bounded by memory bandwidth, as decoding one sequence is (arXiv:2211.05102, section 2).

    `cache_bytes`: of one number of the cache, 2 under autocast.
    """
    weights = WEIGHT_BYTES * parameters(model)
    cache = cache_bytes * 2 * model.layers * model.context * model.width
    return Generation(
        weights_gib=weights / GIB,
        cache_gib=cache / GIB,
        tokens_per_s_at_most=1e9 * bandwidth_gbs / (weights + cache / 2),
    )
