"""What a `data.source` stands for, cut into units, and the documents of each unit.

One reader per kind of file, each error naming file and place.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import sys
import tokenize
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare import hub
from gpt2dist.data.prepare.files import (
    RecordText,
    SourceFile,
    Unit,
    find_files,
    first_line,
    open_bytes,
    packed,
    ranges,
    require_column,
    standard_library,
    text_of,
    unit_bytes,
)
from gpt2dist.data.tokenizer import END_OF_TEXT
from gpt2dist.errors import BadInput

_CHUNK_CHARACTERS = 1 << 20


def plan_units(data: DataConfig) -> list[Unit]:
    """The units of the source, in order: a function of the source alone, not of the machine.

    `max_documents` keeps the first documents in this order (see `hub.plan_hub` for its rule).
    Raises BadInput when the source cannot be found or read.
    """
    if data.source.startswith(hub.PREFIX):
        return hub.plan_hub(data.source, data.text_field, data.max_documents)
    files = standard_library() if data.source == "stdlib" else find_files(data.source)
    units = list(_units_of_files(files, data.text_field))
    return units if data.max_documents is None else _first(units, data, data.max_documents)


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
        table = _parquet_file(file.place, raw)
        names = table.schema_arrow.names
        require_column(file.place, text_field, names)
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


def _first(units: list[Unit], data: DataConfig, max_documents: int) -> list[Unit]:
    """The units that hold the first `max_documents` documents."""
    kept, left = [], max_documents
    for unit in units:
        if not left:
            break
        records = _READ[unit.reader](unit, data.text_field)
        found = sum(1 for _ in itertools.islice(records, left))
        kept.append(replace(unit, take=found))
        left -= found
    return kept


def read_python(unit: Unit, text_field: str) -> Iterator[RecordText]:
    """One document per module, decoded as Python does."""
    for place in unit.places:
        with tokenize.open(place) as file:
            yield file.read()


def read_text(unit: Unit, text_field: str) -> Iterator[RecordText]:
    """One document per file, or several where the file separates them by <|endoftext|>."""
    for place in unit.places:
        with _decoding(place), io.TextIOWrapper(open_bytes(place), "utf-8-sig") as file:
            yield from _split_documents(file)


def read_jsonl(unit: Unit, text_field: str) -> Iterator[RecordText]:
    """One document per line that begins inside the unit's bytes."""
    (place,) = unit.places
    with _decoding(place), open_bytes(place) as raw:
        for number, (offset, line) in enumerate(_lines(raw, unit.start, unit.stop), 1):
            if offset == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                record = first_line(error)
            if not isinstance(record, dict) or text_field not in record:
                # Which line that is in the middle of a file, only the bytes before it would say.
                where = f"{place}:{number}" if not unit.start else f"{place} at byte {offset:,}"
                if not isinstance(record, dict):
                    raise BadInput(f"{where} is not a JSON object ({str(record)[:80]})")
                require_column(where, text_field, record)
            yield text_of(record[text_field], text_field, place)


def read_csv(unit: Unit, text_field: str) -> Iterator[RecordText]:
    """One document per row; the first row names the columns."""
    (place,) = unit.places
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _decoding(place), io.TextIOWrapper(open_bytes(place), "utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        if columns:
            require_column(place, text_field, columns)
        try:
            for row in rows:
                yield row[text_field]
        except csv.Error as error:
            raise BadInput(f"{place}:{rows.line_num} is not CSV ({error})") from None


def read_parquet(unit: Unit, text_field: str) -> Iterator[RecordText]:
    """One document per row of the unit's row groups; reads the text column only."""
    (place,) = unit.places
    with open_bytes(place) as raw:
        file = _parquet_file(place, raw)
        require_column(place, text_field, file.schema_arrow.names)
        groups = list(range(unit.start, unit.stop))
        for batch in file.iter_batches(1024, row_groups=groups, columns=[text_field]):
            for text in batch.column(0).to_pylist():
                yield text_of(text, text_field, place)


def _parquet_file(place: str, raw: IO[bytes]) -> Any:
    """The opened pyarrow.parquet.ParquetFile; BadInput where the content is another."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(raw)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"{place} is not a parquet file ({first_line(error)})") from None


@contextmanager
def _decoding(place: str) -> Iterator[None]:
    import zstandard

    try:
        yield
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{place} is not UTF-8 text (byte {error.object[error.start]:#04x}); "
            "convert it, for example with iconv"
        ) from None
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BadInput(f"{place} cannot be read ({error.strerror})") from None
        raise BadInput(f"{place} is damaged ({first_line(error)})") from None


def _split_documents(file: io.TextIOWrapper) -> Iterator[str]:
    pending: list[str] = []
    tail = ""  # a separator may be cut in two by the end of a chunk
    while chunk := file.read(_CHUNK_CHARACTERS):
        *documents, rest = (tail + chunk).split(END_OF_TEXT)
        for document in documents:
            yield "".join([*pending, document])
            pending.clear()
        keep = len(END_OF_TEXT) - 1
        pending.append(rest[:-keep])
        tail = rest[-keep:]
    yield "".join([*pending, tail])


def _lines(raw: IO[bytes], start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each line that begins in [start, stop); all of them if stop is 0."""
    # The files of pyarrow and zstandard have no readline of their own.
    buffered = raw if hasattr(raw, "peek") else io.BufferedReader(raw, 1 << 20)  # type: ignore
    offset = start
    if start:
        buffered.seek(start - 1)
        offset += len(buffered.readline()) - 1
    for line in buffered:
        if stop and offset >= stop:
            return
        yield offset, line
        offset += len(line)


_READ: dict[str, Callable[[Unit, str], Iterator[RecordText]]] = {
    "python": read_python,
    "text": read_text,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
    "hub": hub.read_hub,
    "disk": hub.read_disk,
}
