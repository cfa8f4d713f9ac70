"""What a sweep has decided, line by line: the truth that a resumed sweep starts from.

What trials learned and cost stands in their own folders; here stands which trials there are and
how each ended.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.run_files import JOURNAL_FILE

FORMAT = 1

State = Literal["running", "finished", "stopped", "budget", "interrupted", "diverged", "failed"]
"""stopped: early, by the scheduler; budget: its share of the sweep's budget was used up."""

OVER: tuple[State, ...] = ("finished", "stopped", "diverged")
"States that no resumed sweep changes."


@dataclass
class Entry:
    """What the journal says of one trial."""

    number: int
    point: int
    values: dict[str, Any]
    seed: int
    state: State = "running"
    reason: str = ""
    starts: int = 0


@dataclass
class Story:
    """A whole journal, read back."""

    tree: dict[str, Any]
    "Of the sweep that was started; see Sweep.tree."
    entries: list[Entry] = field(default_factory=list)


class Journal:
    """Appends lines that survive a crash of the machine. One process writes it at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_FILE
        _drop_partial_line(self._path)

    def begin(self, tree: dict[str, Any]) -> None:
        self._append(event="sweep", format=FORMAT, tree=tree)

    def trial(self, number: int, point: int, values: dict[str, Any], seed: int) -> None:
        """A new trial; written before anything of it exists."""
        self._append(event="trial", trial=number, point=point, values=values, seed=seed)

    def state(self, number: int, state: State, reason: str = "", **figures: Any) -> None:
        self._append(event="state", trial=number, state=state, reason=reason, **figures)

    def _append(self, **line: Any) -> None:
        text = json.dumps({"time": round(time.time(), 3), **line}, allow_nan=False) + "\n"
        try:
            with self._path.open("a") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunFailure(f"cannot write {self._path}: {error.strerror}") from None


def read_journal(folder: Path) -> Story | None:
    """The story so far, None where there is none; raises BadInput naming a damaged line."""
    path = folder / JOURNAL_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    story: Story | None = None
    for number, line in enumerate(lines[:-1], 1):  # a line without its end was never written
        try:
            story = _take(story, json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise BadInput(
                f"{path}:{number} is damaged: {line[:60].decode(errors='replace')!r}; delete that "
                "line to go on without it, or start anew with --fresh"
            ) from None
    return story


def _take(story: Story | None, line: dict[str, Any]) -> Story:
    if line["event"] == "sweep":
        if line["format"] != FORMAT:
            raise ValueError("written by another version")
        return Story(line["tree"])
    if story is None:
        raise ValueError("the first line must describe the sweep")
    if line["event"] == "trial":
        if line["trial"] != len(story.entries):
            raise ValueError("trials are numbered in order")
        entry = Entry(line["trial"], line["point"], line["values"], line["seed"])
        story.entries.append(entry)
        return story
    entry = story.entries[line["trial"]]
    entry.state, entry.reason = line["state"], line["reason"]
    entry.starts += line["state"] == "running"
    return story


def _drop_partial_line(path: Path) -> None:
    """A crash may have cut the last line short; what it announced had not begun."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
