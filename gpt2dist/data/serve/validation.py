"""The windows of a validation pass, the same ones every time, dealt to all ranks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from gpt2dist.data.serve.windows import Windows
from gpt2dist.errors import BadInput


def validation_batches(
    windows: Windows, micro_batch: int, max_tokens: int, share: tuple[int, int] = (0, 1)
) -> Iterator[tuple[torch.Tensor, int]]:
    """Pairs of an int64 [micro_batch, context + 1] tensor and how many of its rows are real.

    All ranks together see the first `max_tokens // context` windows (at least one) of the
    validation split once each; `share` is (rank, world). Every rank gets the same number of
    batches, because a sharded model's forward pass is collective; rows beyond the end repeat the
    last window. Raises BadInput when the split holds no window.
    """
    if not windows.count:
        dataset = windows.dataset
        raise BadInput(
            f"{dataset.path} holds {dataset.totals['val'].tokens:,} validation tokens, less than "
            f"one window of context {windows.context:,}; prepare it with a larger "
            f"data.val_fraction (now {dataset.val_fraction}), or lower model.context"
        )
    rank, world = share
    count = min(windows.count, max(1, max_tokens // windows.context))

    def deal() -> Iterator[tuple[torch.Tensor, int]]:
        for turn in range(-(-count // (micro_batch * world))):
            first = (turn * world + rank) * micro_batch
            indices = np.arange(first, first + micro_batch)
            rows = windows.gather(np.minimum(indices, count - 1))
            yield torch.from_numpy(rows.astype(np.int64)), int((indices < count).sum())

    # The check above belongs to the call, not to the first `next`.
    return deal()
