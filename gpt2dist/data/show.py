"""A dataset folder in words, for `gpt2dist data show`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpt2dist.config.schema import ModelConfig
from gpt2dist.data.shards import SPLITS, TOKEN, Dataset
from gpt2dist.data.tokenizer import load_tokenizer
from gpt2dist.human import columns

_EXCERPT_TOKENS = 200
_EXCERPT_CHARACTERS = 200


def describe_dataset(
    dataset: Dataset, batch_tokens: int = 524_288, context: int = ModelConfig.context
) -> str:
    """Splits, origin, steps per epoch at `batch_tokens`, and how the first document begins."""
    rows = [["split", "documents", "tokens", "bytes/token", "shards"]]
    for split in SPLITS:
        totals = dataset.totals[split]
        # A document's separator is a token of no text.
        text_tokens = totals.tokens - totals.documents
        ratio = f"{totals.text_bytes / text_tokens:.2f}" if text_tokens > 0 else "-"
        figures = [f"{totals.documents:,}", f"{totals.tokens:,}", ratio]
        rows.append([split, *figures, f"{len(dataset.split(split)):,}"])
    steps = dataset.totals["train"].tokens / batch_tokens
    taken = "all" if dataset.max_documents is None else f"the first {dataset.max_documents:,}"
    lines = [
        dataset.path,
        "",
        *columns(rows, left=[0]),
        "",
        f"source     {dataset.source} ({taken} documents, column {dataset.text_field})",
        f"tokenizer  {dataset.tokenizer} ({dataset.vocab:,} tokens), "
        f"{dataset.separator} before each document",
        f"held out   {dataset.val_share:.2%} of all tokens (val_fraction {dataset.val_fraction}): "
        f"{dataset.split_rule}",
        f"prepared   {dataset.started} to {dataset.finished} by {dataset.tool}",
        f"one epoch  {steps:,.1f} steps of {batch_tokens:,} tokens",
        *(f"note       {remark}" for remark in remarks(dataset, context)),
        "",
        "It begins:",
        _excerpt(dataset),
    ]
    return "\n".join(lines)


def remarks(dataset: Dataset, context: int) -> Iterator[str]:
    """What a run with windows of `context` tokens should know of a dataset, if anything."""
    asked, reached = dataset.val_fraction, dataset.val_share
    if not asked / 2 <= reached <= asked * 2:
        yield (
            f"data.val_fraction={asked} has held out {reached:.2%} of all tokens: documents are "
            "held out whole, and these are few or of very unlike sizes; ask for another share, or "
            "cut them"
        )
    for split in SPLITS:
        short = [shard for shard in dataset.split(split) if shard.tokens <= context]
        if short:
            yield (
                f"{len(short):,} of {len(dataset.split(split)):,} {split} shards are shorter than "
                f"one window of model.context={context:,} and are not used: {short[0].file} has "
                f"{short[0].tokens:,} tokens, all of them {sum(one.tokens for one in short):,}"
            )


def _excerpt(dataset: Dataset) -> str:
    first = dataset.shards[0]
    tokens = np.fromfile(Path(dataset.path) / first.file, TOKEN, _EXCERPT_TOKENS)
    text = load_tokenizer(dataset.tokenizer).decode(tokens.tolist())
    return text[:_EXCERPT_CHARACTERS]
