"""GPU memory of a training step before a GPU is rented: an upper estimate, term by term.

Sources: ZeRO (arXiv:1910.02054) for the states; Korthikanti et al. (arXiv:2205.05198) for the
activations of a block, 34 T d bytes in 16 bits with dropout and fused attention.
"""

from __future__ import annotations

from typing import Literal

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.arithmetic import parameters

GIB = 2**30

OVERHEAD_GIB = 1.0
"""CUDA context, library workspaces and fragmentation: 0.5 to 1.1 GiB is published."""

BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default reduce bucket."""

LIVE_ELEMENTS = 1_000_000_000
"""DeepSpeed's default stage3_max_live_parameters: weights that stage 3 may keep gathered."""

LOSS_CHUNK_TOKENS = 1024
"""Tokens whose logits exist at once (gpt2dist.model.loss on CUDA)."""

Precision = Literal["fp32", "bf16", "fp16"]
MixedPrecision = Literal["autocast", "engine"]


def training_gib(
    model: ModelConfig,
    micro_batch: int,
    *,
    precision: Precision,
    mixed_precision: MixedPrecision,
    zero_stage: int,
    world: int,
    recompute: bool,
) -> float:
    """Peak memory of one GPU in GiB, for `micro_batch` sequences of full context."""
    engine = precision != "fp32" and (mixed_precision == "engine" or precision == "fp16")
    compute_bytes = 4 if precision == "fp32" else 2
    weight_bytes = 2 if engine else 4
    autocast = compute_bytes < weight_bytes
    return (
        OVERHEAD_GIB
        + (
            _state_bytes(parameters(model), weight_bytes, autocast, zero_stage, world)
            + _block_bytes(model, micro_batch, compute_bytes, weight_bytes, recompute)
            + _head_bytes(model, micro_batch, compute_bytes, weight_bytes)
        )
        / GIB
    )


def largest_micro_batch(
    model: ModelConfig,
    sequences_per_worker: int,
    free_gib: float,
    *,
    precision: Precision,
    mixed_precision: MixedPrecision,
    zero_stage: int,
    world: int,
    recompute: bool,
) -> int:
    """Largest divisor of `sequences_per_worker` that fits in `free_gib`; 0 when not even 1 does."""
    for micro_batch in range(sequences_per_worker, 0, -1):
        if sequences_per_worker % micro_batch == 0 and free_gib >= training_gib(
            model,
            micro_batch,
            precision=precision,
            mixed_precision=mixed_precision,
            zero_stage=zero_stage,
            world=world,
            recompute=recompute,
        ):
            return micro_batch
    return 0


def _state_bytes(n: int, weight_bytes: int, autocast: bool, zero_stage: int, world: int) -> float:
    """Weights, gradients, Adam's moments, fp32 masters; what a stage shards is divided by world."""
    # DeepSpeed's stages 1 to 3 keep a master copy even of fp32 weights.
    master = 4 if weight_bytes == 2 or zero_stage else 0
    weights, gradients, optimizer = weight_bytes * n, 4 * n, (8 + master) * n
    total = (
        weights / (world if zero_stage == 3 else 1)
        + gradients / (world if zero_stage >= 2 else 1)
        + optimizer / (world if zero_stage >= 1 else 1)
    )
    if zero_stage == 3:
        total += weight_bytes * min(n, LIVE_ELEMENTS)
    if zero_stage or world > 1:
        total += 4 * min(n, BUCKET_ELEMENTS)
    if autocast:
        total += 2 * n
    return total


def _block_bytes(
    model: ModelConfig, micro_batch: int, compute_bytes: int, stream_bytes: int, recompute: bool
) -> float:
    """Activations kept for the backward pass of all blocks.

    Per token 14 d numbers in the compute dtype (norm 1, qkv 3, attention 1, norm 1, MLP 4 + 4),
    the two norms' inputs on the residual stream (fp32 under autocast) and two dropout masks.
    """
    tokens = micro_batch * model.context
    masks = 2 if model.dropout else 0
    block = tokens * model.width * (14 * compute_bytes + 2 * stream_bytes + masks)
    if recompute:
        return model.layers * tokens * model.width * stream_bytes + block
    # Gradients of the widest activations live beside the last block's own.
    return model.layers * block + tokens * model.width * 8 * compute_bytes


def _head_bytes(
    model: ModelConfig, micro_batch: int, compute_bytes: int, stream_bytes: int
) -> float:
    """The chunked loss: one chunk's logits twice, the head's weight and gradient, hidden states."""
    tokens = micro_batch * model.context
    logits = min(tokens, LOSS_CHUNK_TOKENS) * model.vocab * (compute_bytes + 4)
    weights = model.vocab * model.width * (2 * compute_bytes + 4)
    return logits + weights + tokens * model.width * (2 * stream_bytes + compute_bytes)
