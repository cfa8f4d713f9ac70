"""Training windows: `context + 1` consecutive tokens of one shard, read from mapped memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpt2dist.data.shards import TOKEN, Dataset, Split
from gpt2dist.errors import BadInput


class Windows:
    """The windows of one split, in shard order.

    A window's first `context` tokens are inputs, its last `context` are targets. Windows follow
    each other at a stride of `context` and never cross from one shard into the next.
    """

    def __init__(self, dataset: Dataset, split: Split, context: int) -> None:
        self._dataset = dataset
        self._split = split
        self._context = context
        self._files = [Path(dataset.path) / shard.file for shard in dataset.split(split)]
        counts = [max(0, shard.tokens - 1) // context for shard in dataset.split(split)]
        self._ends = np.cumsum([0, *counts])
        self._mapped: dict[int, np.ndarray] = {}

    @property
    def count(self) -> int:
        return int(self._ends[-1])

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """uint16 [len(indices), context + 1]: the windows at these indices of [0, count)."""
        indices = np.asarray(indices, np.int64)
        shards = np.searchsorted(self._ends, indices, side="right") - 1
        offsets = (indices - self._ends[shards]) * self._context
        rows = np.empty((len(indices), self._context + 1), np.uint16)
        for row, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist())):
            rows[row] = self._tokens(shard)[offset : offset + self._context + 1]
        return rows

    def require_batch(self, batch_sequences: int) -> None:
        """BadInput unless the split fills one batch."""
        if self.count >= batch_sequences:
            return
        tokens = self._dataset.totals[self._split].tokens
        raise BadInput(
            f"{self._dataset.path} has {self.count:,} {self._split} windows of context "
            f"{self._context:,} ({tokens:,} tokens), a batch needs {batch_sequences:,} "
            f"({batch_sequences * self._context:,} tokens); lower train.batch_tokens or "
            "model.context, or prepare more text"
        )

    def _tokens(self, shard: int) -> np.ndarray:
        if shard not in self._mapped:
            self._mapped[shard] = np.memmap(self._files[shard], TOKEN, mode="r")
        return self._mapped[shard]
