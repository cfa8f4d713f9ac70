"""Follow a run through its files, as it happens: rows and notes to the screen, rows to MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from gpt2dist.disk import writing
from gpt2dist.errors import StorageRefused
from gpt2dist.run_files import EVENTS_FILE, ROWS_FILE, Tail, request_stop, requested_stop
from gpt2dist.track.progress import Progress

Stage = Literal["waiting", "starting", "training"]
"No worker runs; they run; rank 0 has opened the run's records and keeps its budget."


UNHEARD_SECONDS = 5.0
"How long a request to stop is tried again where it cannot be written: who signals soon kills."


class HeldFolder:
    """The folder of a run while it is trained, whatever its name comes to be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unheard_since: float | None = None
        with writing(path):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def gone(self) -> str | None:
        """What became of it and what to do; None while it is there, or nobody can say."""
        with suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self._descriptor)):
                return None
        with suppress(OSError):
            held = os.fstat(self._descriptor)
            name = os.readlink(f"/proc/self/fd/{self._descriptor}")
            if not held.st_nlink or name.endswith(" (deleted)"):
                return (
                    f"the run folder {self.path} was deleted in mid-run, so the run ended; "
                    "restore it, or run the same command again to begin anew"
                )
            if os.path.samestat(os.stat(name), held):
                return (
                    f"the run folder {self.path} was renamed to {name} in mid-run, so the run "
                    "ended; rename it back and run the same command again: it goes on from the "
                    "last checkpoint"
                )
        return None

    def unheard(self, signal_name: str | None) -> str | None:
        """Asks the workers again to stop for a signal; why to leave them when that cannot be."""
        heard = requested_stop(self.path) is not None
        if signal_name is None or heard or pass_on(self.path, signal_name):
            self._unheard_since = None
            return None
        self._unheard_since = self._unheard_since or time.monotonic()
        if time.monotonic() - self._unheard_since < UNHEARD_SECONDS:
            return None
        said = f"{signal_name}; nothing is saved since the last checkpoint"
        return f"{said}: {self.path} takes no files"

    def close(self) -> None:
        os.close(self._descriptor)


def pass_on(run_dir: Path, signal_name: str) -> bool:
    """Asks the workers to save and leave; False while the folder takes no file."""
    try:
        request_stop(run_dir, signal_name)
    except StorageRefused:
        return False
    return True


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
