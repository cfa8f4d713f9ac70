"""Ray as a quiet part of a program that prints its own progress."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.data import DataContext


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """Uses the caller's Ray, or the cluster that $RAY_ADDRESS names, or one of its own.

    A stray cluster on the machine is never joined: only an explicit address counts.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, **quiet)
    else:
        cpus = max(4, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def quiet_context() -> DataContext:
    """A copy of the current settings of Ray Data: no progress bars, no log lines, no timeout."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    # A consumer may be busy for long: a big unit of text, an evaluation between two steps.
    context.execution_no_progress_timeout_s = -1
    return context
