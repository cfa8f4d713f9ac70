"""Published training codes as byte counts, and what the formulas then say of their runs.

Each record is read off the code of that framework: what autograd keeps in the dtypes it runs in.
The formulas around the counts are those of our own training (gpt2dist.plan.memory.terms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from memory_runs import PublishedRun

from gpt2dist.plan.arithmetic import GIB
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.memory.terms import (
    ByteCounts,
    Memory,
    activation_bytes,
    estimate,
    head_bytes,
)
from gpt2dist.plan.memory.training import FRAGMENTATION

CONTEXT_GIB = {"V100-32": 1113 / 1024}
"""Measured CUDA context: 1113 MiB on a V100 (bigscience, tr3m-1B3.md)."""

USUAL_CONTEXT_GIB = 0.7
"""Middle of the 0.47 to 0.92 GiB measured on an A100 (stas00, ml-engineering)."""

MEGATRON_MISC_GIB = 5.0
"""What EleutherAI's cookbook (calc_transformer_mem.py) adds for a Megatron-DeepSpeed run."""


@dataclass(frozen=True)
class Fitted:
    """All numbers here that were fitted; benchmarks/memory_accuracy.py fits and prints them."""

    fragmentation: float = FRAGMENTATION
    compiled_width: float = 62.6
    "Bytes per token, layer and width that PyTorch 2.0's torch.compile kept of languini's model."
    compiled_attention: float = 5.46
    "The same per attention score."


def published_memory(run: PublishedRun, fitted: Fitted, micro_batch: int) -> Memory:
    """The run's memory at a micro-batch, as far as what was published counts it."""
    layout = replace(run.layout, micro_batch=micro_batch)
    counts = FRAMEWORKS[run.framework](run, layout, fitted)
    if run.kind in ("reserved", "allocated"):  # the allocator does not see the CUDA context
        counts = replace(counts, context_gib=0)
    if run.kind == "allocated":
        counts = replace(counts, fragmentation=0)
    return estimate(run.model, layout, counts, run.params)


def predicted_gib(run: PublishedRun, fitted: Fitted = Fitted()) -> float:
    """What the formulas say of the quantity that the run published, in GiB.

    Where a largest micro-batch was published, the mean of that and the next one: it should equal
    what the card offers.
    """
    if run.kind == "activations":
        counts = FRAMEWORKS[run.framework](run, run.layout, fitted)
        kept = activation_bytes(run.model, run.layout, counts)
        return (kept + head_bytes(run.model, run.layout, counts)) / GIB
    if run.fits is not None:
        peaks = (published_memory(run, fitted, run.fits + more).peak_gib for more in (0, 1))
        return sum(peaks) / 2
    return published_memory(run, fitted, run.layout.micro_batch).peak_gib


def predicted_largest(run: PublishedRun, fitted: Fitted = Fitted()) -> int:
    """The largest micro-batch that should fit on the run's card."""
    assert run.usable_gib is not None
    size = 0
    while published_memory(run, fitted, size + 1).peak_gib <= run.usable_gib:
        size += 1
    return size


def _llmc(run: PublishedRun, layout: Layout, fitted: Fitted) -> ByteCounts:
    """llm.c, train_gpt2.cu: all in bf16 but moments, masters and statistics; cuDNN attention.

    The logits' buffer (never narrower than 3 d) takes their gradient in place; encoder, final norm
    and scratch buffers are 7 d wide.
    """
    return ByteCounts(
        weights=2,
        gradients=2,
        optimizer=12,
        block_width=32,
        block_head=4,
        block_token=16,
        outer_width=14,
        outer_token=12,
        logit=2,
        context_gib=USUAL_CONTEXT_GIB,
    )


def _llmc_gelu(run: PublishedRun, layout: Layout, fitted: Fitted) -> ByteCounts:
    """llm.c -r 1: GELU outputs (4 d) are computed again, into one buffer for all layers."""
    counts = _llmc(run, layout, fitted)
    return replace(counts, block_width=24, outer_width=counts.outer_width + 8)


def _languini(run: PublishedRun, layout: Layout, fitted: Fitted) -> ByteCounts:
    """languini-kitchen: fp32 weights under fp16 autocast, attention written out, loss unchunked.

    Eager, autograd keeps 88 d: norm inputs 8, their casts 6 + 2 (q, k and v each cast anew), q, k
    and v 6, attention output 2, and 64 of a GELU written out whose power runs in fp32. Attention
    keeps fp32 probabilities and their cast. Every layer owns a 4,096 x 4,096 fp32 mask.
    """
    compiled = run.framework == "languini compiled"
    counts = ByteCounts(
        weights=4,
        gradients=0,
        optimizer=8,
        block_width=fitted.compiled_width if compiled else 88,
        block_attention=fitted.compiled_attention if compiled else 6,
        block_token=16,
        outer_width=6,
        logit=14,
        head_weight=2,
        cast=2,
        layer=4 * 4096**2,
        context_gib=CONTEXT_GIB.get(run.gpu, USUAL_CONTEXT_GIB),
        fragmentation=fitted.fragmentation,
    )
    # Old gradients are dropped between forward and backward pass. Before: logits, fp32 logits and
    # log-softmax (10 bytes) beside them; after: logits, log-softmax and two gradients (14).
    before = replace(counts, gradients=4, logit=10)
    return max(
        (counts, before),
        key=lambda c: estimate(run.model, layout, c, run.params).peak_gib,
    )


def _torchtitan(run: PublishedRun, layout: Layout, fitted: Fitted) -> ByteCounts:
    """torchtitan: FSDP2 over fp32 shards, bf16 blocks under torch.compile, eager unchunked loss."""
    return ByteCounts(
        weights=4,
        gradients=4,
        optimizer=8,
        block_width=32,
        block_head=4,
        block_token=16,
        outer_width=8,
        logit=14,
        gathered=2,
        fragmentation=fitted.fragmentation,
    )


def _hf_trainer(run: PublishedRun, layout: Layout, fitted: Fitted) -> ByteCounts:
    """Hugging Face GPT-2 in bf16 autocast, torch 1.13: like languini's eager model, with dropout.

    Masks add 2 d and, in attention, the mask and no second cast (7 per score); qkv stays alive as
    the key-value cache. The shifted logits are a copy (2 bytes more). Weights are not in the
    published number.
    """
    return ByteCounts(
        weights=0,
        gradients=4,
        optimizer=8,
        block_width=92,
        block_attention=7,
        block_token=16,
        outer_width=9,
        logit=16,
        head_weight=2,
        cast=2,
    )


def _megatron(run: PublishedRun, layout: Layout, fitted: Fitted) -> ByteCounts:
    """Megatron-DeepSpeed of 2021: fp16, fused softmax, dropout, fp32 loss; ZeRO-1 in DeepSpeed.

    Activations are Korthikanti's 34 d + 5 per score; logits are fp16, fp32 and their softmax.
    """
    return ByteCounts(
        weights=2,
        gradients=2,
        optimizer=12,
        block_width=34,
        block_attention=5,
        outer_width=4,
        logit=10,
        bucket=2 * 500_000_000,
        context_gib=MEGATRON_MISC_GIB,
    )


def _foundry(run: PublishedRun, layout: Layout, fitted: Fitted) -> ByteCounts:
    """llm-foundry: Composer FSDP in pure bf16 compute, Triton flash attention, fused loss."""
    return ByteCounts(
        weights=4,
        gradients=4,
        optimizer=8,
        block_width=32,
        block_head=4,
        block_token=16,
        outer_width=4,
        backward_width=16,
        logit=4,
        gathered=2 * 2 / run.model.layers,
        context_gib=USUAL_CONTEXT_GIB,
        fragmentation=fitted.fragmentation,
    )


FRAMEWORKS: dict[str, Callable[[PublishedRun, Layout, Fitted], ByteCounts]] = {
    "llm.c": _llmc,
    "llm.c -r 1": _llmc_gelu,
    "languini eager": _languini,
    "languini compiled": _languini,
    "torchtitan": _torchtitan,
    "Hugging Face Trainer": _hf_trainer,
    "Megatron-DeepSpeed": _megatron,
    "llm-foundry": _foundry,
}
