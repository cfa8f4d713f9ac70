"""On the rented machine: end a run that does nothing more, for it is paid by the hour.

    python -m gpt2dist.launch.machine.stall PID SECONDS

Looks for new rows below `runs` and new shards below `data`, in the folder that it is started in.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from gpt2dist.run_files import ROWS_FILE

TIMES = 10
"How much longer than the longest wait between two rows a run may take for the next one."
LOOK_SECONDS = 15.0

Mark = tuple[int, int]
"Of files: how many bytes they have, and the newest change."


class Patience:
    """How long the next sign of work may take, by what the ones before took."""

    def __init__(self, least_seconds: float, now: float, rows: Mark, shards: Mark) -> None:
        self._least_seconds, self._since = least_seconds, now
        self._rows, self._shards = rows, shards
        self._has_row = False
        self.longest_seconds = 0.0
        "Between two rows: steps, and the evaluations and saves among them."

    @property
    def seconds(self) -> float:
        """Enough for what comes seldom too: setup, compilation, a first evaluation or save."""
        return max(self._least_seconds, TIMES * self.longest_seconds)

    def is_over(self, now: float, rows: Mark, shards: Mark) -> bool:
        """Whether nothing has come for too long; `now` counts seconds and never jumps."""
        if rows != self._rows:
            if self._has_row:  # the first one took a setup and a compilation
                self.longest_seconds = max(self.longest_seconds, now - self._since)
            self._has_row = True
        if (rows, shards) != (self._rows, self._shards):
            self._rows, self._shards, self._since = rows, shards, now
        return now - self._since > self.seconds


def mark(folder: Path, pattern: str) -> Mark:
    """Of all files in a folder whose names match."""
    size = newest = 0
    for path in folder.rglob(pattern):
        try:
            status = path.stat()
        except OSError:  # gone meanwhile
            continue
        size, newest = size + status.st_size, max(newest, status.st_mtime_ns)
    return size, newest


def main(words: list[str]) -> int:
    """Send SIGTERM to a process when the work beside it has stopped; 0 when that was done."""
    pid, least_seconds = int(words[0]), float(words[1])

    def seen() -> tuple[float, Mark, Mark]:
        return time.monotonic(), mark(Path("runs"), ROWS_FILE), mark(Path("data"), "*")

    patience = Patience(least_seconds, *seen())
    while not patience.is_over(*seen()):
        time.sleep(min(LOOK_SECONDS, least_seconds / 4))
    print(
        f"rented: no row and no shard for {patience.seconds:.0f} s ({TIMES} x the longest wait "
        f"between two rows, {patience.longest_seconds:.0f} s, or STALL_S={least_seconds:g}): the "
        "run has stalled and is ended; its last checkpoint stays",
        file=sys.stderr,
    )
    os.kill(pid, signal.SIGTERM)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
