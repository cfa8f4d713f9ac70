"""The process of one trial: the ordinary training run, which never outlives whoever started it.

`python -m gpt2dist.sweep.trial.process` reads its order as JSON from standard input.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

from gpt2dist.errors import BadInput, RunFailure

_PR_SET_PDEATHSIG = 1
"linux/prctl.h"


LEAVE = signal.SIGUSR1
"Asks a trial's process to save and leave."


@dataclass(frozen=True)
class Order:
    """What a trial's process is to do; plain data, so that it travels."""

    number: int
    run: str
    "Name of the run, below the config's runs folder."
    run_dir: str
    "Absolute."
    config_tree: dict[str, Any]
    in_process: bool
    "Train in the process itself; else under Ray Train."
    slot: int
    cpus: int
    cwd: str
    stop_file: str
    "Every trial of the sweep saves and leaves once this file is there."
    max_restarts: int
    seconds: float | None
    "What the sweep's budget allows from the start of the process on; None: no limit."
    reported_step: int
    "Evaluations up to here were reported before the sweep was resumed."


def main() -> int:
    """Train as ordered; returns the exit code of `gpt2dist train`."""
    started_at = time.time()
    order = Order(**json.loads(sys.stdin.readline()))
    parent = int(sys.argv[1])
    _end_with_parent()
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
    if order.in_process:
        _take_cores(order)
    from gpt2dist.config.load import from_tree
    from gpt2dist.train.driver import Launch, train

    config = from_tree(order.config_tree, "the sweep")
    launch = Launch(name=order.run, local=order.in_process, started_at=started_at)
    try:
        return train(config, launch).exit_code
    except (BadInput, RunFailure) as error:
        print(f"gpt2dist: {error}", file=sys.stderr)
        return error.exit_code


def _end_with_parent() -> None:
    """Save and leave at LEAVE, which also comes when the watching process dies, however it dies.

    It comes once for every thread of a dying parent, and a second SIGTERM would end the run
    without a save: so however often it comes, it becomes one SIGTERM.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    came = itertools.count()

    def leave(number: int, _: FrameType | None) -> None:
        if next(came) == 0:  # the handler itself may be interrupted by the next one
            signal.raise_signal(signal.SIGTERM)

    signal.signal(LEAVE, leave)
    prctl(_PR_SET_PDEATHSIG, LEAVE)


def _take_cores(order: Order) -> None:
    """The cores of the trial's slot, so that neighbours do not wait for each other."""
    cores = sorted(os.sched_getaffinity(0))
    own = {cores[(order.slot * order.cpus + i) % len(cores)] for i in range(order.cpus)}
    os.sched_setaffinity(0, own)


if __name__ == "__main__":
    sys.exit(main())
