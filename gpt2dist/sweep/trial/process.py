"""The process of one trial: the ordinary training run, which never outlives whoever started it.

`TrialProcess` starts it and follows what it writes; `python -m gpt2dist.sweep.trial.process` is the
process itself, which reads what it is to do as JSON from standard input.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from gpt2dist.config.load import from_tree, to_tree
from gpt2dist.config.schema import Config
from gpt2dist.disk import locked
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.run_files import (
    DRIVER_LOCK,
    LEDGER_FILE,
    OUTPUT_FILE,
    ROWS_FILE,
    STOP_FILE,
    Tail,
    read_outcome,
)
from gpt2dist.track.attempts import Attempt, read_attempts
from gpt2dist.track.ledger import BILLED_VARIABLE, Ledger, price_usd_per_hour
from gpt2dist.track.summary import read_summary

LEAVE = signal.SIGUSR1
"Asks a trial's process to save and leave."
POLL_SECONDS = 0.1
LAST_PROCESS_SECONDS = 60.0
"How long a process of an earlier start may need to save before the next one begins."
OF_WORKERS = {"RAY_JOB_ID", "RAY_RAYLET_PID", "PYTHONBREAKPOINT", "OMP_NUM_THREADS"}
"What Ray sets in the processes of its workers."
REPORTED = ("step", "tokens", "loss", "val_loss", "usd", "seconds")
_PR_SET_PDEATHSIG = 1
"linux/prctl.h"


@dataclass
class TrialProcess:
    """A trial that goes on, to its end; a process that dies is replaced.

    Plain data until it is started, so that it travels to the machine that runs it.
    """

    number: int
    run: str
    "Name of the run, below the config's runs folder."
    config: Config
    "With the trial's share of the machine's price and of the budget."
    in_process: bool
    "Train in the process itself; else under Ray Train."
    cores: Sequence[int]
    "Its part of the machine's cores; counted on from the first after the last."
    cwd: str
    seconds: float | None
    "What the sweep's budget allows from the first start on; None: no limit."
    reported_step: int
    "Evaluations up to here were reported before the sweep was resumed."

    def start(self, ray_address: str | None) -> None:
        """Begin; trials under Ray Train join the cluster of that address."""
        self._run_dir = Path(self.cwd, self.config.paths.runs, self.run)
        self._run_dir.mkdir(parents=True, exist_ok=True)
        # Every trial would account for its machine's setup; the sweep's own ledger does, once.
        unwanted = {*OF_WORKERS, BILLED_VARIABLE}
        self._environ = {k: v for k, v in os.environ.items() if k not in unwanted}
        if ray_address is not None and not self.in_process:
            self._environ["RAY_ADDRESS"] = ray_address
        self._rows, self._waiting = Tail(self._run_dir / ROWS_FILE), list[dict[str, Any]]()
        self._restarts, self._stopping, self._out_of_time = 0, False, False
        self._first_start = time.time()
        self._process = self._begin()

    def next_report(self) -> dict[str, Any]:
        """Waits for the next evaluation; `done` is true in the last report, with how it ended."""
        while True:
            over = self._process.poll() is not None  # before reading, so that no row is missed
            self._read()
            # The last evaluation is reported with the end, when everything is saved.
            is_last = self._waiting and self._waiting[0]["tokens"] >= self.config.total_tokens
            if len(self._waiting) > 1 or (self._waiting and not over and not is_last):
                return {**self._waiting.pop(0), "done": False}
            if over:
                self._account_for_start()
            was_ended = self._stopping or self._out_of_time
            may_restart = not was_ended and self._restarts < self.config.cluster.max_restarts
            if over and self._process.returncode < 0 and may_restart:
                self._restarts += 1
                self._process = self._begin()
            elif over:
                last = self._waiting.pop(0) if self._waiting else {}
                state, reason = self._ending()
                return {**last, "state": state, "reason": reason, "done": True}
            elif self._start_is_too_long():
                # There is nothing to save yet, and the run itself looks at its budget only later.
                self._out_of_time = True
                self._process.kill()
            elif (self._run_dir.parent / STOP_FILE).exists():  # the whole sweep stops
                self.stop(wait=False)
            time.sleep(POLL_SECONDS)

    def stop(self, wait: bool = True) -> None:
        """Let the process save and leave."""
        if not self._stopping:
            self._stopping = True
            self._process.send_signal(LEAVE)
        if wait:
            self._process.wait()
            self._account_for_start()

    def _begin(self) -> subprocess.Popen[bytes]:
        with locked(self._run_dir / DRIVER_LOCK, wait_seconds=LAST_PROCESS_SECONDS):
            pass
        self._started_at, self._has_rows = time.time(), False
        with (self._run_dir / OUTPUT_FILE).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "gpt2dist.sweep.trial.process", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.cwd,
                env=self._environ,
                start_new_session=True,  # Ctrl-C is for the sweep; it tells its trials
            )
        order = {
            "config": to_tree(self.config),
            "run": self.run,
            "in_process": self.in_process,
            "cores": list(self.cores),
        }
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            process.wait()
        return process

    def _read(self) -> None:
        for row in self._rows.lines():
            self._has_rows = self._has_rows or row["time"] >= self._started_at
            if row.get("val_loss") is not None and row["step"] > self.reported_step:
                self.reported_step = row["step"]
                self._waiting.append({name: row.get(name) for name in REPORTED})

    def _start_is_too_long(self) -> bool:
        if self.seconds is None or self._has_rows or read_outcome(self._run_dir) is not None:
            return False
        return time.time() - self._first_start > self.seconds

    def _account_for_start(self) -> None:
        """A process that ended before it could open its ledger was paid for all the same."""
        path = self._run_dir / LEDGER_FILE
        attempts = read_attempts(path) if path.exists() else []
        if attempts and attempts[-1].last_seen_at >= self._started_at:
            return
        price = price_usd_per_hour(self.config.cluster, os.environ)
        attempt = Attempt.starting(f"start-{self._started_at:.3f}", self._started_at, price)
        Ledger.open(path, attempt)

    def _ending(self) -> tuple[str, str]:
        """State and reason, from what the run itself wrote down."""
        code = self._process.returncode
        if self._out_of_time:
            return "budget", "the sweep's budget ended before the start did"
        try:
            summary = read_summary(self._run_dir)
        except BadInput:
            summary = {}
        outcome = read_outcome(self._run_dir) or {}
        if outcome and outcome["kind"] == summary.get("ended"):
            return outcome["kind"], outcome["reason"]
        if code == 0 and summary.get("ended") == "finished":
            return "finished", summary["reason"]  # it had finished before it was started again
        if self._stopping or code in (130, 143):
            return "interrupted", "stopped before it could begin"
        if outcome:
            return outcome["kind"], outcome["reason"]
        return "failed", _last_line(self._run_dir / OUTPUT_FILE, code)


def _last_line(path: Path, code: int) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].removeprefix("gpt2dist: ") if lines else "it printed nothing"
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{last} ({how}; {path})"


def main() -> int:
    """Train as ordered; returns the exit code of `gpt2dist train`."""
    started_at = time.time()
    order = json.loads(sys.stdin.readline())
    parent = int(sys.argv[1])
    _end_with_parent()
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
    if order["in_process"]:  # so that neighbours do not wait for each other
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)] for core in order["cores"]})
    from gpt2dist.train.driver import Launch, train

    config = from_tree(order["config"], "the sweep")
    launch = Launch(name=order["run"], local=order["in_process"], started_at=started_at)
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


if __name__ == "__main__":
    sys.exit(main())
