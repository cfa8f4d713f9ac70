"""Training windows, and from one integer cursor, the step, to those that each rank trains on.

A window is `context + 1` consecutive tokens of one shard. Step s takes the global positions
[s * batch_sequences, (s + 1) * batch_sequences) of the order; rank r takes the r-th equal slice of
them. So what a step trains on never depends on the number of ranks, and a resumed run needs to
know its step and nothing else.
"""

from __future__ import annotations

import functools
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt2dist.data.serve.order import window_index
from gpt2dist.data.shards import TOKEN, Dataset, Split, check_size, damaged, load_dataset_folder
from gpt2dist.errors import BadInput

_MOST_OPEN_FILES = 512
"Half of what a process may open by default."


class Windows:
    """The windows of one split, in shard order.

    A window's first `context` tokens are inputs, its last `context` are targets. Windows follow
    each other at a stride of `context` and never cross from one shard into the next.
    """

    def __init__(self, dataset: Dataset, split: Split, context: int) -> None:
        self.dataset = dataset
        self.split = split
        self.context = context
        self._shards = dataset.split(split)
        counts = [max(0, shard.tokens - 1) // context for shard in self._shards]
        self._ends = np.cumsum([0, *counts])
        self._open: dict[int, int] = {}
        weakref.finalize(self, _close, self._open)

    @property
    def count(self) -> int:
        return int(self._ends[-1])

    def gather(self, indices: np.ndarray) -> np.ndarray:
        """uint16 [len(indices), context + 1]: the windows at these indices of [0, count).

        Raises BadInput naming the shard where one ends early or holds what is no token.
        """
        indices = np.asarray(indices, np.int64)
        shards = np.searchsorted(self._ends, indices, side="right") - 1
        offsets = (indices - self._ends[shards]) * self.context
        rows = np.empty((len(indices), self.context + 1), TOKEN)
        for row, shard, offset in zip(rows, shards.tolist(), offsets.tolist()):
            self._read(shard, offset, row)
        vocab = self.dataset.vocab
        if rows.size and rows.max() >= vocab:
            row, place = np.argwhere(rows >= vocab)[0]
            position = int(offsets[row] + place)
            said = f"holds {rows[row, place]} at token {position:,}, beyond vocab={vocab}"
            raise damaged(self._path(shards[row]), said)
        return rows

    def require_batch(self, batch_sequences: int) -> None:
        """BadInput unless the split fills one batch."""
        if self.count >= batch_sequences:
            return
        tokens = self.dataset.totals[self.split].tokens
        raise BadInput(
            f"{self.dataset.path} has {self.count:,} {self.split} windows of context "
            f"{self.context:,} ({tokens:,} tokens), a batch needs {batch_sequences:,} "
            f"({batch_sequences * self.context:,} tokens); lower train.batch_tokens or "
            "model.context, or prepare more text"
        )

    def _read(self, shard: int, offset: int, row: np.ndarray) -> None:
        """Fills a row from a shard's token `offset` on.

        Not mapped memory: where a mapped file was cut short, the process dies without a word.
        """
        left, start = row.data.cast("B"), offset * TOKEN.itemsize
        while left:
            try:
                count = os.preadv(self._descriptor(shard), [left], start)
            except OSError as error:
                raise damaged(self._path(shard), f"cannot be read ({error.strerror})") from None
            if not count:
                check_size(Path(self.dataset.path), self._shards[shard])
                raise damaged(self._path(shard), f"cannot be read beyond byte {start:,}")
            left, start = left[count:], start + count

    def _descriptor(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= _MOST_OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[shard] = os.open(self._path(shard), os.O_RDONLY)
        return self._open[shard]

    def _path(self, shard: int) -> Path:
        return Path(self.dataset.path) / self._shards[shard].file


def _close(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


@dataclass(frozen=True)
class StreamPlan:
    """Which micro-batches one rank consumes."""

    dataset_dir: str
    context: int
    seed: int
    batch_sequences: int
    micro_batch: int
    rank: int
    world: int
    start_step: int
    steps: int
    "Optimizer steps still to serve."

    def __post_init__(self) -> None:
        if self.batch_sequences % (self.world * self.micro_batch):
            raise BadInput(
                f"a batch of {self.batch_sequences} sequences does not divide into micro-batches "
                f"of {self.micro_batch} on {self.world} workers; change cluster.micro_batch, "
                "cluster.workers or train.batch_tokens"
            )

    @property
    def micro_batches_per_step(self) -> int:
        return self.batch_sequences // (self.world * self.micro_batch)

    @property
    def micro_batches(self) -> int:
        return self.steps * self.micro_batches_per_step

    def positions(self, micro_batches: np.ndarray) -> np.ndarray:
        """int64 [n, micro_batch]: global positions of this rank's micro-batches, from 0 on."""
        steps, within = np.divmod(micro_batches, self.micro_batches_per_step)
        first = (
            (self.start_step + steps) * self.batch_sequences
            + self.rank * (self.batch_sequences // self.world)
            + within * self.micro_batch
        )
        return first[:, None] + np.arange(self.micro_batch)


def gather(plan: StreamPlan, micro_batches: np.ndarray) -> np.ndarray:
    """uint16 [n, micro_batch, context + 1]: micro-batches of this rank, counted from 0."""
    windows = train_windows(plan)
    indices = window_index(plan.seed, plan.positions(micro_batches), windows.count)
    rows = windows.gather(indices.ravel())
    return rows.reshape(*indices.shape, plan.context + 1)


def train_windows(plan: StreamPlan) -> Windows:
    """The training windows of the plan's dataset, opened once per process."""
    return _open(plan.dataset_dir, plan.context)


@functools.lru_cache(maxsize=4)
def _open(dataset_dir: str, context: int) -> Windows:
    return Windows(load_dataset_folder(dataset_dir), "train", context)
