"""Text from a model, one token at a time, several samples at once."""
# B samples, T tokens fed, V vocabulary

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from gpt2dist.errors import BadInput
from gpt2dist.model.gpt2 import GPT2, Cache


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; BadInput where nothing could be."""

    max_new_tokens: int
    temperature: float = 1.0
    "0 takes the likeliest token."
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop_id: int | None = None
    "A sample that drew it repeats it; the text ends when all have."

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise BadInput(f"max_new_tokens={self.max_new_tokens} must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise BadInput(
                f"temperature={self.temperature} must be 0 (greedy) or a positive number"
            )
        if self.top_k is not None and self.top_k < 1:
            raise BadInput(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise BadInput(f"top_p={self.top_p} must be above 0 and at most 1")


def generate(
    model: GPT2, prompt_ids: Sequence[int] | Sequence[Sequence[int]], sampling: Sampling
) -> Iterator[list[int]]:
    """Yield one new id per sample and step; the samples of a batch have prompts of one length.

    The model sees at most `context` tokens: of a longer prompt the newest, and whenever the
    window is full it restarts from its newer half. Draws come from an own generator on the CPU:
    training's random state is not touched, and the mode the model was in returns. Raises
    BadInput, at the call, for a prompt that cannot be continued.
    """
    return _steps(model, torch.tensor(_prompts(prompt_ids, model.config.vocab)), sampling)


def token_probabilities(
    logits_BV: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """probs_BV to draw from: temperature, then the top_k likeliest, then the nucleus.

    The nucleus (Holtzman et al., arXiv:1904.09751) is the smallest set of likeliest tokens that
    together hold at least top_p. Tokens tied with the k-th all stay.
    """
    top_B1 = logits_BV.amax(1, keepdim=True)
    if temperature == 0:
        likeliest_B = logits_BV.argmax(1)
        return torch.zeros_like(logits_BV).scatter_(1, likeliest_B.unsqueeze(1), 1.0)
    # The largest becomes 0 first, so that a tiny temperature cannot overflow.
    scaled_BV = (logits_BV - top_B1) / temperature
    if top_k is not None and top_k < scaled_BV.shape[1]:
        kth_B1 = scaled_BV.topk(top_k, dim=1).values[:, -1:]
        scaled_BV = scaled_BV.masked_fill(scaled_BV < kth_B1, -torch.inf)
    probs_BV = scaled_BV.softmax(1)
    if top_p is not None and top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=1, descending=True)
        before_BV = sorted_BV.cumsum(1) - sorted_BV
        sorted_BV = sorted_BV.masked_fill(before_BV >= top_p, 0.0)
        probs_BV = torch.zeros_like(probs_BV).scatter_(1, order_BV, sorted_BV)
        probs_BV /= probs_BV.sum(1, keepdim=True)
    return probs_BV


def _steps(model: GPT2, seen_BT: Tensor, sampling: Sampling) -> Iterator[list[int]]:
    context = model.config.context
    generator = torch.Generator().manual_seed(sampling.seed)
    weight = next(model.parameters())
    cache = Cache(
        model.config, seen_BT.shape[0], device=weight.device, dtype=_compute_dtype(weight)
    )
    stopped_B = torch.zeros(seen_BT.shape[0], dtype=torch.bool)
    feed_BT = seen_BT[:, -context:]
    was_training = model.training
    model.eval()
    try:
        for _ in range(sampling.max_new_tokens):
            if cache.length + feed_BT.shape[1] > context:
                cache.length = 0
                feed_BT = seen_BT[:, -max(1, context // 2) :]
            with torch.no_grad():
                logits_BV = model(feed_BT.to(weight.device), cache=cache).float().cpu()
            probs_BV = token_probabilities(
                logits_BV, sampling.temperature, sampling.top_k, sampling.top_p
            )
            feed_BT = torch.multinomial(probs_BV, 1, generator=generator)
            if sampling.stop_id is not None:
                feed_BT[stopped_B] = sampling.stop_id
                stopped_B |= feed_BT[:, 0] == sampling.stop_id
            seen_BT = torch.cat((seen_BT, feed_BT), dim=1)[:, -context:]
            yield feed_BT[:, 0].tolist()
            if stopped_B.all():
                return
    finally:
        model.train(was_training)


def _compute_dtype(weight: Tensor) -> torch.dtype:
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _prompts(prompt_ids: Sequence[int] | Sequence[Sequence[int]], vocab: int) -> list[list[int]]:
    nested = prompt_ids if prompt_ids and not isinstance(prompt_ids[0], int) else [prompt_ids]
    prompts = [list(cast("Sequence[int]", ids)) for ids in nested]
    if not all(prompts):
        raise BadInput("the prompt is empty; give at least one token")
    if len({len(ids) for ids in prompts}) > 1:
        raise BadInput("prompts of one batch must have the same length; sample them one by one")
    for ids in prompts:
        for token in ids:
            if not 0 <= token < vocab:
                raise BadInput(f"prompt token {token} is outside the model's vocabulary of {vocab}")
    return prompts
