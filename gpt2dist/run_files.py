"""The names of the files through which runs, sweeps and datasets are known, and what they say.

runs/RUN/config.yaml       what is trained; makes the folder a run's
runs/RUN/metrics.jsonl     one row per logged step
runs/RUN/checkpoints/step-00000250/state.json
runs/sweeps/SWEEP/journal.jsonl, and one run folder per trial
data/DATASET/manifest.json vouches for the shards beside it
"""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt2dist.disk import append_line, sha256_of_record, write_atomically
from gpt2dist.errors import BadInput

CONFIG_FILE = "config.yaml"
ROWS_FILE = "metrics.jsonl"
LEDGER_FILE = "ledger.json"
EVENTS_FILE = "events.jsonl"
"What rank 0 says beside its rows, and Ray of its workers; the driver shows it."
SAMPLES_FILE = "samples.txt"
SUMMARY_FILE = "summary.json"
CURVE_FILE = "curve.png"
MLFLOW_FILE = "mlflow.json"
"Which MLflow run belongs to the folder."
ERROR_FILE = "error.log"
STOP_FILE, OUTCOME_FILE = ".stop", ".outcome.json"
GIVEN_UP = "the sweep: "
"How the reason of a trial begins that its sweep gave up because others did better."
DRIVER_LOCK, RANK_LOCK, LEDGER_LOCK = ".driver.lock", ".rank0.lock", ".ledger.lock"
CHECKPOINTS, CHECKPOINT_STATE = "checkpoints", "state.json"

SWEEPS = "sweeps"
"Folder below the runs that holds a folder of trials per sweep."
JOURNAL_FILE = "journal.jsonl"
SWEEP_LOCK = ".sweep.lock"
OUTPUT_FILE = "output.txt"
"What the trial's process printed, all its starts."
BEST_FILE, SWEEP_SUMMARY_FILE, SWEEP_PICTURE_FILE = "best.yaml", "sweep.json", "sweep.png"

MANIFEST = "manifest.json"


class Tail:
    """New whole lines of a JSONL file that may be replaced while it is read."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path, self._inode, self._offset = path, -1, 0
        if from_end and path.exists():
            status = path.stat()
            self._inode, self._offset = status.st_ino, status.st_size

    def lines(self) -> Iterator[dict[str, Any]]:
        """Records added since the last call; a line still being written waits for the next."""
        try:
            with self._path.open("rb") as file:
                status = self._path.stat()
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                file.seek(self._offset)
                content = file.read()
        except OSError:  # there is no file yet, or the disk is away for a while
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def require_name(name: str, what: str) -> str:
    """A name of one folder, or BadInput: never a path, and nothing that a terminal obeys."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name) and not name.endswith("."):
        return name
    raise BadInput(
        f"{what}={name!r} must be at most 100 letters, digits, - _ and ., the first a letter or "
        "digit: it names a folder"
    )


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    return run_dir / CHECKPOINTS / f"step-{step:08d}"


def checkpoint_folders(run_dir: Path) -> list[Path]:
    """Finished checkpoints, newest first; whether they are whole is not checked."""
    found = (run_dir / CHECKPOINTS).glob("step-*")
    return sorted((f for f in found if re.fullmatch(r"step-\d{8}", f.name)), reverse=True)


def checkpoint_record(folder: Path) -> dict[str, Any]:
    """What a checkpoint's state.json says; OSError or ValueError where it is not as written."""
    record = json.loads((folder / CHECKPOINT_STATE).read_text())
    if not isinstance(record, dict):
        raise ValueError("it is not a record")
    vouched = record.pop("sha256", None)  # early versions wrote none
    known = set(record) == {"format", "state", "files"}
    if not known or vouched not in (None, sha256_of_record(record)):
        raise ValueError("it does not have its recorded sha256")
    return record


def step_of(folder: Path) -> int:
    """The optimizer step in a checkpoint folder's name."""
    return int(folder.name.removeprefix("step-"))


def add_event(run_dir: Path, **event: Any) -> None:
    """One line more in the run's events, with its Unix time; raises StorageRefused."""
    append_line(run_dir / EVENTS_FILE, json.dumps({"time": time.time(), **event}))


def write_error(run_dir: Path, error: BaseException) -> None:
    """The whole trace of what broke a run, for whoever wants more than one line.

    A disk that does not take it must not hide the error itself.
    """
    with suppress(OSError):
        (run_dir / ERROR_FILE).write_text("".join(traceback.format_exception(error)))


def request_stop(run_dir: Path, reason: str) -> None:
    """Ask the workers of a run to save and leave at the next step; raises StorageRefused."""
    write_atomically(run_dir / STOP_FILE, reason, make_folder=False)


def requested_stop(run_dir: Path) -> str | None:
    """Why the workers of a run are asked to leave."""
    try:
        return (run_dir / STOP_FILE).read_text()
    except OSError:
        return None


def write_outcome(run_dir: Path, **outcome: Any) -> None:
    """How the workers ended, for the driver; a failure is not replaced by a later one.

    Raises StorageRefused.
    """
    if read_outcome(run_dir) is None:
        write_atomically(run_dir / OUTCOME_FILE, json.dumps(outcome), make_folder=False)


def read_outcome(run_dir: Path) -> dict[str, Any] | None:
    try:
        return json.loads((run_dir / OUTCOME_FILE).read_text())
    except (OSError, ValueError):
        return None
