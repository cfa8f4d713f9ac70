"""What the driver keeps while no worker trains: the account, the budget, the deadline to join."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from gpt2dist.errors import TRY_AGAIN
from gpt2dist.run_files import LEDGER_FILE, STOP_FILE, write_outcome
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import HEARTBEAT_SECONDS, Ledger, read_attempts
from gpt2dist.train.job import Job


class Waiting:
    """The wait for machines that place a run's workers, and the machines that were there."""

    def __init__(
        self,
        job: Job,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._job, self._run_dir, self._note = job, Path(job.run_dir), note
        self._clock, self._unix_time = clock, unix_time
        self._seen: dict[str, tuple[str, float]] = {}
        "Host name and Unix time of the last sign of life of a machine, by its address."
        self._gone: set[str] = set()
        self._since: float | None = clock()
        "None: the workers have a place."
        self._ledger: Ledger | None = None
        "None: rank 0 keeps it."

    def look(self, machines: Mapping[str, str], stage: str) -> str | None:
        """What ends the run now, as its outcome has it; else counts what the wait costs.

        `machines`: host names of those that are there, by address; `stage`: as the watcher has it.
        """
        self._meet(machines)
        if stage != "waiting":
            self._since = None
        elif self._since is None:
            self._since = self._clock()
        if stage == "training":
            self._ledger = None
            return None
        ledger = self._ledger = self._ledger or self._open_ledger()
        outcome = self._outcome(ledger)
        ledger.heartbeat(force=outcome is not None)
        if outcome is None:
            return None
        write_outcome(self._run_dir, **outcome)
        return str(outcome["reason"])

    def _meet(self, machines: Mapping[str, str]) -> None:
        now = self._unix_time()
        self._seen.update({address: (host, now) for address, host in machines.items()})
        gone = self._seen.keys() - machines.keys()
        for address in sorted(gone - self._gone):
            self._note(f"{self._named(address)}, is gone")
        self._gone = gone

    def _outcome(self, ledger: Ledger) -> dict[str, str | int] | None:
        stop = self._run_dir / STOP_FILE
        if stop.exists():
            return {"kind": "interrupted", "reason": stop.read_text()}
        guard = BudgetGuard(self._job.config.budget, ledger)
        spent = guard.reason(tokens_done=0, next_tokens=0, seconds_reserve=HEARTBEAT_SECONDS)
        if spent:
            return {"kind": "budget", "reason": spent}
        minutes = self._job.config.cluster.join_minutes
        if self._since is not None and self._clock() - self._since > 60 * minutes:
            reason = (
                f"no place for {self._job.placement.workers} workers within "
                f"cluster.join_minutes={minutes:g}: {self._why()}"
            )
            return {"kind": "interrupted", "reason": reason, "exit_code": TRY_AGAIN}
        return None

    def _open_ledger(self) -> Ledger:
        path, attempt = self._run_dir / LEDGER_FILE, self._job.attempt
        last = read_attempts(path)[-1] if path.exists() else None
        if last is not None and last.attempt_id == attempt.attempt_id:
            attempt = last  # with the machines that the workers had
        else:
            machines = min(len(self._seen), self._job.placement.workers)
            attempt = replace(attempt, machines=machines)
        return Ledger.open(path, attempt)

    def _why(self) -> str:
        if not self._gone:
            return f"other work holds what Ray has on {len(self._seen)} machines"
        return "; ".join(f"{self._named(address)}, is gone" for address in sorted(self._gone))

    def _named(self, address: str) -> str:
        host, at = self._seen[address]
        seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        return f"machine {address} ({host}), last seen at {seen}"
