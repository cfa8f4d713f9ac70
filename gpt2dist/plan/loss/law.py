"""The law of scaling that loss predictions rest on: loss = E + A / N^alpha + B / D^beta."""

from __future__ import annotations

import math
from dataclasses import dataclass

REPEAT_VALUE = 15.39
"""R*: tokens seen again lose worth as exp(-repeats / R*). Muennighoff et al., arXiv:2305.16264."""

OVERTRAINED_RATIO, OVERTRAINED_POWER = 30.0, 0.69
"""Up to so many tokens per parameter published runs follow the law; tokens beyond count as a power
of themselves. benchmarks/loss_accuracy.py fits the power and leaves every run out of its own."""

UNTRAINED_LOSS = math.log(50257)
"""Nats per token of a model that knows nothing; no prediction is worse."""


@dataclass(frozen=True)
class Law:
    """Hoffmann et al., arXiv:2203.15556, approach 3. N: all parameters; D: tokens; nats/token."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    source: str

    def loss(self, params: float, tokens: float) -> float:
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    def tokens(self, params: float, loss: float) -> float | None:
        """Tokens after which the loss is reached; None where the model is too small for it."""
        gap = loss - self.E - self.A / params**self.alpha
        return (self.B / gap) ** (1 / self.beta) if gap > 0 else None


EPOCH = Law(
    E=1.8169,
    A=482.01,
    alpha=0.3478,
    B=2085.43,
    beta=0.3659,
    source="Besiroglu et al., arXiv:2404.10102 (epoch-research/analyzing-chinchilla@9225883)",
)
"""Chinchilla's runs fitted anew; the values first printed do not describe those runs."""


def effective_tokens(tokens: float, unique_tokens: float | None) -> float:
    """Fresh tokens that teach as much as `tokens` drawn from `unique_tokens` different ones."""
    if unique_tokens is None or tokens <= unique_tokens:
        return tokens
    repeats = tokens / unique_tokens - 1
    return unique_tokens * (1 + REPEAT_VALUE * -math.expm1(-repeats / REPEAT_VALUE))


def tokens_with_repeats(effective: float, unique_tokens: float | None) -> float | None:
    """Inverse of `effective_tokens`; None where no number of repeats is enough."""
    if unique_tokens is None or effective <= unique_tokens:
        return effective
    gained = (effective / unique_tokens - 1) / REPEAT_VALUE
    if gained >= 1:
        return None
    return unique_tokens * (1 - REPEAT_VALUE * math.log1p(-gained))


def overtrained_tokens(params: float, tokens: float, power: float = OVERTRAINED_POWER) -> float:
    """Tokens that by the law teach as much as `tokens`, of which there may be too many."""
    start = OVERTRAINED_RATIO * params
    return tokens if tokens <= start else start * (tokens / start) ** power


def published_loss(params: float, tokens: float, power: float = OVERTRAINED_POWER) -> float:
    """Chinchilla's law with over-training, before a text's offset; repeats already discounted."""
    return EPOCH.loss(params, overtrained_tokens(params, tokens, power))
