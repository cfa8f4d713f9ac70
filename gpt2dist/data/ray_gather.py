"""The Ray Data pipeline that gathers one rank's micro-batches ahead of training.

It is built inside each training worker. Splitting one pipeline between the workers would deal
out whole blocks, so that what a step trains on would depend on their number. This module does
not import torch: the gathering processes start faster without.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gpt2dist.data.cursor import StreamPlan, gather

if TYPE_CHECKING:
    import ray.data

_BLOCK_BYTES = 4 << 20
"Tokens that one block of the Ray pipeline holds: some ms of gathering, many micro-batches."
_BLOCKS_PER_TASK = 16
_BLOCKS_AHEAD = 2


def pipeline(plan: StreamPlan) -> ray.data.Dataset:
    """The dataset whose rows, in order, are this rank's micro-batches in the column `tokens`."""
    import ray.data

    from gpt2dist.data.ray_session import quiet_context

    per_block, block_bytes = _block_size(plan)
    per_task = per_block * _BLOCKS_PER_TASK
    tasks = [
        {"first": first, "stop": min(first + per_task, plan.micro_batches)}
        for first in range(0, plan.micro_batches, per_task)
    ]
    context = quiet_context()
    context.target_max_block_size = block_bytes
    options = context.execution_options
    options.preserve_order = True
    options.resource_limits = options.resource_limits.copy(
        object_store_memory=(_BLOCKS_AHEAD + 1) * block_bytes
    )
    # Neither step may claim a core: a machine whose cores are all promised to the training
    # workers would never grant it. `ray.data.range` would, in its read tasks; items do not.
    with ray.data.DataContext.current(context):
        return ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            functools.partial(_gather_task, plan),
            batch_size=None,
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=1),
        )


def _gather_task(plan: StreamPlan, task: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    per_block, _ = _block_size(plan)
    stop = int(task["stop"][0])
    for first in range(int(task["first"][0]), stop, per_block):
        yield {"tokens": gather(plan, np.arange(first, min(first + per_block, stop)))}


def _block_size(plan: StreamPlan) -> tuple[int, int]:
    """Micro-batches per block, and their bytes."""
    micro_batch_bytes = plan.micro_batch * (plan.context + 1) * 2
    per_block = max(1, _BLOCK_BYTES // micro_batch_bytes)
    return per_block, per_block * micro_batch_bytes
