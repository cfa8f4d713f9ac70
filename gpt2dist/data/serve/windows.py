"""Training windows, and from one integer cursor, the step, to those that each rank trains on.

A window is `context + 1` consecutive tokens of one shard, read from mapped memory. Step s takes
the global positions [s * batch_sequences, (s + 1) * batch_sequences) of the order; rank r takes
the r-th equal slice of them. So what a step trains on never depends on the number of ranks, and a
resumed run needs to know its step and nothing else.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt2dist.data.serve.order import window_index
from gpt2dist.data.shards import TOKEN, Dataset, Split, load_dataset_folder
from gpt2dist.errors import BadInput


class Windows:
    """The windows of one split, in shard order.

    A window's first `context` tokens are inputs, its last `context` are targets. Windows follow
    each other at a stride of `context` and never cross from one shard into the next.
    """

    def __init__(self, dataset: Dataset, split: Split, context: int) -> None:
        self.dataset = dataset
        self.split = split
        self.context = context
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
        offsets = (indices - self._ends[shards]) * self.context
        rows = np.empty((len(indices), self.context + 1), np.uint16)
        for row, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist())):
            rows[row] = self._tokens(shard)[offset : offset + self.context + 1]
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

    def _tokens(self, shard: int) -> np.ndarray:
        if shard not in self._mapped:
            self._mapped[shard] = np.memmap(self._files[shard], TOKEN, mode="r")
        return self._mapped[shard]


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
