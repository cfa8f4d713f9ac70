"""Ctrl-C and SIGTERM of a sweep."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from gpt2dist.sweep.sweeper import Sweeper


class SweepStop:
    """SIGINT and SIGTERM: no new trials, all running ones save and leave; a second one kills."""

    def __init__(self, sweeper: Sweeper, stop_file: Path) -> None:
        self.received: int | None = None
        self._sweeper, self._stop_file = sweeper, stop_file
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SweepStop:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self.received = number
        self._stop_file.touch()
        self._sweeper.stop(signal.Signals(number).name)
