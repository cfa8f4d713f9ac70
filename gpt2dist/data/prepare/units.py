"""A corpus as a list of units of work that no machine's size can change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

Reader = Literal["python", "text", "jsonl", "csv", "parquet", "hub", "disk"]
Item = TypeVar("Item")

_LARGEST_BYTES = 16 << 20
_SMALLEST_BYTES = 256 << 10
_FEWEST_UNITS = 8


@dataclass(frozen=True)
class Unit:
    """One piece of work: what one task reads, and so what one shard holds."""

    reader: Reader
    places: tuple[str, ...]
    "Files in order, or the one dataset; several only for files that are one document each."
    start: int = 0
    stop: int = 0
    "Bytes of a jsonl file, row groups of a parquet file, rows or shard index of a dataset."
    source_bytes: int = 0
    take: int | None = None
    "At most so many documents from its front."


def unit_bytes(total_bytes: int) -> int:
    """Source bytes per unit: small enough for 8 units where that leaves them worth a task."""
    return min(_LARGEST_BYTES, max(_SMALLEST_BYTES, total_bytes // _FEWEST_UNITS))


def packed(
    items: Iterable[Item], size: Callable[[Item], int], target_bytes: int
) -> Iterable[list[Item]]:
    """Runs of consecutive items, each run closed once it reaches the target."""
    run: list[Item] = []
    run_bytes = 0
    for item in items:
        run.append(item)
        run_bytes += size(item)
        if run_bytes >= target_bytes:
            yield run
            run, run_bytes = [], 0
    if run:
        yield run


def ranges(stop: int, step: int) -> Iterable[tuple[int, int]]:
    """[0, stop) cut into pieces of `step`."""
    for start in range(0, stop, step):
        yield start, min(start + step, stop)


def limited(
    units: Sequence[Unit], max_documents: int, count: Callable[[Unit, int], int]
) -> list[Unit]:
    """The units that hold the first `max_documents` documents; `count` stops at its limit."""
    kept = []
    left = max_documents
    for unit in units:
        if not left:
            break
        found = count(unit, left)
        kept.append(replace(unit, take=found))
        left -= found
    return kept
