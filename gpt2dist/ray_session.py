"""The one start of Ray, as a quiet part of a program that prints its own progress."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2dist.errors import RunFailure

if TYPE_CHECKING:
    from ray.data import DataContext

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # the default finds a dead worker 2 s later
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a deprecation warning
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",  # nobody scrapes them; the rows are ours
    "RAY_ENABLE_AUTO_CONNECT": "0",  # who leaves Ray does not want another
}
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_OWN_CLUSTER_ENVIRONMENT = {
    # One process less to start: a Ray of our own on one machine never announces a preemption.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Nobody else may reach it: whoever does may run programs. On any system, 0 has Ray take
    # 127.0.0.1 for the machine's address; `node_ip_address` it turns into one of the network.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": LOOPBACK,
    "NCCL_SOCKET_IFNAME": LOOPBACK,
}
LEAST_CPUS, CPUS_PER_GPU = 4, 2
"With two in all, the data tasks beside the workers never got one; each rank has its own."


def start_ray(importing: str | None = None) -> bool:
    """Join the cluster that $RAY_ADDRESS names, or start one on this machine; False if it runs.

    A stray cluster on the machine is never joined: only an explicit address counts. Starting one
    mostly waits: meanwhile the module `importing`, which takes seconds, is imported.
    """
    address = os.environ.get("RAY_ADDRESS")
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))  # torch, which knows, takes seconds
    for name, value in (_ENVIRONMENT | ({} if address else _OWN_CLUSTER_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        if ray.is_initialized():
            return False
        where = {"address": address} if address else {
            "address": "local",
            "num_cpus": max(LEAST_CPUS, usable_cores(), CPUS_PER_GPU * gpus),
            "include_dashboard": False,
        }  # fmt: skip
        if importing and not address:
            threading.Thread(target=importlib.import_module, args=(importing,)).start()
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RunFailure(f"cannot reach Ray at {address or 'this machine'}: {error}") from None
    return True


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """The caller's Ray, or one that ends with the block."""
    started = start_ray()
    try:
        yield
    finally:
        if started:
            import ray

            ray.shutdown()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # noqa: TID251


def quiet_context() -> DataContext:
    """A copy of the current settings of Ray Data: no progress bars, no log lines, no timeout."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    # A consumer may be busy for long: a big unit of text, an evaluation between two steps.
    context.execution_no_progress_timeout_s = -1
    return context


class InThread:
    """A `fit` of Ray's in a thread, so that the main thread keeps signals and the screen."""

    def __init__(self, fit: Callable[[], None], name: str) -> None:
        self.error: BaseException | None = None
        self._fit = fit
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """True once it has returned, or raised what `error` holds then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._fit()
        except BaseException as error:
            self.error = error
