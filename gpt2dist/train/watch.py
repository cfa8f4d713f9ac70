"""Follow a run through its files, as it happens: rows and notes to the screen, rows to MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from gpt2dist.run_files import EVENTS_FILE, ROWS_FILE, Tail
from gpt2dist.track.progress import Progress

Stage = Literal["waiting", "starting", "training"]
"No worker runs; they run; rank 0 has opened the run's records and keeps its budget."


class Watcher:
    """What the driver shows of a run whose rank 0 is another process."""

    def __init__(
        self,
        run_dir: Path,
        attempt_id: str,
        progress: Progress,
        on_first_row: Callable[[], None] | None,
    ) -> None:
        self._events = Tail(run_dir / EVENTS_FILE, from_end=True)
        self._rows = Tail(run_dir / ROWS_FILE)
        self._attempt_id, self._progress = attempt_id, progress
        self._on_first_row = on_first_row
        self.stage: Stage = "waiting"
        self._opened = False
        self._shown_step = 0

    def poll(self) -> None:
        """Show what is new since the last call."""
        for event in self._events.lines():
            if event.get("opened") == self._attempt_id:
                # Rows of rolled-back steps are gone from here on; older ones were shown before.
                self._shown_step = event["step"]
                self._progress.tick(event["step"])
                self._opened, self.stage = True, "training"
            elif event.get("workers") is False:
                self.stage = "waiting"
            elif event.get("workers") and self.stage == "waiting":
                self.stage = "starting"
            elif "note" in event:
                self._progress.note(event["note"])
        if self._opened:
            for row in self._rows.lines():
                if row["step"] > self._shown_step:
                    self._shown_step = row["step"]
                    self._progress.row(row)
                    if self._on_first_row is not None:
                        # Not earlier: what it starts would compete with the workers' start.
                        self._on_first_row()
                        self._on_first_row = None
