"""A dataset folder in words, for `gpt2dist data show`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpt2dist.data.shards import SPLITS, TOKEN, Dataset
from gpt2dist.data.tokenizer import load_tokenizer

_EXCERPT_TOKENS = 200
_EXCERPT_CHARACTERS = 200


def describe(dataset: Dataset, batch_tokens: int = 524_288) -> str:
    """Splits, origin, steps per epoch at `batch_tokens`, and how the first document begins."""
    lines = [
        dataset.path,
        "",
        f"{'split':<6}{'documents':>12}{'tokens':>16}{'bytes/token':>13}{'shards':>8}",
    ]
    for split in SPLITS:
        totals = dataset.totals[split]
        # A document's separator is a token of no text.
        text_tokens = totals.tokens - totals.documents
        ratio = f"{totals.text_bytes / text_tokens:.2f}" if text_tokens > 0 else "-"
        lines.append(
            f"{split:<6}{totals.documents:>12,}{totals.tokens:>16,}{ratio:>13}"
            f"{len(dataset.split(split)):>8,}"
        )
    steps = dataset.totals["train"].tokens / batch_tokens
    taken = "all" if dataset.max_documents is None else f"the first {dataset.max_documents:,}"
    lines += [
        "",
        f"source     {dataset.source} ({taken} documents, column {dataset.text_field})",
        f"tokenizer  {dataset.tokenizer} ({dataset.vocab:,} tokens), "
        f"{dataset.separator} before each document",
        f"held out   val_fraction {dataset.val_fraction}: {dataset.split_rule}",
        f"prepared   {dataset.started} to {dataset.finished} by {dataset.tool}",
        f"one epoch  {steps:,.1f} steps of {batch_tokens:,} tokens",
        "",
        "It begins:",
        _excerpt(dataset),
    ]
    return "\n".join(lines)


def _excerpt(dataset: Dataset) -> str:
    first = dataset.shards[0]
    tokens = np.fromfile(Path(dataset.path) / first.file, TOKEN, _EXCERPT_TOKENS)
    text = load_tokenizer(dataset.tokenizer).decode(tokens.tolist())
    return text[:_EXCERPT_CHARACTERS]
