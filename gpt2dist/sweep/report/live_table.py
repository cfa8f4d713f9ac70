"""The table of a sweep: redrawn in place on a terminal, a line per change elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from gpt2dist.human import human_count, human_duration, usd
from gpt2dist.sweep.spec.schema import Sweep
from gpt2dist.sweep.spec.space import swept_paths
from gpt2dist.sweep.sweeper import Sweeper
from gpt2dist.sweep.trial.record import Record
from gpt2dist.sweep.trial.trial import describe, labels, short

REDRAW_SECONDS = 0.5
Table = list[list[str]]


class Screen:
    """Shows the trials of a sweep while it goes on."""

    def __init__(self, sweeper: Sweeper, stream: TextIO | None = None) -> None:
        self._sweeper = sweeper
        self._stream = stream or sys.stdout
        self.is_live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn_lines = 0
        self._drawn_at = 0.0
        self._said: dict[int, tuple[str, int]] = {}
        self._started_at = time.monotonic()

    def show(self, last: bool = False) -> None:
        """Call it often; it draws when there is something new."""
        now = time.monotonic()
        if not last and now - self._drawn_at < REDRAW_SECONDS:
            return
        self._drawn_at = now
        records = self._sweeper.records
        if self.is_live:
            self._redraw([*table_lines(self._sweeper, records), self._footer()])
        else:
            for record in records:
                self._say(record)

    def note(self, text: str) -> None:
        """A remark that stays."""
        self._write((f"\x1b[{self._drawn_lines}F\x1b[J" if self._drawn_lines else "") + text + "\n")
        self._drawn_lines = 0

    def _redraw(self, lines: Sequence[str]) -> None:
        columns, rows = shutil.get_terminal_size()
        kept = [line[: columns - 1] for line in lines[-(rows - 1) :]]
        back = f"\x1b[{self._drawn_lines}F" if self._drawn_lines else ""
        self._write(back + "".join(f"{line}\x1b[K\n" for line in kept) + "\x1b[J")
        self._drawn_lines = len(kept)

    def _say(self, record: Record) -> None:
        """One line when a trial starts, is evaluated, or ends."""
        if record.state == "waiting":
            return
        now = (record.state, len(record.folder.evaluations))
        if self._said.get(record.trial.number) == now:
            return
        self._said[record.trial.number] = now
        parts = [f"trial {record.trial.number}", describe(record.trial.values)]
        if len(self._sweeper.sweep.seeds) > 1:
            parts.append(f"seed {record.trial.seed}")
        parts += [text for text in _figures(record, self._sweeper) if text]
        parts.append(record.state if not record.reason else f"{record.state}: {record.reason}")
        self._write("  ".join(parts) + "\n")

    def _footer(self) -> str:
        sweeper, spent = self._sweeper, self._sweeper.spent()
        limit = sweeper.sweep.budget.usd
        money = usd(spent.usd) + (f" of {usd(limit)}" if limit else "")
        parts = [
            human_duration(time.monotonic() - self._started_at),
            f"{human_count(spent.tokens)} tokens",
            money if sweeper.rent.is_known else "no price known",
        ]
        return "  ".join(parts)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads any more; the sweep goes on
            self.is_live = False


def table_lines(sweeper: Sweeper, records: Sequence[Record]) -> list[str]:
    """Trial, swept values, tokens, losses, dollars, state, and why it ended early."""
    sweep = sweeper.sweep
    rows = [_head(sweep)] + [_row(record, sweeper) for record in records]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if column == len(row) - 1 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _head(sweep: Sweep) -> list[str]:
    names = labels(swept_paths(sweep.space))
    seed = ["seed"] if len(sweep.seeds) > 1 else []
    return ["trial", *names.values(), *seed, "tokens", "loss", "val loss", "dollars", "state"]


def _row(record: Record, sweeper: Sweeper) -> list[str]:
    trial, folder, sweep = record.trial, record.folder, sweeper.sweep
    seed = [str(trial.seed)] if len(sweep.seeds) > 1 else []
    values = [short(trial.values[path]) for path in swept_paths(sweep.space)]
    share = f"{human_count(folder.tokens)}/{human_count(trial.tokens)}" if record.starts else ""
    spent = folder.spent(sweeper.rent.share).usd
    says_more = record.state in ("stopped", "diverged", "failed", "interrupted", "budget")
    return [
        str(trial.number),
        *values,
        *seed,
        share,
        f"{folder.loss:.4f}" if folder.loss is not None else "",
        f"{folder.val_loss:.4f}" if folder.val_loss is not None else "",
        usd(spent) if sweeper.rent.is_known and record.starts else "",
        f"{record.state}: {record.reason}" if says_more and record.reason else record.state,
    ]


def _figures(record: Record, sweeper: Sweeper) -> list[str]:
    folder = record.folder
    spent = folder.spent(sweeper.rent.share).usd
    return [
        f"{human_count(folder.tokens)} tokens" if folder.tokens else "",
        f"loss {folder.loss:.4f}" if folder.loss is not None else "",
        f"val {folder.val_loss:.4f}" if folder.val_loss is not None else "",
        usd(spent) if sweeper.rent.is_known and folder.tokens else "",
    ]
