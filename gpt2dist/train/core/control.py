"""What ranks tell each other beside gradients: counts, stop requests, objects and failures.

Runs over gloo on the CPU even when gradients go over NCCL, so that agreeing on a number never
waits for the GPU's queue.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from gpt2dist.errors import BadInput, RunFailure

T = TypeVar("T")


@contextmanager
def single_process_group(device: str) -> Iterator[None]:
    """A process group of one, without ports or environment."""
    os.environ.setdefault("LOCAL_RANK", "0")
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Control:
    """Collectives over all ranks of the default process group; every rank must call each."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        backend = dist.get_backend()
        self._group = None if backend == "gloo" else dist.new_group(backend="gloo")

    def total(self, *numbers: float) -> list[float]:
        """Each number summed over the ranks, in fp64."""
        vector = torch.tensor(numbers, dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(vector, group=self._group)
        return vector.tolist()

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, by rank, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._group)
        return values

    def from_root(self, compute: Callable[[], T]) -> T:
        """What `compute` returns on rank 0, on every rank; its failure is everyone's failure."""
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = compute()
            except (BadInput, RunFailure) as error:
                outcome[1] = error
        if self.world > 1:
            dist.broadcast_object_list(outcome, src=0, group=self._group)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]
