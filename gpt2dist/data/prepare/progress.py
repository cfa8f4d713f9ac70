"""How far a preparation is, and a line that says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gpt2dist.data.prepare.unit_shards import Finished, total_of
from gpt2dist.data.shards import Totals
from gpt2dist.human import human_count, human_duration

LINE_SECONDS = 2.0


@dataclass(frozen=True)
class UnitsDone:
    """State after one more unit; the rate and the time left come from this call's own work."""

    units_done: int
    units: int
    documents: int
    tokens: int
    text_megabytes_per_s: float
    seconds_left: float


def aloud(say: Callable[[str], None]) -> Callable[[UnitsDone], None]:
    """Says how far it is, at most every two seconds and at the end."""
    said_at = time.monotonic()

    def report(state: UnitsDone) -> None:
        nonlocal said_at
        over = state.units_done == state.units
        if over or time.monotonic() - said_at >= LINE_SECONDS:
            said_at = time.monotonic()
            left = "" if over else f"  {human_duration(state.seconds_left)} left"
            say(
                f"prepared {state.units_done:,}/{state.units:,} units  "
                f"{state.documents:,} documents  {human_count(state.tokens)} tokens  "
                f"{state.text_megabytes_per_s:.1f} MB/s{left}"
            )

    return report


class Report:
    """Calls back with the state after each finished unit."""

    def __init__(
        self, sizes: Sequence[int], done: Mapping[int, Finished], call: Callable[[UnitsDone], None]
    ) -> None:
        """`sizes`: source bytes of every unit."""
        # A streamed dataset's shards have no known size: each then counts the same.
        self._sizes, self._call = [max(1, size) for size in sizes], call
        self._began = time.monotonic()
        self._work_before = sum(self._sizes[i] for i in done)
        self._text_before = _total(done).text_bytes

    def __call__(self, done: Mapping[int, Finished]) -> None:
        seconds = max(1e-9, time.monotonic() - self._began)
        work = sum(self._sizes[i] for i in done)
        worked, left = work - self._work_before, sum(self._sizes) - work
        total = _total(done)
        self._call(
            UnitsDone(
                units_done=len(done),
                units=len(self._sizes),
                documents=total.documents,
                tokens=total.tokens,
                text_megabytes_per_s=(total.text_bytes - self._text_before) / 1e6 / seconds,
                seconds_left=seconds * left / worked,
            )
        )


def _total(done: Mapping[int, Finished]) -> Totals:
    return total_of(piece.totals for unit in done.values() for piece in unit.pieces.values())
