"""The memory formulas, the same for every training code: byte counts in, one GPU's peak out.

Sources: ZeRO (arXiv:1910.02054) for what a stage shards; Korthikanti et al. (arXiv:2205.05198) for
activations as bytes per token and layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.arithmetic import GIB, block_matrices
from gpt2dist.plan.layout import Layout


@dataclass(frozen=True)
class Memory:
    """GPU memory of one GPU at its peak, and host memory of one machine."""

    weights_gib: float
    gradients_gib: float
    optimizer_gib: float
    "Adam's moments and the fp32 master weights."
    activations_gib: float
    "Kept for the backward pass, and the working set of the backward pass itself."
    logits_gib: float
    "The head and its loss."
    buffers_gib: float
    "16-bit casts of weights, reduction buckets, weights that ZeRO-3 gathered."
    overhead_gib: float
    "CUDA and NCCL context, library workspaces, fragmentation."
    host_gib: float
    "Host memory of the whole machine for offloaded state; 0 without offload."

    @property
    def peak_gib(self) -> float:
        return sum(gib for name, gib in vars(self).items() if name != "host_gib")


@dataclass(frozen=True)
class ByteCounts:
    """What one training code keeps, in bytes."""

    weights: float
    "Per parameter."
    gradients: float
    "Per trained parameter, at the moment of the peak."
    optimizer: float
    "Per trained parameter: moments and masters."
    block_width: float
    "Kept per token, layer and unit of width."
    block_head: float = 0.0
    "Kept per token, layer and head: the log-sum-exp of fused attention."
    block_attention: float = 0.0
    "Kept per token, layer, head and token attended to: 0 with fused attention."
    block_token: float = 0.0
    "Kept per token and layer: mean and deviation of the norms."
    stream: float = 2.0
    "Residual stream per token and unit of width: what recomputation keeps of a block."
    outer_width: float = 0.0
    "Kept outside the blocks, per token and unit of width."
    outer_token: float = 0.0
    backward_width: float = 0.0
    "Working set of a block's backward pass, per token and unit of width."
    logit: float = 0.0
    "Per logit that exists at once."
    head_token_width: float = 0.0
    "Working set of head and loss, per token and unit of width."
    head_weight: float = 0.0
    "Working set of head and loss, per number of the head's matrix."
    cast: float = 0.0
    "16-bit copies, per number of the blocks' matrices."
    layer: float = 0.0
    "Constant buffers of a layer."
    bucket: float = 0.0
    "Reduction buckets that live through the backward pass."
    gathered: float = 0.0
    "Per parameter that ZeRO-3 holds whole for a while; `live_parameters` at most."
    live_parameters: int = 10**9
    step: float = 0.0
    "Copies at the optimizer step, when the activations are gone; total."
    host: float = 0.0
    "Offloaded state of one GPU's share; total."
    context_gib: float = 0.0
    "CUDA and NCCL context and library workspaces."
    fragmentation: float = 0.0
    "Lost in the allocator, as a share of activations and logits."


def estimate(
    model: ModelConfig,
    layout: Layout,
    counts: ByteCounts,
    params: int,
    trained: int | None = None,
) -> Memory:
    """Memory of one GPU under a layout's ZeRO stage, micro-batch and recomputation.

    `params` are those held, `trained` those that get gradients and optimizer state (default: all).
    """
    trained = params if trained is None else trained
    stage, gpus = layout.zero_stage, layout.gpus
    activations = activation_bytes(model, layout, counts)
    logits = head_bytes(model, layout, counts)
    # The working set of the last block's backward pass follows that of the head.
    tokens = layout.micro_batch * model.context
    activations += max(0.0, tokens * model.width * counts.backward_width - logits)
    buffers = (
        counts.cast * block_matrices(model)
        + counts.layer * model.layers
        + counts.bucket
        + (counts.gathered * min(params, counts.live_parameters) if stage == 3 else 0)
    )
    buffers = max(buffers, counts.step - activations - logits)
    return Memory(
        weights_gib=counts.weights * params / (gpus if stage >= 3 else 1) / GIB,
        gradients_gib=counts.gradients * trained / (gpus if stage >= 2 else 1) / GIB,
        optimizer_gib=counts.optimizer * trained / (gpus if stage >= 1 else 1) / GIB,
        activations_gib=activations / GIB,
        logits_gib=logits / GIB,
        buffers_gib=buffers / GIB,
        overhead_gib=counts.context_gib + counts.fragmentation * (activations + logits) / GIB,
        host_gib=counts.host * layout.gpus_per_node / GIB,
    )


def activation_bytes(model: ModelConfig, layout: Layout, counts: ByteCounts) -> float:
    """Kept from the forward for the backward pass, all layers; with recomputation one of them."""
    tokens = layout.micro_batch * model.context
    block = tokens * (
        counts.block_width * model.width
        + counts.block_head * model.heads
        + counts.block_attention * model.heads * model.context
        + counts.block_token
    )
    outer = tokens * (counts.outer_width * model.width + counts.outer_token)
    if layout.recompute:
        return model.layers * tokens * model.width * counts.stream + block + outer
    return model.layers * block + outer


def head_bytes(model: ModelConfig, layout: Layout, counts: ByteCounts) -> float:
    """Working set of head and loss."""
    tokens = layout.micro_batch * model.context
    chunk = tokens if layout.loss_chunk_tokens is None else min(tokens, layout.loss_chunk_tokens)
    return (
        chunk * model.vocab * counts.logit
        + tokens * model.width * counts.head_token_width
        + model.vocab * model.width * counts.head_weight
    )
