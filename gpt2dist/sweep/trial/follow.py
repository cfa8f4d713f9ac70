"""Start the process of a trial, follow what it writes, end it: Ray Tune's side of a trial."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt2dist.config.load import from_tree
from gpt2dist.disk import locked
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.run_files import DRIVER_LOCK, LEDGER_FILE, OUTPUT_FILE, ROWS_FILE, Tail, read_outcome
from gpt2dist.sweep.trial.process import LEAVE, Order
from gpt2dist.sweep.trial.run_folder import TrialFolder
from gpt2dist.track.ledger import (
    BILLED_VARIABLE,
    Attempt,
    Ledger,
    price_usd_per_hour,
    read_attempts,
)

POLL_SECONDS = 0.1
LAST_PROCESS_SECONDS = 60.0
"How long a process of an earlier start may need to save before the next one begins."
WORKER_VARIABLES = ("RAY_JOB_ID", "RAY_RAYLET_PID", "PYTHONBREAKPOINT", "OMP_NUM_THREADS")
"What Ray sets in the processes of its workers."
NOT_FOR_TRIALS = (*WORKER_VARIABLES, BILLED_VARIABLE)
"Every trial would account for its machine's setup; the sweep's own bill does, once."
REPORTED = ("step", "tokens", "loss", "val_loss", "usd", "seconds")


class TrialProcess:
    """One trial, from its start to the end of its process; a process that dies is replaced."""

    def __init__(self, order: Order, ray_address: str | None) -> None:
        self._order, self._ray_address = order, ray_address
        self._run_dir = Path(order.run_dir)
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._rows = Tail(self._run_dir / ROWS_FILE)
        config = from_tree(order.config_tree, "the sweep")
        self._flops_per_token = flops_per_token(config.model)
        self._last_tokens = config.total_steps * config.train.batch_tokens
        self._reported_step = order.reported_step
        self._waiting: list[dict[str, Any]] = []
        self._config = config
        self._restarts, self._stopping, self._out_of_time = 0, False, False
        self._first_start = time.time()
        self._process = self._begin()

    def next_report(self) -> dict[str, Any]:
        """Waits for the next evaluation; `done` is true in the last report, with how it ended."""
        while True:
            over = self._process.poll() is not None  # before reading, so that no row is missed
            self._read()
            # The last evaluation is reported with the end, when everything is saved.
            if len(self._waiting) > 1 or (not over and self._is_underway()):
                return {**self._waiting.pop(0), "done": False}
            if over:
                self._account_for_start()
            if over and self._was_killed() and self._restarts < self._order.max_restarts:
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
            elif Path(self._order.stop_file).exists():
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
        lock = self._run_dir / DRIVER_LOCK
        with locked(lock, wait_seconds=LAST_PROCESS_SECONDS):
            pass
        self._started_at, self._has_rows = time.time(), False
        with (self._run_dir / OUTPUT_FILE).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "gpt2dist.sweep.trial.process", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._order.cwd,
                env=_environment(self._ray_address),
                start_new_session=True,  # Ctrl-C is for the sweep; it tells its trials
            )
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(asdict(self._order)).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            process.wait()
        return process

    def _read(self) -> None:
        for row in self._rows.lines():
            self._has_rows = self._has_rows or row["time"] >= self._started_at
            if row.get("val_loss") is not None and row["step"] > self._reported_step:
                self._reported_step = row["step"]
                report = {name: row.get(name) for name in REPORTED}
                self._waiting.append({**report, "flops": row["tokens"] * self._flops_per_token})

    def _is_underway(self) -> bool:
        return bool(self._waiting) and self._waiting[0]["tokens"] < self._last_tokens

    def _start_is_too_long(self) -> bool:
        seconds = self._order.seconds
        if seconds is None or self._has_rows or read_outcome(self._run_dir) is not None:
            return False
        return time.time() - self._first_start > seconds

    def _account_for_start(self) -> None:
        """A process that ended before it could open its account was paid for all the same."""
        path, config = self._run_dir / LEDGER_FILE, self._config
        attempts = read_attempts(path) if path.exists() else []
        if attempts and attempts[-1].last_seen_at >= self._started_at:
            return
        price = price_usd_per_hour(config.cluster, os.environ)
        attempt = Attempt.starting(f"start-{self._started_at:.3f}", self._started_at, price)
        Ledger.open(path, attempt)

    def _was_killed(self) -> bool:
        return self._process.returncode < 0 and not self._stopping and not self._out_of_time

    def _ending(self) -> tuple[str, str]:
        """State and reason, from what the run itself wrote down."""
        code = self._process.returncode
        if self._out_of_time:
            return "budget", "the sweep's budget ended before the start did"
        summary = TrialFolder(self._run_dir).summary() or {}
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


def _environment(ray_address: str | None) -> dict[str, str]:
    """Of the trial's process, which is a driver of its own and none of Ray's workers."""
    found = {key: value for key, value in os.environ.items() if key not in NOT_FOR_TRIALS}
    if ray_address is not None:
        found["RAY_ADDRESS"] = ray_address
    return found


def _last_line(path: Path, code: int) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].removeprefix("gpt2dist: ") if lines else "it printed nothing"
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{last} ({how}; {path})"
