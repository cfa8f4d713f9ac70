"""What validation loss a run will end with, how many tokens a loss takes, what size is best.

A published law plus an offset per dataset (docs/planner-loss.md shows how far off it is), or the
fit of the user's own runs. It describes GPT-2 trained with AdamW to the end of a falling rate, in
nats per token of the GPT-2 tokenizer.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gpt2dist.plan.loss.law import (
    EPOCH,
    OVERTRAINED_POWER,
    UNTRAINED_LOSS,
    effective_tokens,
    overtrained_tokens,
    published_loss,
    tokens_with_repeats,
)
from gpt2dist.plan.loss.offsets import dataset_offsets, far_from_published
from gpt2dist.plan.loss.own_fit import OwnFit

Z80 = 1.2816
"""80 % of a normal distribution lie within this many standard deviations."""

DATASETS = {
    "huggingfacefw/fineweb": ("FineWeb", None),
    "huggingfacefw/fineweb-edu": ("FineWeb-Edu", None),
    "karpathy/fineweb-edu-100b-shuffle": ("FineWeb-Edu", 100e9),
    "skylion007/openwebtext": ("OpenWebText", 9.0e9),
    "openwebtext": ("OpenWebText", 9.0e9),
    "allenai/c4:en": ("C4", None),
    "tiiuae/falcon-refinedweb": ("RefinedWeb", None),
    "togethercomputer/redpajama-data-1t": ("RedPajama", None),
}
"""Hugging Face names of the texts that published runs are known for, and the tokens they hold.

OpenWebText: 9.0B (karpathy/nanoGPT, data/openwebtext). None: more than a GPT-2 would ever see.
"""

SMALLEST_MODEL, LARGEST_MODEL = 1e5, 1e13
"""Parameters between which the best size is sought."""


@dataclass(frozen=True)
class LossEstimate:
    loss: float
    "Nats per token of the GPT-2 tokenizer."
    low: float
    high: float
    "low to high: 80 % interval."
    basis: str
    "One line: which fit, which offset, and what makes it doubtful."


def predict_loss(
    params: int,
    tokens: float,
    source: str,
    *,
    own_fit: OwnFit | None = None,
    unique_tokens: float | None = None,
) -> LossEstimate | None:
    """Final validation loss on held-out text of `source` (data.source of the config).

    `unique_tokens`: how many different ones are trained on, where that is known better than by the
    name of the source. None where nothing is known about that text and there is no fit of own runs.
    """
    dataset, unique = published_text(source)
    unique = min((n for n in (unique, unique_tokens) if n is not None), default=None)
    seen = effective_tokens(tokens, unique)
    if own_fit is not None:
        sigma = own_fit.spread * math.sqrt(1 + 1 / own_fit.runs)
        basis = f"fit of {own_fit.runs} own runs ({own_fit.made})"
        return _estimate(own_fit.law.loss(params, seen), sigma, basis)
    if dataset is None:
        return None
    offset = dataset_offsets()[dataset]
    far = far_from_published(params, seen)
    basis = (
        f"{EPOCH.source} {offset.nats:+.2f} nats for {dataset} "
        f"({offset.runs} published runs, {_sizes(offset.smallest_params, offset.largest_params)})"
    )
    if offset.tokenizer != "GPT-2":
        basis += f"; in {offset.tokenizer} tokens, not GPT-2's"
    if seen < tokens:
        basis += f"; repeated text counts as {seen / 1e9:,.1f}B fresh tokens"
    if far:
        basis += f"; unreliable: {far}"
    loss = published_loss(params, seen) + offset.nats
    return _estimate(loss, offset.far_sigma if far else offset.sigma, basis)


def tokens_for_loss(
    params: int, loss: float, source: str, *, own_fit: OwnFit | None = None
) -> float | None:
    """Tokens after which a run of this size is predicted to end with `loss`.

    None when no number of tokens reaches it, and where `predict_loss` is None.
    """
    dataset, unique = published_text(source)
    if own_fit is not None:
        fresh = own_fit.law.tokens(params, loss)
    elif dataset is None:
        return None
    else:
        fresh = EPOCH.tokens(params, loss - dataset_offsets()[dataset].nats)
        if fresh is not None:
            fresh = overtrained_tokens(params, fresh, 1 / OVERTRAINED_POWER)
    return None if fresh is None else tokens_with_repeats(fresh, unique)


def compute_optimal(
    flops: float, source: str, *, own_fit: OwnFit | None = None
) -> tuple[float, float]:
    """Parameters and tokens of least loss for `flops` = 6 N D; an offset does not move them."""
    unique = published_text(source)[1]
    expected = published_loss if own_fit is None else own_fit.law.loss

    def loss(log_params: float) -> float:
        params = math.exp(log_params)
        return expected(params, effective_tokens(flops / (6 * params), unique))

    low, high = math.log(SMALLEST_MODEL), math.log(LARGEST_MODEL)
    while high - low > 1e-9:  # the loss falls, then rises with the size
        left, right = (2 * low + high) / 3, (low + 2 * high) / 3
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    params = math.exp((low + high) / 2)
    return params, flops / (6 * params)


def published_text(source: str) -> tuple[str | None, float | None]:
    """Name in the published table, and how many different tokens the source holds, if known."""
    if not source.startswith("hf:"):
        return None, None
    name = source.removeprefix("hf:").lower()
    known = DATASETS.get(name) or DATASETS.get(name.partition(":")[0])
    if known is None:
        return None, None
    dataset, unique = known
    sample = re.search(r":sample-(\d+)bt$", name)
    return dataset, float(sample.group(1)) * 1e9 if sample else unique


def _estimate(loss: float, sigma: float, basis: str) -> LossEstimate:
    low, middle, high = (
        min(value, UNTRAINED_LOSS) for value in (loss - Z80 * sigma, loss, loss + Z80 * sigma)
    )
    return LossEstimate(middle, low, high, basis)


def _sizes(smallest: float, largest: float) -> str:
    low, high = (f"{params / 1e6:,.0f}M" for params in (smallest, largest))
    return low if low == high else f"{low} to {high}"
