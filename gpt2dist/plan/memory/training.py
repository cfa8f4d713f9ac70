"""The byte counts of `gpt2dist train`: GPT-2 in PyTorch under DeepSpeed, loss in chunks.

Activations are those that autograd saves (tests/plan/memory/test_training.py counts them);
buckets and copies are those of DeepSpeed 0.19 (runtime/zero/stage_1_and_2.py, stage3.py).
"""

from __future__ import annotations

from dataclasses import replace

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.arithmetic import lora_parameters, parameters
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.memory.terms import ByteCounts

CONTEXT_GIB = 0.9
"""CUDA context and library workspaces of PyTorch: 0.47 to 0.92 GiB on an A100 (stas00,
ml-engineering), 1.09 on a V100 (bigscience, tr3m-1B3.md)."""

NCCL_GIB = 0.6
"""NCCL's buffers and channels to other GPUs. Assumed: published sums with the context: 1 to 2."""

FRAGMENTATION = 0.023
"""Share of activations and logits lost in PyTorch's caching allocator; fitted on the published
runs by benchmarks/memory_accuracy.py."""

BUCKET_ELEMENTS = 100_000_000
"""reduce_bucket_size that training asks DeepSpeed for, at most the model: its buffers are taken
whole. More than the largest matrix (80.4M in XL); DeepSpeed's default of 5e8 would cost 2.8 to
3.7 GiB even for 124M."""

ALLREDUCE_ELEMENTS = 500_000_000
"""Of stage 0's flat all-reduce, fixed in DeepSpeed (runtime/engine.py)."""

ADAM_BYTES = 8.0
ADAM_8BIT_BYTES = 2 * (1 + 4 / 256)
"""Two moments of one byte; every 256 numbers share an fp32 scale (bitsandbytes; 2,048 in the
paper, arXiv:2110.02861, would save 0.03 bytes)."""


def trained_parameters(model: ModelConfig, layout: Layout) -> int:
    if layout.lora_rank is None:
        return parameters(model)
    return lora_parameters(model, layout.lora_rank)


def training_counts(model: ModelConfig, layout: Layout) -> ByteCounts:
    """What our training keeps under a layout."""
    engine = _engine_mode(layout)
    compute = 4 if layout.precision == "fp32" else 2
    weights = stream = _weight_bytes(layout)
    autocast = compute < weights
    masks = 1 if model.dropout else 0
    counts = ByteCounts(
        weights=weights,
        gradients=4,
        optimizer=_moment_bytes(layout) + _master_bytes(layout),
        # norm 1, qkv 3, attention 1, norm 1, MLP 4 + 4 in the compute dtype
        block_width=14 * compute + _norm_inputs(layout, stream, compute) + 2 * masks,
        block_head=4 if layout.fused_attention else 0,
        # Scores, probabilities and the dropout mask of attention that is written out.
        block_attention=0 if layout.fused_attention else 2 * compute + masks,
        block_token=16,
        stream=stream,
        outer_width=stream + masks,
        outer_token=16,
        # Gradient of the stream, its cast, and of the MLP's 4 d wide activations.
        backward_width=stream + compute + 4 * compute,
        logit=compute + 4,
        # The final norm's output, its cast and the gradient that the loss computes at once.
        head_token_width=stream + 2 * compute,
        # The head's matrix padded and cast, its gradient in fp32 and one chunk's part of it.
        head_weight=compute + (0 if layout.lora_rank is not None else 4 + compute),
        cast=2 if autocast else 0,
        bucket=_bucket_bytes(model, layout, engine, autocast),
        gathered=weights,
        step=_step_bytes(model, layout),
        context_gib=CONTEXT_GIB + (NCCL_GIB if layout.gpus > 1 else 0),
        fragmentation=FRAGMENTATION,
    )
    return _offloaded(counts, model, layout) if layout.offload == "optimizer" else counts


def _engine_mode(layout: Layout) -> bool:
    return layout.precision != "fp32" and (
        layout.mixed_precision == "engine" or layout.precision == "fp16"
    )


def _norm_inputs(layout: Layout, stream: int, compute: int) -> int:
    """Inputs of the two norms; torch.compile adds the second up again from the projection."""
    if layout.kernels == "eager":
        return 2 * stream
    return stream + compute


def _weight_bytes(layout: Layout) -> int:
    # LoRA freezes the base: nothing needs its fp32 form, so that is held in the compute dtype.
    sixteen_bit = layout.precision != "fp32" and layout.lora_rank is not None
    return 2 if _engine_mode(layout) or sixteen_bit else 4


def _moment_bytes(layout: Layout) -> float:
    return ADAM_BYTES if layout.optimizer == "adamw" else ADAM_8BIT_BYTES


def _master_bytes(layout: Layout) -> int:
    # DeepSpeed's stages 1 to 3 keep a master copy even of fp32 weights.
    return 4 if layout.zero_stage or _weight_bytes(layout) == 2 else 0


def bucket_elements(model: ModelConfig) -> int:
    """Numbers in one of DeepSpeed's reduction buckets under ZeRO stages 1 to 3."""
    return min(parameters(model), BUCKET_ELEMENTS)


def _bucket_bytes(model: ModelConfig, layout: Layout, engine: bool, autocast: bool) -> float:
    """Buffers that DeepSpeed takes at the first gradient: one per dtype of communication."""
    if layout.zero_stage == 0:
        return 0
    if layout.zero_stage == 3:
        per_element = 2 + 4 if autocast else 2 if engine else 4
    elif autocast:
        per_element = 4 + 4  # linear layers talk bf16, the rest fp32; both are staged in fp32
    else:
        per_element = 2 if engine and layout.zero_stage == 2 else 4
    return per_element * bucket_elements(model)


def _step_bytes(model: ModelConfig, layout: Layout) -> float:
    """Flat copies of the gradients: for the all-reduce (stage 0) or of one's own share."""
    trained = trained_parameters(model, layout)
    if layout.zero_stage == 0:
        return 4 * min(trained, ALLREDUCE_ELEMENTS)
    return 4 * trained / layout.gpus


def _offloaded(counts: ByteCounts, model: ModelConfig, layout: Layout) -> ByteCounts:
    """ZeRO-Offload (arXiv:2101.06840): moments, masters and gradients of one's share on the host.

    DeepSpeed also keeps a copy in the weights' dtype there, through which they travel back.
    """
    share = trained_parameters(model, layout) / (layout.gpus if layout.zero_stage else 1)
    return replace(
        counts,
        optimizer=0,
        gradients=0 if layout.zero_stage >= 2 else counts.gradients,
        step=0,
        host=(_moment_bytes(layout) + 4 + 4 + counts.weights) * share,
    )
