"""A sweep in MLflow: one parent run, its trials nested below it, from one thread of its own.

The files are the truth; whatever MLflow missed is sent at the next round, at the end, or when the
sweep is resumed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt2dist.human import without_credentials
from gpt2dist.run_files import ROWS_FILE
from gpt2dist.sweep.search.sweeper import Sweeper
from gpt2dist.track.mlflow_quiet import one_line, quiet_mlflow
from gpt2dist.track.mlflow_run import STATUS_OF_END, MlflowRun
from gpt2dist.track.mlflow_uri import tracking_uri
from gpt2dist.track.rows import read_rows

ROUND_SECONDS = 10.0
CLOSE_SECONDS = 300.0
"For a store that is slow, and sweeps of many trials; one that is gone answers at once."
ATTEMPTS = 3
"At the end: a locked database is free again a moment later."
PARENT_TAG, BEST_TAG = "mlflow.parentRunId", "best"
STATUS_OF_STATE = {**STATUS_OF_END, "stopped": "KILLED", "waiting": "KILLED"}


class SweepMlflow:
    """Follows a sweep; no call waits for MLflow but `close`."""

    def __init__(self, sweeper: Sweeper, on_trouble: Callable[[str], None]) -> None:
        quiet_mlflow()
        self._sweeper, self._on_trouble = sweeper, on_trouble
        self._uri = tracking_uri(sweeper.sweep.config, os.environ)
        self._parent: MlflowRun | None = None
        self._runs: dict[int, MlflowRun] = {}
        self._settled: set[tuple[int, int]] = set()
        "Number and start of trials that MLflow knows the end of."
        self._warned = False
        self._summary: dict[str, Any] = {}
        self._files: Sequence[Path] = ()
        self._status = "FINISHED"
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._thread.start()

    def close(self, summary: dict[str, Any], files: Sequence[Path], status: str) -> None:
        """Send the rest and how it all ended; gives up after CLOSE_SECONDS."""
        self._summary, self._files, self._status = summary, files, status
        self._ending.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._warn(f"it did not answer within {CLOSE_SECONDS:g} s")

    def _follow(self) -> None:
        while not self._ending.wait(ROUND_SECONDS if self._runs or self._warned else 1.0):
            self._try(self._round)
        for _ in range(ATTEMPTS):
            if self._try(self._finish):
                break

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:  # whatever breaks in there must not reach the sweep
            self._parent, self._runs = None, {}
            self._warn(one_line(error))
            return False
        return True

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._on_trouble(
                f"MLflow at {without_credentials(self._uri)}: {text}; the "
                "sweep goes on, its files have everything: --resume sends what is missing"
            )

    def _round(self, last: bool = False) -> None:
        parent = self._open_parent()
        for record in self._sweeper.records:
            start = (record.trial.number, record.starts)
            if start in self._settled or not (record.folder / ROWS_FILE).exists():
                continue
            # A waiting one was interrupted; it may go on, or the budget ends before.
            ended = record.state not in ("running", "waiting") and not record.is_busy()
            self._send_trial(record.trial.number, parent, ended or last)
            if ended:
                self._settled.add(start)

    def _open_parent(self) -> MlflowRun:
        if self._parent is None:
            sweep = self._sweeper.sweep
            parent = MlflowRun(self._sweeper.folder, sweep.config, self._uri)
            about = {
                "sweep": sweep.name,
                "role": "sweep",
                "search": str(sweep.search.kind),
                "scheduler": sweep.scheduler.kind,
                "objective": ", ".join(sweep.objective),
            }
            parent.describe(sweep.config, about, attempt_id=None)
            parent.set_status("RUNNING")
            self._parent = parent
        return self._parent

    def _send_trial(self, number: int, parent: MlflowRun, over: bool) -> None:
        record = self._sweeper.record(number)
        trial, run = record.trial, self._runs.get(number)
        if run is None:
            run = MlflowRun(record.folder, trial.config, self._uri)
            about = {PARENT_TAG: parent.run_id, "sweep": trial.sweep.name, "role": "trial"}
            about |= {f"swept.{path}": text for path, text in trial.texts.items()}
            run.describe(trial.config, about, attempt_id=None)
            self._runs[number] = run
        run.send_rows(read_rows(record.folder / ROWS_FILE))
        if over:
            run.send_summary()
            ended = "interrupted" if record.state == "waiting" else record.state
            run.tag({"ended": ended, "reason": record.reason})
            run.send_artifacts()
        run.set_status(STATUS_OF_STATE.get(record.state, "RUNNING") if over else "RUNNING")

    def _finish(self) -> None:
        self._round(last=True)
        parent, summary = self._open_parent(), self._summary
        best, checkpoint = summary["best"], {}
        tags = {"ended": summary["ended"], "trials": str(len(summary["trials"]))}
        if best is not None:
            path = best["checkpoint"]
            checkpoint = {"best_checkpoint": str(Path(path).resolve()) if path else "none"}
            tags |= {"best_trial": best["trial"], **checkpoint}
            parent.send_figures({f"best_{name}": mean for name, mean in best["means"].items()})
        parent.tag(tags)
        for number, run in self._runs.items():
            is_best = best is not None and self._sweeper.record(number).trial.name == best["trial"]
            run.tag({BEST_TAG: "true", **checkpoint} if is_best else {BEST_TAG: "false"})
        totals = {name: summary[name] for name in ("usd", "machine_hours", "tokens")}
        parent.send_figures({f"total_{k}": v for k, v in totals.items() if v is not None})
        for file in self._files:
            parent.send_file(file)
        parent.set_status(self._status)
