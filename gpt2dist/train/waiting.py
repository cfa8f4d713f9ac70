"""What the driver keeps while no worker trains: the budget and the deadline to join."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gpt2dist.errors import TRY_AGAIN
from gpt2dist.run_files import STOP_FILE, write_outcome
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import Ledger
from gpt2dist.train.job import Job
from gpt2dist.train.watch import Stage


class Waiting:
    """The wait for machines with a place for a run's workers, and the machines that were there."""

    def __init__(
        self,
        job: Job,
        ledger: Ledger,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._job, self._ledger, self._note = job, ledger, note
        self._clock, self._unix_time = clock, unix_time
        self._guard = BudgetGuard(job.config.budget, ledger)
        self._seen: dict[str, tuple[str, float]] = {}
        "Host name and Unix time of the last sign of life of a machine, by its address."
        self._gone: set[str] = set()
        self._since: float | None = None
        "When the workers were seen without a place; None: they have one."

    def is_over(self, machines: Mapping[str, str], stage: Stage, placed: bool) -> bool:
        """Whether the run ends here, which its outcome then says; to be asked again and again.

        `machines`: host names of those that Ray has now, by address; `placed`: whether Ray has
        found room for the workers there.
        """
        self._meet(machines)
        if placed:
            self._since = None
        elif self._since is None:
            self._since = self._clock()
        outcome = self._outcome() if stage != "training" else None
        if outcome is not None:
            self._ledger.heartbeat(force=True)
            write_outcome(Path(self._job.run_dir), **outcome)
        return outcome is not None

    def _meet(self, machines: Mapping[str, str]) -> None:
        now = self._unix_time()
        self._seen.update({address: (host, now) for address, host in machines.items()})
        gone = self._seen.keys() - machines.keys()
        for address in sorted(gone - self._gone):
            self._note(f"{self._named(address)}, is gone")
        self._gone = gone

    def _outcome(self) -> dict[str, str | int] | None:
        stop = Path(self._job.run_dir) / STOP_FILE
        if stop.exists():
            return {"kind": "interrupted", "reason": stop.read_text()}
        spent = self._guard.reason(tokens_done=0, next_tokens=0, seconds_reserve=0.0)
        if spent:
            return {"kind": "budget", "reason": spent}
        minutes = self._job.config.cluster.join_minutes
        if self._since is None or self._clock() - self._since <= 60 * minutes:
            return None
        reason = (
            f"no place for {self._job.placement.workers} workers within "
            f"cluster.join_minutes={minutes:g}: {self._why()}"
        )
        return {"kind": "interrupted", "reason": reason, "exit_code": TRY_AGAIN}

    def _why(self) -> str:
        if self._gone:
            return "; ".join(f"{self._named(address)}, is gone" for address in sorted(self._gone))
        return f"other work takes their place on {', '.join(sorted(self._seen))}"

    def _named(self, address: str) -> str:
        host, at = self._seen[address]
        seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        return f"machine {address} ({host}), last seen at {seen}"
