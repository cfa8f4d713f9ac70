"""Rank 0's side of a run: rows, dollars and notes, and when to stop."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gpt2dist.disk import AppendedFile
from gpt2dist.errors import RunFailure, StorageRefused
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.machine.hardware import peak_tflops
from gpt2dist.run_files import (
    LEDGER_FILE,
    ROWS_FILE,
    SAMPLES_FILE,
    add_event,
    requested_stop,
    write_outcome,
)
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import Ledger
from gpt2dist.track.rows import RowWriter
from gpt2dist.track.versions import versions
from gpt2dist.train.core.loop import (
    FAILED,
    INTERRUPTED,
    KINDS,
    OUT_OF_BUDGET,
    RUNNING,
    Ending,
    Recorder,
    TrainState,
)
from gpt2dist.train.core.pace import MARGIN
from gpt2dist.train.job import Job
from gpt2dist.train.watch import HeldFolder

AGAIN_SECONDS = 1.0
"Between two tries at what was refused."
MOST_WAITING = 20_000
"Writes that wait in memory at most, some 30 MB: a run that fills it faster waits less long."


class Refusal(NamedTuple):
    since: float
    again_at: float
    why: str


class StoragePatience:
    """What the storage refused: it waits here, in order, and is tried again, for a while."""

    def __init__(
        self,
        minutes: float,
        announce: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._minutes, self._announce, self._clock = minutes, announce, clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._refusals: dict[str, Refusal] = {}

    def keep(self, write: Callable[[], None]) -> bool:
        """Makes a write once those before it are made; each is whole or not at all.

        Returns whether it is made already.
        """
        self._waiting.append(write)
        return self.attempt("rows and notes", self.flush)

    def flush(self) -> None:
        """Makes the writes that wait; raises StorageRefused."""
        while self._waiting:
            self._waiting[0]()
            self._waiting.popleft()

    def attempt(self, what: str, action: Callable[[], object]) -> bool:
        """Whether it is done; what was refused a moment ago is not tried yet."""
        known = self._refusals.get(what)
        if known is not None and self._clock() < known.again_at:
            return False
        try:
            action()
        except StorageRefused as refusal:
            self.learn(what, str(refusal))
            return False
        self.learn(what, None)
        return True

    def learn(self, what: str, refused: str | None) -> None:
        """Whether, and with what words, the storage has just refused something."""
        if refused is None:
            self._refusals.pop(what, None)
            return
        now, is_first = self._clock(), not self._refusals
        since = self._refusals[what].since if what in self._refusals else now
        self._refusals[what] = Refusal(since, now + AGAIN_SECONDS, refused)
        if is_first and self._minutes:
            self._announce(
                f"{refused}; training goes on and tries again for {self._minutes:g} minutes"
            )

    def over(self) -> str | None:
        """Why the run has to end now; None while it may wait."""
        if not self._refusals:
            return None
        longest = min(self._refusals.values())
        if len(self._waiting) > MOST_WAITING:
            return f"{len(self._waiting):,} rows and notes wait to be written: {longest.why}"
        if self._clock() - longest.since < 60 * self._minutes:
            return None
        waited = f"after {self._minutes:g} minutes (checkpoint.storage_patience_minutes): "
        remedy = "; run the same command again once that is mended"
        return (waited if self._minutes else "") + longest.why + remedy


class RunRecorder(Recorder):
    """Writes `metrics.jsonl`, `ledger.json`, `events.jsonl` and samples; the driver follows them.

    `asked` says why the run should stop where the folder cannot: it is on the same machine.
    """

    def __init__(
        self,
        job: Job,
        machines: int,
        resume_step: int | None,
        asked: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._run_dir, self._config, self._asked = Path(job.run_dir), job.config, asked
        attempt, placement = replace(job.attempt, machines=machines), job.placement
        self._ledger = Ledger.open(self._run_dir / LEDGER_FILE, attempt)
        self._rows = RowWriter(self._run_dir / ROWS_FILE, resume_step)
        self._samples = AppendedFile(self._run_dir / SAMPLES_FILE)
        self._folder = HeldFolder(self._run_dir)
        self._patience = StoragePatience(
            job.config.checkpoint.storage_patience_minutes, self._announce
        )
        self._saved_step, self._unsaved_why = resume_step or 0, ""
        self._began_save_at = 0.0
        self._guard = BudgetGuard(job.config.budget, self._ledger)
        self._flops_per_token = flops_per_token(job.config.model)
        # Workers on a GPU let fp32 matmuls run as TF32.
        tf32 = placement.device == "cuda" and placement.precision == "fp32"
        peak = peak_tflops(placement.device_name, "tf32" if tf32 else placement.precision)
        self._peak_flops = peak * 1e12 * placement.workers if peak else None
        self._event(opened=attempt.attempt_id, step=resume_step or 0)

    def stop_reason(self, state: TrainState, next_seconds: float) -> tuple[int, str]:
        return self._stop_reason(state, self._config.train.batch_tokens, next_seconds)

    def _stop_reason(
        self, state: TrainState, next_tokens: int, next_seconds: float
    ) -> tuple[int, str]:
        gone = self._folder.gone()
        if gone:
            return FAILED, gone
        self._beat()
        asked = self._asked() or requested_stop(self._run_dir)
        if asked is not None:
            return INTERRUPTED, asked
        over = self._guard.reason(state.tokens, next_tokens, next_seconds)
        if over:
            return OUT_OF_BUDGET, over
        refused = self._patience.over()
        return (FAILED, refused) if refused else (RUNNING, "")

    def row(self, row: dict[str, Any]) -> None:
        self._beat()
        spent = self._ledger.spent_at(self._ledger.now())
        flops = row["tokens_per_s"] * self._flops_per_token
        full = {
            **row,
            "mfu": flops / self._peak_flops if self._peak_flops else None,
            "gpu_peak_gib": _gpu_peak_gib(),
            "host_gib": _host_gib(),
            "seconds": spent.seconds,
            "usd": None if self._ledger.known_usd is None else spent.usd,
            "time": time.time(),
        }
        self._patience.keep(partial(self._rows.append, full))

    def note(self, text: str) -> None:
        self._event(note=text)

    def sample(self, step: int, text: str) -> None:
        self._patience.keep(partial(self._samples.append, f"--- step {step:,}\n{text}\n\n"))

    def vouch(self, state: TrainState) -> TrainState:
        self._began_save_at = time.monotonic()
        gone = self._folder.gone()
        if gone:
            raise StorageRefused(gone)
        self._patience.flush()
        self._rows.sync()
        self._ledger.heartbeat(force=True)
        installed = {name: version or "not installed" for name, version in versions().items()}
        spent = self._ledger.spent
        return replace(
            state,
            seconds=spent.seconds,
            usd=spent.usd,
            rows=self._rows.count,
            versions=installed,
        )

    def saved(self, state: TrainState, refused: str | None) -> None:
        self._patience.learn("the checkpoint", refused)
        if refused is None:
            self._saved_step = state.step
        else:
            self._unsaved_why = refused

    def unsaved(self, ending: Ending) -> Ending | None:
        kind, reason = ending.kind, ending.reason
        if kind == "finished":
            took = time.monotonic() - self._began_save_at
            time.sleep(AGAIN_SECONDS)
            code, reason = self._stop_reason(ending.state, 0, MARGIN * took + AGAIN_SECONDS)
            if code == RUNNING:
                return None
            kind = KINDS[code]
        why = "" if kind == "failed" else f": {self._unsaved_why}"
        steps = f"steps {self._saved_step + 1:,} to {ending.state.step:,}"
        ended = kind if kind == "interrupted" else "failed"
        return Ending(ended, f"{reason}; {steps} are not saved{why}", ending.state)

    def finish(self, ending: Ending) -> None:
        """Raises StorageRefused with the reason of the end when that cannot be written down."""
        for last in (self._patience.flush, partial(self._ledger.heartbeat, force=True)):
            with suppress(StorageRefused):
                last()
        more = {"exit_code": RunFailure.exit_code} if ending.kind == "failed" else {}
        step, reason = self._saved_step, ending.reason
        try:
            write_outcome(self._run_dir, kind=ending.kind, reason=reason, step=step, **more)
        except StorageRefused as refusal:
            unsaid = f"; {refusal}" if ending.kind in ("finished", "budget") else ""
            raise StorageRefused(reason + unsaid) from None

    def close(self) -> None:
        self._folder.close()

    def _beat(self) -> None:
        """A sign of life in the ledger, and whatever waits."""
        self._patience.attempt("the ledger", self._ledger.heartbeat)
        self._patience.attempt("rows and notes", self._patience.flush)

    def _announce(self, text: str) -> None:
        if self._folder.gone() is None and not self._event(note=text):
            with suppress(OSError):  # this may be a file on the same disk
                print(text, file=sys.stderr)  # the driver reads what cannot be written

    def _event(self, **event: Any) -> bool:
        event["time"] = time.time()
        return self._patience.keep(partial(add_event, self._run_dir, **event))


def _gpu_peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def _host_gib() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * 4096 / 2**30
