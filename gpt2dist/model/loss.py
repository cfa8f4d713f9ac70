"""Cross-entropy of a linear head without ever holding all its logits.

The gradient of a sum of cross-entropies is known as soon as the logits are, so the forward pass
computes it chunk by chunk and keeps only dX and dW; the backward pass multiplies by a scalar. No
matmul more than the plain form, and the backward pass needs neither the logits nor the weight,
which ZeRO-3 has released by then.
"""
# N tokens (batch x time), C tokens of one chunk, D width, V vocabulary, P vocabulary padded

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gpt2dist.errors import BadInput

IGNORE = -100

VOCAB_MULTIPLE = 64
"""Rows of logits start aligned: 50257 is odd, which costs tensor cores and AVX-512 alike."""

CHUNK_TOKENS = {"cpu": 512, "cuda": 1024}
"""CPU: fastest of 64 to 1024 (V 50257, D 128 and 768); CUDA: 1024 x 50304 fp32 = 197 MiB."""

FP16_SCALE = 16.0
"""Probabilities near 1/V are at the edge of fp16; 16 x leaves room for a chunk's sum of dW."""


def linear_cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk_tokens: int | None = None
) -> Tensor:
    """Sum over targets other than -100 of the cross-entropy of x @ weight.T, in nats, fp32.

    Matmuls run in autocast's dtype, or in the inputs' own without autocast; softmax and dW's sum
    over chunks in fp32 (fp64 for fp64 inputs). `backward` can run once per call.

    A target that is no row of the weight is an error. On a CPU it is a BadInput with token and
    position; CUDA's own bounds check ends the process, as it does for torch's cross_entropy: to
    name the token there, every step would wait for the device.
    """
    if targets_N.device.type == "cpu":
        _require_targets(targets_N, weight_VD.shape[0])
    if chunk_tokens is None:
        chunk_tokens = CHUNK_TOKENS.get(x_ND.device.type, CHUNK_TOKENS["cuda"])
    return _LinearCrossEntropy.apply(
        x_ND, weight_VD, targets_N, chunk_tokens, torch.is_grad_enabled()
    )


def _require_targets(targets_N: Tensor, vocab: int) -> None:
    wrong_N = ((targets_N < 0) & (targets_N != IGNORE)) | (targets_N >= vocab)
    if wrong_N.any():
        position = int(wrong_N.nonzero()[0])
        raise BadInput(
            f"target {int(targets_N[position])} at position {position:,} of the batch is outside "
            f"the vocabulary of {vocab:,} tokens"
        )


class _LinearCrossEntropy(torch.autograd.Function):
    # Needs no custom_fwd/custom_bwd: the dtype is chosen by hand and backward holds no autocast op.
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        chunk_tokens: int,
        with_gradient: bool,
    ) -> Tensor:
        device = x_ND.device.type
        dtype = x_ND.dtype
        if torch.is_autocast_enabled(device) and dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device)
        need_dx, need_dw = (with_gradient and need for need in ctx.needs_input_grad[:2])
        with torch.autocast(device, enabled=False):
            loss, ctx.dX_ND, ctx.dW_VD = _chunked(
                x_ND.detach().to(dtype),
                weight_VD.detach(),
                targets_N,
                chunk_tokens,
                (need_dx, need_dw),
            )
        ctx.scale = _gradient_scale(dtype)
        ctx.dtypes = x_ND.dtype, weight_VD.dtype
        ctx.spent = False
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.spent:
            raise RuntimeError("linear_cross_entropy's gradient was already handed out")
        dX_ND, dW_VD = ctx.dX_ND, ctx.dW_VD
        ctx.dX_ND = ctx.dW_VD = None
        ctx.spent = True
        # In fp32: 1/tokens rounded to bf16 would bias every gradient by up to 0.4 %.
        factor = grad_loss / ctx.scale
        x_dtype, weight_dtype = ctx.dtypes
        if dX_ND is not None:
            dX_ND = dX_ND.to(factor.dtype).mul_(factor).to(x_dtype)
        if dW_VD is not None:
            dW_VD = dW_VD.mul_(factor).to(weight_dtype)
        return dX_ND, dW_VD, None, None, None


def _chunked(
    x_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    chunk_tokens: int,
    needs: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Summed loss, and the gradients asked for, dX and dW, times `_gradient_scale`."""
    need_dx, need_dw = needs
    N, D = x_ND.shape
    V = weight_VD.shape[0]
    P = -(-V // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    dtype, sum_dtype = x_ND.dtype, torch.promote_types(x_ND.dtype, torch.float32)
    narrow = dtype != sum_dtype
    weight_PD = x_ND.new_empty(P, D)
    weight_PD[:V] = weight_VD
    weight_PD[V:] = 0
    # All memory is taken once: on a CPU, fresh pages cost more than the arithmetic on them.
    C = min(chunk_tokens, N)
    logits_CP = x_ND.new_empty(C, P)
    scratch_CP = x_ND.new_empty(C if narrow and not x_ND.is_cuda else 0, P, dtype=sum_dtype)
    loss = x_ND.new_zeros((), dtype=sum_dtype)
    dX_ND = torch.empty_like(x_ND) if need_dx else None
    dW_PD = x_ND.new_zeros(P, D, dtype=sum_dtype) if need_dw else None
    part_PD = x_ND.new_empty(P, D) if need_dw and narrow else None

    for start in range(0, N, chunk_tokens):
        x_CD = x_ND[start : start + chunk_tokens]
        targets_C = targets_N[start : start + chunk_tokens]
        ignored_C1 = (targets_C == IGNORE).unsqueeze(1)
        targets_C1 = targets_C.unsqueeze(1).masked_fill(ignored_C1, 0)
        c = x_CD.shape[0]
        z_CP = torch.mm(x_CD, weight_PD.t(), out=logits_CP[:c])
        z_CP[:, V:] = -torch.inf
        if z_CP.is_cuda:
            logp_C1 = _softmax_by_log(z_CP, targets_C1, sum_dtype, V)
        else:
            logp_C1 = _softmax_with_scratch(z_CP, targets_C1, scratch_CP[:c] if narrow else None)
        loss -= logp_C1.masked_fill(ignored_C1, 0).sum()
        if not (need_dx or need_dw):
            continue
        # z_CP holds scaled probabilities; minus one at the target makes them d loss / d logits.
        hit_C = (logp_C1.expm1() * _gradient_scale(dtype)).to(dtype).squeeze(1)
        z_CP[torch.arange(c, device=z_CP.device), targets_C1.squeeze(1)] = hit_C
        if dX_ND is not None:
            dX_CD = torch.mm(z_CP, weight_PD, out=dX_ND[start : start + c])
            dX_CD.masked_fill_(ignored_C1, 0)
        if dW_PD is not None:
            x_CD = x_CD.masked_fill(ignored_C1, 0)
            if part_PD is None:
                dW_PD.addmm_(z_CP.t(), x_CD)
            else:
                dW_PD += torch.mm(z_CP.t(), x_CD, out=part_PD)
    return loss, dX_ND, None if dW_PD is None else dW_PD[:V]


def _softmax_with_scratch(z_CP: Tensor, targets_C1: Tensor, scratch_CP: Tensor | None) -> Tensor:
    """Turn logits into scaled probabilities; return the targets' log-probabilities (C1).

    The CPU's form: its softmax is one fused pass, its exp is slow, fresh memory slower still. The
    log-sum-exp follows from the largest logit and its probability, which is at least 1/P.
    """
    probs_CP = z_CP if scratch_CP is None else scratch_CP.copy_(z_CP)
    logit_C1 = probs_CP.gather(1, targets_C1)
    top_C1 = probs_CP.amax(1, keepdim=True)
    torch.softmax(probs_CP, 1, out=probs_CP)
    logsumexp_C1 = top_C1 - probs_CP.amax(1, keepdim=True).log_()
    if scratch_CP is not None:
        scale = _gradient_scale(z_CP.dtype)
        z_CP.copy_(probs_CP if scale == 1 else probs_CP.mul_(scale))
    return logit_C1 - logsumexp_C1


def _softmax_by_log(z_CP: Tensor, targets_C1: Tensor, sum_dtype: torch.dtype, vocab: int) -> Tensor:
    """The same on CUDA, where exp rides along with the pass that stores the result.

    Gathering from the first `vocab` columns lets torch's own check find targets in the padding.
    """
    logp_CP = torch.log_softmax(z_CP, 1, dtype=sum_dtype)
    logp_C1 = logp_CP[:, :vocab].gather(1, targets_C1)
    scale = _gradient_scale(z_CP.dtype)
    torch.exp(logp_CP if scale == 1 else logp_CP.add_(math.log(scale)), out=z_CP)
    return logp_C1


def _gradient_scale(dtype: torch.dtype) -> float:
    return FP16_SCALE if dtype == torch.float16 else 1.0
