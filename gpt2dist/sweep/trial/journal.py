"""What a sweep has decided, line by line: the truth that a resumed sweep starts from.

What trials learned and cost stands in their own folders; here stands which trials there are and
how each ended.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.run_files import JOURNAL_FILE
from gpt2dist.sweep.spec.sweep import Sweep
from gpt2dist.sweep.trial.trial import Trial, TrialRecord

FORMAT = 1


class Journal:
    """Read when it is made; appends lines that survive a crash of the machine.

    One process writes it at a time.
    """

    def __init__(self, sweep: Sweep) -> None:
        """Raises BadInput naming a damaged line."""
        self.sweep, self.folder = sweep, sweep.folder
        self.path = sweep.folder / JOURNAL_FILE
        self.tree: dict[str, Any] | None = None
        "Of the sweep that was started, see Sweep.tree; None before its start."
        self.records: list[TrialRecord] = []
        content = self.path.read_bytes() if self.path.exists() else b""
        # A line without its end was never written: what it announced had not begun.
        for number, line in enumerate(content.split(b"\n")[:-1], 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                text = line[:60].decode(errors="replace")
                raise BadInput(
                    f"{self.path}:{number} is damaged: {text!r}; delete that line to go on without "
                    "it, or start anew with --fresh"
                ) from None

    def open(self) -> None:
        """Ready to be written; a last line that a crash cut short is gone."""
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        if self.tree is None:
            self.tree = self.sweep.tree
            self._append(event="sweep", format=FORMAT, tree=self.tree)

    def add(self, trial: Trial) -> TrialRecord:
        """A new trial; written before anything of it exists."""
        self._append(
            event="trial",
            trial=trial.number,
            point=trial.point,
            values=trial.values,
            seed=trial.seed,
        )
        return self._record(trial)

    def note(self, record: TrialRecord, **figures: Any) -> None:
        """The state that a trial has come to."""
        about = {"trial": record.trial.number, "state": record.state, "reason": record.reason}
        self._append(event="state", **about, **figures)

    def _record(self, trial: Trial) -> TrialRecord:
        record = TrialRecord(trial, self.folder / trial.name)
        self.records.append(record)
        return record

    def _append(self, **line: Any) -> None:
        text = json.dumps({"time": round(time.time(), 3), **line}, allow_nan=False) + "\n"
        try:
            with self.path.open("a") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFailure(f"cannot write {self.path}: {error.strerror}") from None

    def _take(self, line: dict[str, Any]) -> None:
        if line["event"] == "sweep":
            if line["format"] != FORMAT:
                raise ValueError("written by another version")
            self.tree, self.records = line["tree"], []
        elif self.tree is None:
            raise ValueError("the first line must describe the sweep")
        elif line["event"] == "trial":
            if line["trial"] != len(self.records):
                raise ValueError("trials are numbered in order")
            values = {str(path): value for path, value in line["values"].items()}
            self._record(Trial(self.sweep, line["trial"], line["point"], values, line["seed"]))
        else:
            record = self.records[line["trial"]]
            record.state, record.reason = line["state"], line["reason"]
            record.starts += record.state == "running"
