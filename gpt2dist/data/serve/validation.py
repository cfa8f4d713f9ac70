"""The windows of a validation pass, the same ones every time, dealt to all ranks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from gpt2dist.data.serve.windows import Windows
from gpt2dist.data.shards import Dataset
from gpt2dist.errors import BadInput


def validation_batches(
    dataset: Dataset, context: int, micro_batch: int, max_tokens: int, rank: int, world: int
) -> Iterator[tuple[torch.Tensor, int]]:
    """Pairs of an int64 [micro_batch, context + 1] tensor and how many of its rows are real.

    All ranks together see the first `max_tokens // context` windows (at least one) of the
    validation split once each. Every rank gets the same number of batches, because a sharded
    model's forward pass is collective; rows beyond the end repeat the last window.
    Raises BadInput when the split holds no window.
    """
    windows = Windows(dataset, "val", context)
    if not windows.count:
        tokens = dataset.totals["val"].tokens
        raise BadInput(
            f"{dataset.path} holds {tokens:,} validation tokens, less than one window of context "
            f"{context:,}; prepare it with a larger data.val_fraction (now "
            f"{dataset.val_fraction}), or lower model.context"
        )
    count = min(windows.count, max(1, max_tokens // context))
    rounds = -(-count // (micro_batch * world))
    # The check above belongs to the call, not to the first `next`.
    return _deal(windows, count, rounds, micro_batch, rank, world)


def _deal(
    windows: Windows, count: int, rounds: int, micro_batch: int, rank: int, world: int
) -> Iterator[tuple[torch.Tensor, int]]:
    for turn in range(rounds):
        first = (turn * world + rank) * micro_batch
        indices = np.arange(first, first + micro_batch)
        valid_rows = int((indices < count).sum())
        rows = windows.gather(np.minimum(indices, count - 1))
        yield torch.from_numpy(rows.astype(np.int64)), valid_rows
