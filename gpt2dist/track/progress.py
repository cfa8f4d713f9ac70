"""What a person watching the run sees: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from gpt2dist.human import human_count, human_duration, usd

REDRAW_SECONDS = 0.1
PLAIN_SECONDS = 5.0
BAR_COLUMNS = (24, 16, 10)
"Widths tried in turn until the line fits."


class Progress:
    """Shows how far the run is, how well it learns, how fast it goes and what it costs.

    `tick` at every step keeps the live line moving; `row` shows a logged row. A stream that is no
    terminal gets at most one line each PLAIN_SECONDS, and always evaluations and the last step.
    A reader that goes away (a closed pipe) never stops the run.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        stream: TextIO | None = None,
        live: bool | None = None,
        columns: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_steps = max(1, total_steps)
        self._stream: TextIO | None = stream or sys.stdout
        self._live = _is_terminal(self._stream) if live is None else live
        self._columns = columns
        self._clock = clock
        self._marks = "━─" if _can_show("━─", self._stream) else "#-"
        self._values: dict[str, Any] = {"step": 0}
        self._origin: tuple[int, float] | None = None
        self._shown_at = -math.inf
        self._drawn = False

    def tick(self, step: int, **values: Any) -> None:
        """A step is done; `values` are row fields known so far, such as loss."""
        self._take({"step": step, **values})
        if self._live and self._is_due(REDRAW_SECONDS):
            self._draw()

    def row(self, row: Mapping[str, Any]) -> None:
        """A row was logged."""
        self._take(row)
        evaluated = row.get("val_loss") is not None
        last = self._values["step"] >= self._total_steps
        if self._live:
            if evaluated or last or self._is_due(REDRAW_SECONDS):
                self._draw()
        elif evaluated or last or self._is_due(PLAIN_SECONDS):
            self._write(self._plain_line(row) + "\n")

    def note(self, text: str) -> None:
        """A remark that stays on the screen, above the live line."""
        clear = "\r\x1b[K" if self._drawn else ""
        self._write(f"{clear}{text}\n")
        if self._drawn:
            self._draw()

    def close(self) -> None:
        """Leaves the last state on the screen and the cursor on a fresh line."""
        if self._drawn:
            self._draw()
            self._write("\n")
            self._drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, values: Mapping[str, Any]) -> None:
        self._values.update({key: value for key, value in values.items() if value is not None})
        if self._origin is None:
            # The first step seen also pays for compilation; rates are measured from its end.
            self._origin = (self._values["step"], self._clock())

    def _is_due(self, seconds: float) -> bool:
        now = self._clock()
        if now - self._shown_at < seconds:
            return False
        self._shown_at = now
        return True

    def _seconds_left(self) -> float | None:
        if self._origin is None:
            return None
        step, since = self._origin
        done = self._values["step"] - step
        if done <= 0:
            return None
        left = self._total_steps - self._values["step"]
        return max(0, left) * (self._clock() - since) / done

    def _parts(self) -> list[tuple[int, str]]:
        """What to say, in reading order, each with its rank: higher ranks go first when narrow."""
        values = self._values
        parts = [(1, f"{values['step']:,}/{self._total_steps:,}")]
        if "loss" in values:
            parts.append((0, f"loss {values['loss']:.4f}"))
        if "val_loss" in values:
            parts.append((2, f"val {values['val_loss']:.4f}"))
        if "tokens_per_s" in values:
            parts.append((4, f"{human_count(values['tokens_per_s'])} tok/s"))
        if "mfu" in values:
            parts.append((6, f"MFU {values['mfu']:.1%}"))
        left = self._seconds_left()
        if left:
            parts.append((3, f"{human_duration(left)} left"))
        if values.get("usd"):
            parts.append((5, usd(values["usd"])))
        return parts

    def _plain_line(self, row: Mapping[str, Any]) -> str:
        parts = [text for _, text in self._parts() if not text.startswith("val ")]
        if row.get("val_loss") is not None:
            parts.insert(2, f"val {row['val_loss']:.4f}")
        return "  ".join([f"step {parts[0]}", *parts[1:]])

    def _live_line(self, columns: int) -> str:
        share = min(1.0, self._values["step"] / self._total_steps)
        parts = self._parts()
        while True:
            for width in BAR_COLUMNS:
                full = round(share * width)
                bar = self._marks[0] * full + self._marks[1] * (width - full)
                words = [text for _, text in parts]
                line = "  ".join([f"{bar} {int(share * 100):3d}%", *words])
                if len(line) <= columns:
                    return line
            if not parts:
                return line[:columns]
            parts.remove(max(parts))

    def _draw(self) -> None:
        # One column stays free: writing the last one makes some terminals wrap.
        self._write("\r" + self._live_line(self._width() - 1) + "\x1b[K")
        self._drawn = True

    def _width(self) -> int:
        if self._columns is not None or self._stream is None:
            return self._columns or 80
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):  # not a real terminal
            return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed pipe or stream
            self._stream = None


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _can_show(text: str, stream: TextIO) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
