"""One run over all its starts, and what must be true of its folder after each and at the end."""

from __future__ import annotations

import math
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.run_files import checkpoint_folders, step_of
from gpt2dist.track.ledger import Attempt, read_attempts
from tests.train.command import (
    Command,
    Program,
    final_tensors,
    last_step,
    learned,
    rows_of,
    summary_of,
)
from tests.train.interruption import CODES, How, Moment, Round, events_of, openings

CHECKS = ("exit codes", "files and processes", "checkpoints", "rows", "ledger", "mlflow")
STAYING = {".outcome.json", ".stop"}
"Hidden files of a run's folder, beside its locks, that stay when it has finished."
MLFLOW_POINTS = "SELECT key, step, value FROM metrics JOIN runs USING (run_uuid) WHERE name = ?"


@dataclass
class Tally:
    """What was done, what was checked how often, and what was found wrong."""

    runs: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in CHECKS})
    ended: Counter[str] = field(default_factory=Counter)
    "By means, phase and kind of start."
    in_a_save: int = 0
    flipped_bits: int = 0
    rolled_back_steps: int = 0
    unbilled_seconds: list[float] = field(default_factory=list)
    "What the account lacks of each start that was killed."

    @property
    def fault_count(self) -> int:
        return sum(map(len, self.faults.values()))

    def check(self, name: str, where: str, faults: Sequence[str]) -> None:
        self.checked[name] += 1
        self.faults[name] += [f"{where}: {fault}" for fault in faults]


@dataclass(frozen=True)
class Over:
    """A start that is over."""

    end: str
    "A key of CODES."
    phase: str
    exit_code: int | None
    "Negative for a signal that nobody handled."
    said: str
    found: int
    "Step of the newest whole checkpoint before it."
    skipped: str | None
    "The newest checkpoint, if that was damaged."
    went_on_at: int | None
    "None when it was over before it opened the run's records."

    @property
    def code(self) -> int | None:
        """As `$?` has it."""
        code = self.exit_code
        return code if code is None or code >= 0 else 128 - code

    @property
    def knows_it_was_stopped(self) -> bool:
        """Unlike one that a signal hits before it trains, or while it is summed up."""
        return self.exit_code in (130, 143) and "gpt2dist: interrupted" not in self.said

    def code_faults(self, finished: bool) -> list[str]:
        documented = self.code in CODES[self.end] | {0} and (finished or self.code != 0)
        return [] if documented else [f"exit code {self.code}: {self.said[-2000:]}"]


class Story:
    """The folder of one run: its starts, and what was true after the last one."""

    def __init__(self, run_dir: Path, words: Sequence[str], reference: Path, tally: Tally) -> None:
        self.run_dir, self.reference, self.tally = run_dir, reference, tally
        self._words = (*words, f"paths.runs={run_dir.parent}", "--name", run_dir.name)
        self._attempts: list[Attempt] = []
        self._damaged: set[tuple[str, int]] = set()
        self.starts = 0

    def start(self, how: How) -> Command | Program:
        words = ["train", "debug", *self._words]
        if how in ("forked", "cold"):
            words.append("--local")
        else:
            workers = 1 if how == "one" else 2
            words += [f"cluster.workers={workers}", f"cluster.micro_batch={3 - workers}"]
        if how == "forked":
            return Command(self.run_dir.parent, *words)
        # One process of torch with as many threads as the forked ones.
        return Program(self.run_dir.parent, *words, one_core=how != "two")

    def play(self, round_: Round) -> str:
        """One start and its end; returns a line that says what came of it."""
        if round_.flip is not None:
            self._flip_a_bit(round_.flip)
        opened, reached = len(openings(self.run_dir)), last_step(self.run_dir)
        found, skipped, began = self._whole_step(), self._damaged_newest(), time.time()
        start = self.start(round_.how)
        moment = Moment(self.run_dir, start, opened)
        hit = round_.end != "nothing" and moment.hit(round_)
        in_a_save = hit and any(self.run_dir.glob("checkpoints/.step-*partial"))
        exit_code, left, ended = start.wait(), start.left_over(), time.time()
        went_on_at = [*openings(self.run_dir)[opened:], None][0]
        end, phase = (round_.end, round_.phase) if hit else ("nothing", "at its end")
        over = Over(end, phase, exit_code, start.said, found, skipped, went_on_at)

        self.starts += 1
        tally, faults = self.tally, self.tally.fault_count
        where = f"{self.run_dir.name}, start {self.starts}, {round_.how}, {end}, {phase}"
        tally.check("exit codes", where, over.code_faults(self.is_finished()))
        tally.check("files and processes", where, left)
        tally.check("checkpoints", where, self._checkpoint_faults(over))
        tally.check("rows", where, self._row_faults())
        billed = self._bill(began, ended, where)
        tally.ended[f"{end}, {phase}, {round_.how}"] += 1
        tally.in_a_save += in_a_save
        if went_on_at is not None:
            tally.rolled_back_steps += max(0, reached - went_on_at)
        if over.code in CODES["SIGKILL"]:
            tally.unbilled_seconds.append(moment.lived_seconds - billed)
        return (
            f"{self.run_dir.name:<6} {round_.how:<6} step {found:>3} to "
            f"{last_step(self.run_dir):>3}  {end} {phase}, exit {over.code}, "
            f"{ended - began:.1f} s, ${billed:.1f}"
            + (", in a save" if in_a_save else "")
            + (", FAULTY" if tally.fault_count > faults else "")
        )

    def is_finished(self) -> bool:
        try:
            return summary_of(self.run_dir)["ended"] == "finished"
        except FileNotFoundError:
            return False

    def conclude(self, sync: Callable[[Path], None]) -> None:
        """Checks a finished run; `sync` brings MLflow up to date with its folder."""
        where, tally, summary = self.run_dir.name, self.tally, summary_of(self.run_dir)
        same = final_tensors(self.run_dir) == final_tensors(self.reference)
        whole = learned(self.run_dir) == learned(self.reference)
        tally.check("rows", where, [] if whole else ["rows are missing"])
        tally.check("checkpoints", where, [] if same else ["other weights or moments"])
        ids = {attempt.attempt_id for attempt in self._attempts}
        paid = [attempt.seconds for attempt in self._attempts]
        dollars = [a.seconds * a.machines * a.usd_per_hour / 3600 for a in self._attempts]
        agrees = summary["attempts"] == len(ids)
        agrees &= math.isclose(summary["seconds"], math.fsum(paid))
        agrees &= math.isclose(summary["usd"], math.fsum(dollars))
        tally.check("ledger", where, [] if agrees else ["the summary has another sum"])
        hidden = {f.name for f in self.run_dir.glob(".*") if f.suffix != ".lock"} - STAYING
        partial = {path.name for path in self.run_dir.rglob("*partial*")}
        missing = {"no curve"} if not (self.run_dir / "curve.png").exists() else set()
        tally.check("files and processes", where, sorted(hidden | partial | missing))
        sync(self.run_dir)
        tally.check("mlflow", where, mlflow_faults(self.run_dir))

    def _checkpoint_faults(self, over: Over) -> list[str]:
        """Of a start that went on elsewhere than at the newest whole one, or left another."""
        if over.went_on_at is None:
            return []
        found, saved, faults = over.found, self._whole_step(), []
        if over.went_on_at != found:
            faults.append(f"went on at step {over.went_on_at}, not at {found}")
        named = f"checkpoint {over.skipped} is damaged and skipped" in events_of(self.run_dir)
        if over.skipped and over.phase != "start-up" and not named:
            faults.append(f"no word of {over.skipped}")
        if over.end in ("SIGTERM", "SIGINT") and saved < last_step(self.run_dir):
            faults.append(f"saved step {saved} of {last_step(self.run_dir)}")
        if over.knows_it_was_stopped:
            summary = summary_of(self.run_dir)
            said = summary["ended"], summary["reason"], summary.get("resume_step", 0)
            names = {over.end} if over.end in ("SIGTERM", "SIGINT") else {"SIGTERM", "SIGINT"}
            if said not in [("interrupted", name, saved) for name in names]:
                faults.append(f"its summary says {said} at step {saved}")
            if "the same command continues this run" not in over.said:
                faults.append("no word of how to go on")
        return faults

    def _row_faults(self) -> list[str]:
        """Of all rows so far, bit by bit."""
        paid = [row["usd"] for row in rows_of(self.run_dir)]
        faults = [] if paid == sorted(paid) else ["a row costs less than the one before"]
        for there, here in zip(learned(self.reference), learned(self.run_dir)):
            if there != here:
                faults.append(f"{here} instead of {there}")
        return faults

    def _bill(self, began: float, ended: float, where: str) -> float:
        """Seconds that the ledger charges for a start; they must be seconds of the start."""
        before, faults = self._attempts, []
        try:
            self._attempts = read_attempts(self.run_dir / "ledger.json")
        except BadInput:  # there is none yet
            faults = ["the ledger is gone"] if before else []
        except RunFailure as error:
            faults = [str(error)]
        fresh = self._attempts[len(before) :]
        if self._attempts[: len(before)] != before:
            faults.append("what an earlier start had cost has changed")
        if len({attempt.attempt_id for attempt in fresh}) > 1:
            faults.append("one start is more than one attempt")
        seen = [began, *(at for a in fresh for at in (a.started_at, a.last_seen_at)), ended]
        if seen != sorted(seen):
            faults.append(f"charged outside of the start: {seen}")
        self.tally.check("ledger", where, faults)
        return sum(attempt.seconds for attempt in fresh)

    def _whole_step(self) -> int:
        """Step of the newest checkpoint that nobody damaged."""
        folders = checkpoint_folders(self.run_dir)
        return next((step_of(folder) for folder in folders if not self._is_damaged(folder)), 0)

    def _damaged_newest(self) -> str | None:
        newest = checkpoint_folders(self.run_dir)[:1]
        return newest[0].name if newest and self._is_damaged(newest[0]) else None

    def _is_damaged(self, folder: Path) -> bool:
        return (folder.name, folder.stat().st_mtime_ns) in self._damaged

    def _flip_a_bit(self, where: float) -> None:
        """In the newest checkpoint, if it and the one before it are whole."""
        newest = checkpoint_folders(self.run_dir)[:2]
        if len(newest) < 2 or any(map(self._is_damaged, newest)):
            return
        files = sorted(newest[0].iterdir())
        bit = int(where * 8 * sum(file.stat().st_size for file in files))
        for file in files:
            content = bytearray(file.read_bytes())
            if bit < 8 * len(content):
                content[bit // 8] ^= 1 << bit % 8
                file.write_bytes(content)
                break
            bit -= 8 * len(content)
        self._damaged.add((newest[0].name, newest[0].stat().st_mtime_ns))
        self.tally.flipped_bits += 1


def mlflow_faults(run_dir: Path) -> list[str]:
    """What MLflow's database beside the runs has otherwise than the rows of this one."""
    with closing(sqlite3.connect(run_dir.parent / "mlflow.db")) as store:
        runs = store.execute("SELECT status FROM runs WHERE name = ?", [run_dir.name]).fetchall()
        points = store.execute(MLFLOW_POINTS, [run_dir.name]).fetchall()
    faults = [] if runs == [("FINISHED",)] else [f"its runs are {runs}"]
    rows = rows_of(run_dir)
    last = {key for key, step, _ in points if step == rows[-1]["step"]}
    for key in {key for row in rows for key in row} - {"step", "time"}:
        wanted = [row["step"] for row in rows if row.get(key) is not None]
        found = sorted(step for name, step, _ in points if name == key)
        if found != wanted:
            faults.append(f"{key} at steps {found} instead of {wanted}")
    losses = {step: value for key, step, value in points if key == "loss"}
    if losses != {row["step"]: row["loss"] for row in rows}:
        faults.append("other losses")
    return faults if "final_val_loss" in last else [*faults, "no final_val_loss"]
