"""From one integer cursor, the step, to the windows that each rank trains on.

Step s takes the global positions [s * batch_sequences, (s + 1) * batch_sequences) of the order;
rank r takes the r-th equal slice of them. So what a step trains on never depends on the number
of ranks, and a resumed run needs to know its step and nothing else.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from gpt2dist.data.serve.order import window_index
from gpt2dist.data.serve.windows import Windows
from gpt2dist.data.shards import load_dataset_folder
from gpt2dist.errors import BadInput


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
