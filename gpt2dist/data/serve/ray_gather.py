"""The Ray Data pipelines that gather one rank's micro-batches ahead of training.

They are built inside each training worker. Splitting one pipeline between the workers would deal
out whole blocks, so that what a step trains on would depend on their number.

Each pipeline gathers one segment of the stream and ends; the next begins when its predecessor's
consumption does. A single pipeline over the whole stream would have to wait for its consumer, and
one that waits polls without pause (Ray 2.60): that took 0.6 of a core of the training process.

This module does not import torch: the gathering processes start faster without.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from gpt2dist.data.prepare.files import ranges
from gpt2dist.data.serve.windows import StreamPlan, gather
from gpt2dist.errors import BadInput
from gpt2dist.ray_session import quiet_context

if TYPE_CHECKING:
    import ray.data

_BLOCK_BYTES = 4 << 20
"Some ms of gathering, many micro-batches."
_BLOCKS_PER_SEGMENT = 8
"A worker holds at most two segments, 64 MiB, in Ray's object store."


def gathered(plan: StreamPlan) -> Generator[np.ndarray, None, None]:
    """uint16 [micro_batch, context + 1], in order; closing the iterator ends its pipelines."""
    per_segment = _per_block(plan) * _BLOCKS_PER_SEGMENT
    begun: deque[Future[_Segment]] = deque()
    with ThreadPoolExecutor(1, "gather-ahead") as background:
        try:
            for first, stop in ranges(plan.micro_batches, per_segment):
                begun.append(background.submit(_Segment, plan, first, stop))
                if len(begun) == 2:
                    yield from begun[0].result().rows()
                    begun.popleft()
            for last in begun:
                yield from last.result().rows()
        finally:
            for future in begun:
                if future.exception() is None:
                    future.result().close()


class _Segment:
    """Micro-batches [first, stop) of the plan, gathered from the moment it is made."""

    def __init__(self, plan: StreamPlan, first: int, stop: int) -> None:
        pipeline = _pipeline(plan, first, stop)
        self._blocks = iter(pipeline.iter_batches(batch_size=None, batch_format="numpy"))
        # The first request starts the pipeline, which then runs to its end by itself.
        self._head = next(self._blocks)

    def rows(self) -> Generator[np.ndarray, None, None]:
        for block in itertools.chain([self._head], self._blocks):
            if "bad_input" in block:
                raise BadInput(str(block["bad_input"][0]))
            yield from block["tokens"]

    def close(self) -> None:
        self._blocks.close()  # type: ignore[attr-defined]


def _pipeline(plan: StreamPlan, first: int, stop: int) -> ray.data.Dataset:
    """A dataset whose rows, in the column `tokens`, are micro-batches [first, stop)."""
    import ray.data

    context = quiet_context()
    context.target_max_block_size = _per_block(plan) * _micro_batch_bytes(plan)
    context.execution_options.preserve_order = True
    # Neither step may claim a core: a machine whose cores are all promised to the training
    # workers would never grant it. `ray.data.range` would, in its read tasks; items do not.
    with ray.data.DataContext.current(context):
        return ray.data.from_items([{"first": first, "stop": stop}]).map_batches(
            functools.partial(_gather_segment, plan), batch_size=None, num_cpus=0
        )


def _gather_segment(
    plan: StreamPlan, segment: dict[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    start = int(segment["first"][0])
    for first, stop in ranges(int(segment["stop"][0]) - start, _per_block(plan)):
        try:
            tokens = gather(plan, np.arange(start + first, start + stop))
        except BadInput as error:  # as a value, because Ray wraps what a task raises
            yield {"bad_input": np.array([str(error)])}
            return
        yield {"tokens": tokens}


def _per_block(plan: StreamPlan) -> int:
    return max(1, _BLOCK_BYTES // _micro_batch_bytes(plan))


def _micro_batch_bytes(plan: StreamPlan) -> int:
    return plan.micro_batch * (plan.context + 1) * 2
