"""MLflow beside the training loop, never in its way.

`metrics.jsonl` is the queue: a background thread follows the file and sends what MLflow lacks.
Training does not wait, memory does not grow, and whatever MLflow missed (server down, database
locked) is sent when it is back, by the next attempt, or by `gpt2dist track sync`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt2dist.config.schema import Config
from gpt2dist.errors import RunFailure
from gpt2dist.human import without_credentials
from gpt2dist.run_files import ROWS_FILE, Tail
from gpt2dist.track.mlflow_quiet import one_line, quiet_mlflow
from gpt2dist.track.mlflow_run import STATUS_OF_END, MlflowRun
from gpt2dist.track.rows import read_rows

SEND_SECONDS = 10.0
RETRY_SECONDS = 60.0
CLOSE_SECONDS = 20.0


class MlflowTracker:
    """Follows one run folder from a daemon thread that owns every MLflow call.

    For the one process that speaks for the run (the driver, or rank 0), once the rows of
    rolled-back steps are gone. Importing MLflow and creating a SQLite store (seconds) happen in
    the thread. To be made in the main thread.
    """

    send_seconds = SEND_SECONDS

    def __init__(
        self, run_dir: Path, config: Config, uri: str, *, attempt_id: str, tags: Mapping[str, str]
    ) -> None:
        quiet_mlflow()
        self._run_dir, self._config, self._uri = Path(run_dir), config, uri
        self._attempt_id, self._tags = attempt_id, dict(tags)
        self.trouble: str | None = None
        "The first thing that went wrong, in one line."
        self._run: MlflowRun | None = None
        self._rows = Tail(self._run_dir / ROWS_FILE)
        self._ended = "finished"
        self._ending = threading.Event()
        self._in_sync = False
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def close(self, ended: str = "finished", deadline_seconds: float = CLOSE_SECONDS) -> bool:
        """Sends the rest, the artifacts and the status; True if MLflow has all of it in time.

        `ended`: a key of STATUS_OF_END. Calling again only waits again. A tracker that was never
        started owes nothing.
        """
        if self._thread.ident is None:
            return True
        if not self._ending.is_set():
            self._ended = ended
            self._ending.set()
        self._thread.join(deadline_seconds)
        if self._thread.is_alive():
            self._warn(f"it did not answer within {deadline_seconds:g} s")
            return False
        return self._in_sync

    def _follow(self) -> None:
        wait_seconds = 0.0
        while not self._ending.wait(wait_seconds):
            wait_seconds = self.send_seconds if self._try(self._send) else RETRY_SECONDS
        self._in_sync = self._try(self._finish)

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # whatever breaks in there must not reach training
            # Start over next time: a reopened run knows what arrived.
            self._run, self._rows = None, Tail(self._run_dir / ROWS_FILE)
            self._warn(one_line(error))
            return False
        return True

    def _send(self) -> None:
        if self._run is None:
            run = MlflowRun(self._run_dir, self._config, self._uri)
            run.describe(self._config, self._tags, self._attempt_id)
            if not self._ending.is_set():
                run.set_status("RUNNING")
            self._run = run
        self._run.send_rows(list(self._rows.lines()))

    def _finish(self) -> None:
        self._send()
        assert self._run is not None
        self._run.send_summary()
        self._run.set_status(STATUS_OF_END[self._ended])
        self._run.send_artifacts()

    def _warn(self, text: str) -> None:
        self.trouble = self.trouble or (
            f"MLflow at {without_credentials(self._uri)}: {text}; training goes on, the rows "
            f"are safe: run `gpt2dist track sync {self._run_dir}` once it is back"
        )


@dataclass(frozen=True)
class SyncReport:
    uri: str
    "Without credentials."
    run_id: str
    created: bool
    rows: int
    "Sent now; 0 when MLflow had them all."
    last_step: int | None
    artifacts: list[str]
    status: str


def sync(run_dir: Path, config: Config, uri: str) -> SyncReport:
    """Brings MLflow up to date with the rows, the artifacts and the end of a run; repeatable.

    Raises BadInput without readable rows, RunFailure when MLflow cannot be reached.
    """
    run_dir = Path(run_dir)
    rows = read_rows(run_dir / ROWS_FILE)
    quiet_mlflow()
    place = without_credentials(uri)
    try:
        run = MlflowRun(run_dir, config, uri)
        run.describe(config, {}, attempt_id=None)
        sent = run.send_rows(rows)
        ended = run.send_summary()
        artifacts = run.send_artifacts()
        if ended in STATUS_OF_END:
            run.set_status(STATUS_OF_END[ended])
    except Exception as error:  # MLflow, SQLAlchemy, urllib3 and requests share no base class
        said = f"cannot sync {run_dir} with MLflow at {place}: {one_line(error)}"
        raise RunFailure(said) from None
    return SyncReport(place, run.run_id, run.created, sent, run.last_step, artifacts, run.status)
