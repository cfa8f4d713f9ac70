"""Sources of text: what a `data.source` stands for, cut into units, and each unit's documents."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare import hub, readers
from gpt2dist.data.prepare.files import SourceFile, find_files, open_bytes, standard_library
from gpt2dist.data.prepare.units import Unit, limited, packed, ranges, unit_bytes
from gpt2dist.errors import BadInput

_READ: dict[str, Callable[[Unit, str], Iterator[readers.Record]]] = {
    "python": readers.read_python,
    "text": readers.read_text,
    "jsonl": readers.read_jsonl,
    "csv": readers.read_csv,
    "parquet": readers.read_parquet,
    "hub": hub.read_hub,
    "disk": hub.read_disk,
}


def plan_units(data: DataConfig) -> list[Unit]:
    """The units of the source, in order: a function of the source alone, not of the machine.

    `max_documents` keeps the first documents in this order (see `hub.plan_hub` for its rule).
    Raises BadInput when the source cannot be found or read.
    """
    if data.source.startswith(hub.PREFIX):
        return hub.plan_hub(data.source, data.text_field, data.max_documents)
    files = standard_library() if data.source == "stdlib" else find_files(data.source)
    units = list(_units_of_files(files, data.text_field))
    if data.max_documents is None:
        return units
    return limited(units, data.max_documents, lambda unit, most: _count(unit, data, most))


def documents(unit: Unit, text_field: str) -> Iterator[str]:
    """The unit's documents in order, without those that hold no visible character."""
    records = itertools.islice(_READ[unit.reader](unit, text_field), unit.take)
    return (text for text in records if text and not text.isspace())


def _units_of_files(files: list[SourceFile], text_field: str) -> Iterator[Unit]:
    target = unit_bytes(sum(file.source_bytes for file in files))
    for reader, group in itertools.groupby(files, key=lambda file: file.reader):
        if reader in ("python", "text"):
            for run in packed(group, lambda file: file.source_bytes, target):
                places = tuple(file.place for file in run)
                yield Unit(reader, places, source_bytes=sum(file.source_bytes for file in run))
            continue
        for file in group:
            if reader == "parquet":
                yield from _row_groups(file, text_field, target)
            elif reader == "jsonl" and not file.compressed:
                for start, stop in ranges(file.source_bytes, target):
                    yield Unit(reader, (file.place,), start, stop, stop - start)
            else:  # cannot be entered in the middle: compressed, or a quoted field spans lines
                yield Unit(reader, (file.place,), source_bytes=file.source_bytes)


def _row_groups(file: SourceFile, text_field: str, target: int) -> Iterator[Unit]:
    with open_bytes(file.place) as raw:
        table = readers.parquet_file(file.place, raw)
        names = table.schema_arrow.names
        if text_field not in names:
            raise readers.missing_field(file.place, text_field, names)
        groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
        sizes = [
            sum(
                group.column(i).total_uncompressed_size
                for i in range(group.num_columns)
                if group.column(i).path_in_schema.split(".")[0] == text_field
            )
            for group in groups
        ]
    for run in packed(range(len(sizes)), sizes.__getitem__, target):
        total = sum(sizes[i] for i in run)
        yield Unit("parquet", (file.place,), run[0], run[-1] + 1, total)


def _count(unit: Unit, data: DataConfig, most: int) -> int:
    """Records of the unit, counted no further than `most`."""
    records = _READ[unit.reader](unit, data.text_field)
    return sum(1 for _ in itertools.islice(records, most))


def no_text(source: str) -> BadInput:
    return BadInput(f"data.source={source} holds no text; name another source")
