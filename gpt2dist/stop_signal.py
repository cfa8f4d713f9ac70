"""Ctrl-C and SIGTERM become a clean stop; a second signal kills."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


class StopOnSignal:
    """Calls `stop` with the name of the first SIGTERM or SIGINT that comes while it is entered."""

    def __init__(self, stop: Callable[[str], object]) -> None:
        self.received: int | None = None
        self._stop = stop
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str | None:
        """Of the signal that came."""
        return signal.Signals(self.received).name if self.received is not None else None

    @property
    def exit_code(self) -> int:
        """As shells know it; of SIGTERM when no signal came."""
        return 128 + (self.received or signal.SIGTERM)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            # The user insists: leave now, the last checkpoint is whole.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self.received = number
        self._stop(signal.Signals(number).name)
