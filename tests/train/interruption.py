"""End a start of a run by some means at some moment."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.train.command import TOTAL_STEPS, Command, Program, last_step, rows_of

How = Literal["forked", "cold", "one", "two"]
"`--local`, by a Python that has imported torch or by a new one; Ray with one worker or two."
CODES = {
    "nothing": {0},
    "SIGKILL": {137},
    "SIGTERM": {143},
    "SIGINT": {130},
    "two signals": {130, 143},
    "a worker": {0},
    "rank 0": {0},
}
"What ends a start, and its exit code as a shell knows it; a run that has finished may say 0."
STARTUP_SECONDS = {"forked": 0.6, "cold": 5.0, "one": 12.0, "two": 12.0}
CLOSING_SECONDS = 0.5
"As on two idle cores: where a moment is looked for, not what is expected."


@dataclass(frozen=True)
class Round:
    how: How
    end: str
    "A key of CODES. SIGINT reaches whatever a Ctrl-C would."
    phase: Literal["start-up", "training", "validation", "saving", "closing"]
    steps: int = 10
    "Trained at least by this start before the phase is waited for."
    share: float = 0.5
    "How far into the phase."
    flip: float | None = None
    "Which bit of the newest checkpoint is flipped before the start, 0 to 1."


class Moment:
    """Waits for the moment of a round and ends the start there."""

    def __init__(self, run_dir: Path, start: Command | Program, opened: int) -> None:
        self._run_dir, self._start, self._opened = run_dir, start, opened
        self.lived_seconds = 0.0
        "From the first word of the command line to its end by the round."

    def hit(self, round_: Round) -> bool:
        """False when the start had ended before."""
        if not self._until(lambda: self._start.has_begun):
            return False
        began = time.monotonic()
        if not self._wait(round_):
            return False
        self.lived_seconds = time.monotonic() - began
        try:
            return self._end(round_)
        except ProcessLookupError:
            return False

    def _wait(self, round_: Round) -> bool:
        if round_.phase == "start-up":
            return self._sleep(round_.share * STARTUP_SECONDS[round_.how])
        opened = self._until(lambda: openings(self._run_dir)[self._opened :])
        if not opened:
            return False
        if round_.phase == "closing":
            finished = self._until(lambda: last_step(self._run_dir) == TOTAL_STEPS)
            return bool(finished) and self._sleep(round_.share * CLOSING_SECONDS)
        steps, validating = opened[0] + round_.steps, round_.phase == "validation"
        last_rows = range(15, TOTAL_STEPS, 20) if validating else range(TOTAL_STEPS)
        rows = [row for row in last_rows if row >= steps] or [last_rows[-1]]
        row = self._until(lambda: self._row(rows))
        if row is None:
            return False
        if round_.phase == "saving":
            saves = self._run_dir / "checkpoints"
            return bool(self._until(lambda: list(saves.glob(".step-*partial"))))
        step_seconds = row["step_s"]
        # Five steps after the row before it a validation begins, as long as some ten of them.
        return self._sleep(
            step_seconds * (5 + 10 * round_.share if validating else 5 * round_.share)
        )

    def _row(self, steps: Sequence[int]) -> dict[str, Any] | None:
        rows = rows_of(self._run_dir)
        return rows[-1] if rows and rows[-1]["step"] in steps else None

    def _end(self, round_: Round) -> bool:
        start, pid = self._start, self._start.pid
        if round_.end in ("a worker", "rank 0"):
            assert isinstance(start, Program)
            worker = start.worker(self._run_dir, rank_0=round_.end == "rank 0")
            if worker is not None:
                worker.kill()
            return worker is not None
        first = signal.SIGTERM if round_.share < 0.5 else signal.SIGINT
        number = first if round_.end == "two signals" else signal.Signals[round_.end]
        send = start.interrupt if number == signal.SIGINT else lambda: os.kill(pid, number)
        send()
        if round_.end == "two signals" and self._sleep(0.2 * round_.share):
            send()
        return True

    def _until(self, truth: Callable[[], Any]) -> Any:
        """What `truth` returns once it is true; None when the start ended before."""
        while self._start.is_alive():
            if found := truth():
                return found
            time.sleep(0.002)
        return None

    def _sleep(self, seconds: float) -> bool:
        """Whether the start still lives afterwards."""
        over = time.monotonic() + seconds
        self._until(lambda: time.monotonic() >= over)
        return self._start.is_alive()


def openings(run_dir: Path) -> list[int]:
    """The step at which rank 0 went on, each time it opened the run's records."""
    events = map(json.loads, events_of(run_dir).splitlines())
    return [event["step"] for event in events if "opened" in event]


def events_of(run_dir: Path) -> str:
    """The whole lines of a run that may be writing."""
    try:
        text = (run_dir / "events.jsonl").read_text()
    except FileNotFoundError:
        return ""
    return text[: text.rfind("\n") + 1]
