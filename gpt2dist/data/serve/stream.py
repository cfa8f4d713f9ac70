"""Training micro-batches from any step on, in this process or gathered ahead by Ray Data."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import numpy as np
import torch

from gpt2dist.data.serve.ray_gather import gathered
from gpt2dist.data.serve.windows import StreamPlan, gather, train_windows


def local_batches(plan: StreamPlan) -> Generator[torch.Tensor, None, None]:
    """int64 [micro_batch, context + 1] on the CPU, read in this process; needs no Ray."""
    train_windows(plan).require_batch(plan.batch_sequences)
    per_step = plan.micro_batches_per_step
    for step in range(plan.steps):
        for rows in gather(plan, np.arange(step * per_step, (step + 1) * per_step)):
            yield _int64(rows)


def ray_batches(plan: StreamPlan) -> Generator[torch.Tensor, None, None]:
    """The same tensors as `local_batches`, gathered ahead by Ray Data pipelines of this rank.

    Call it inside the worker. Closing the generator stops them.
    """
    train_windows(plan).require_batch(plan.batch_sequences)
    with contextlib.closing(gathered(plan)) as micro_batches:
        for rows in micro_batches:
            yield _int64(rows)


def _int64(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows.astype(np.int64))
