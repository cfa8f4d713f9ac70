"""GPT-2 (2019), exact: pre-norm, learned positions, tied head, GELU-tanh, biases everywhere.

Radford et al., "Language Models are Unsupervised Multitask Learners". Parameters are named after
the released checkpoints, except that embeddings say what they are: optimizers that pick
parameters by name (Muon in DeepSpeed) look for `embed`.
"""
# B batch, T tokens, S tokens attended to, D width, V vocabulary, H heads, K head width, L layers

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from gpt2dist.config.schema import ModelConfig
from gpt2dist.model.loss import linear_cross_entropy

INIT_STD = 0.02
NORM_EPS = 1e-5


class Cache:
    """Keys and values of the first `length` positions of every layer, preallocated."""

    def __init__(
        self, config: ModelConfig, batch: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (config.layers, batch, config.heads, config.context, config.width // config.heads)
        self.keys_LBHSK = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBHSK = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def append(self, layer: int, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new positions; return that layer's keys and values so far (BHSK)."""
        end = self.length + k_BHTK.shape[2]
        self.keys_LBHSK[layer, :, :, self.length : end] = k_BHTK
        self.values_LBHSK[layer, :, :, self.length : end] = v_BHTK
        return self.keys_LBHSK[layer, :, :, :end], self.values_LBHSK[layer, :, :, :end]


class TokenEmbedding(nn.Embedding):
    """The one matrix at both ends of the model: rows in, logits or loss out.

    Both uses are calls of this module, not reads of its weight from outside: ZeRO-3 gathers a
    module's weight when the module is called and releases it afterwards.
    """

    def forward(
        self, x: Tensor, *, as_head: bool = False, targets_BT: Tensor | None = None
    ) -> Tensor:
        """x is tokens_BT, or with `as_head` hidden states (..., D)."""
        if not as_head:
            return super().forward(x)
        if targets_BT is None:
            return linear(x, self.weight)
        return linear_cross_entropy(x.flatten(0, 1), self.weight, targets_BT.flatten())


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.width, 3 * config.width)
        self.c_proj = nn.Linear(config.width, config.width)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        T = x_BTD.shape[1]
        q_BHTK, k_BHSK, v_BHSK = (
            y_BTD.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for y_BTD in self.c_attn(x_BTD).chunk(3, dim=2)
        )
        mask_TS = None
        if cache is not None:
            k_BHSK, v_BHSK = cache.append(layer, k_BHSK, v_BHSK)
            q_BHTK = q_BHTK.to(k_BHSK.dtype)
            if T > 1 and cache.length > 0:
                mask_TS = x_BTD.new_ones(T, k_BHSK.shape[2], dtype=torch.bool).tril(cache.length)
        y_BHTK = scaled_dot_product_attention(
            q_BHTK,
            k_BHSK,
            v_BHSK,
            attn_mask=mask_TS,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=T > 1 and mask_TS is None,
        )
        return self.resid_dropout(self.c_proj(y_BHTK.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, 4 * config.width)
        self.c_proj = nn.Linear(4 * config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.dropout(self.c_proj(gelu(self.c_fc(x_BTD), approximate="tanh")))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        x_BTD = x_BTD + self.attn(self.ln_1(x_BTD), cache=cache, layer=layer)
        return x_BTD + self.mlp(self.ln_2(x_BTD))


class GPT2(nn.Module):
    """GPT-2 whose every use goes through `forward`, so that ZeRO-3's module hooks see it.

    `recompute` drops each block's activations in the forward pass and computes them again in
    the backward pass, with the same dropout masks.
    """

    def __init__(self, config: ModelConfig, recompute: bool = False) -> None:
        super().__init__()
        self.config = config
        self.recompute = recompute
        self.compiled = False
        self.token_embed = TokenEmbedding(config.vocab, config.width)
        self.position_embed = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """N(0, 0.02); the 2L projections onto the residual stream by 1/sqrt(2L) smaller (2019).

        Positions too get 0.02, as in Hugging Face; OpenAI's code had 0.01 there.
        """
        residual_std = INIT_STD / math.sqrt(2 * self.config.layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, INIT_STD)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0.0, residual_std if name.endswith("c_proj") else INIT_STD)
                module.bias.zero_()

    def compile_blocks(self) -> None:
        """torch.compile every block in place: one graph, compiled once, for all layers."""
        for block in self.blocks:
            block.compile()
        self.compiled = True

    def forward(
        self, tokens_BT: Tensor, targets_BT: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Loss, logits or next-token logits, by what is given.

        With targets: the fp32 SUM of the cross-entropy over targets other than -100 (nats).
        With a cache: logits_BV of the last position, after appending the tokens to the cache.
        With neither: logits_BTV.
        """
        x_BTD = self._hidden(tokens_BT, cache)
        if cache is not None:
            x_BTD = x_BTD[:, -1]
        return self.token_embed(x_BTD, as_head=True, targets_BT=targets_BT)

    def _hidden(self, tokens_BT: Tensor, cache: Cache | None) -> Tensor:
        """Final hidden states x_BTD, normalised."""
        start = 0 if cache is None else cache.length
        end = start + tokens_BT.shape[1]
        if end > self.config.context:
            raise ValueError(f"{end} tokens do not fit a context of {self.config.context}")
        positions_T = torch.arange(start, end, device=tokens_BT.device)
        x_BTD = self.dropout(self.token_embed(tokens_BT) + self.position_embed(positions_T))
        if cache is not None:
            # Every generated token has another length: compiling would never pay.
            eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
            with eager:
                for layer, block in enumerate(self.blocks):
                    x_BTD = block(x_BTD, cache=cache, layer=layer)
            cache.length = end
        elif self.recompute and self.training and torch.is_grad_enabled():
            for block in self.blocks:
                x_BTD = checkpoint(block, x_BTD, use_reentrant=False)
        else:
            for block in self.blocks:
                x_BTD = block(x_BTD)
        return self.ln_f(x_BTD)
