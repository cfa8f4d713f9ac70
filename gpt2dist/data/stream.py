"""Training micro-batches from any step on, in this process or gathered ahead by Ray Data."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch

from gpt2dist.data.cursor import StreamPlan, gather, train_windows
from gpt2dist.data.ray_gather import pipeline

__all__ = ["StreamPlan", "memmap_batches", "ray_batches"]


def memmap_batches(plan: StreamPlan) -> Generator[torch.Tensor, None, None]:
    """int64 [micro_batch, context + 1] on the CPU, read in this process; needs no Ray."""
    train_windows(plan).require_batch(plan.batch_sequences)
    for micro_batch in range(plan.micro_batches):
        yield _int64(gather(plan, np.array([micro_batch]))[0])


def ray_batches(plan: StreamPlan) -> Generator[torch.Tensor, None, None]:
    """The same tensors as `memmap_batches`, gathered ahead by a Ray Data pipeline of this rank.

    Call it inside the worker. Closing the generator stops the pipeline.
    """
    train_windows(plan).require_batch(plan.batch_sequences)
    if not plan.steps:
        return
    blocks = iter(pipeline(plan).iter_batches(batch_size=None, batch_format="numpy"))
    try:
        for block in blocks:
            for rows in block["tokens"]:
                yield _int64(rows)
    finally:
        blocks.close()  # type: ignore[attr-defined]


def _int64(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows.astype(np.int64))
