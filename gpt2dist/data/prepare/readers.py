"""The documents of one unit: one reader per kind of file, each error naming file and place."""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
import tokenize
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from gpt2dist.data.prepare.files import first_line, open_bytes
from gpt2dist.data.prepare.units import Unit
from gpt2dist.data.tokenizer import END_OF_TEXT
from gpt2dist.errors import BadInput

Record = str | None
"None where a record has no text, which is no document."

_CHUNK_CHARACTERS = 1 << 20


def read_python(unit: Unit, text_field: str) -> Iterator[Record]:
    """One document per module, decoded as Python does."""
    for place in unit.places:
        with tokenize.open(place) as file:
            yield file.read()


def read_text(unit: Unit, text_field: str) -> Iterator[Record]:
    """One document per file, or several where the file separates them by <|endoftext|>."""
    for place in unit.places:
        with _decoding(place), io.TextIOWrapper(open_bytes(place), "utf-8-sig") as file:
            yield from _split_documents(file)


def read_jsonl(unit: Unit, text_field: str) -> Iterator[Record]:
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
            if not isinstance(record, dict):
                where = _line_number(place, unit.start, number)
                raise BadInput(f"{place}:{where} is not a JSON object ({str(record)[:80]})")
            if text_field not in record:
                where = _line_number(place, unit.start, number)
                raise missing_field(f"{place}:{where}", text_field, record)
            yield text_of(record[text_field], text_field, place)


def read_csv(unit: Unit, text_field: str) -> Iterator[Record]:
    """One document per row; the first row names the columns."""
    (place,) = unit.places
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _decoding(place), io.TextIOWrapper(open_bytes(place), "utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        if columns and text_field not in columns:
            raise missing_field(place, text_field, columns)
        try:
            for row in rows:
                yield row[text_field]
        except csv.Error as error:
            raise BadInput(f"{place}:{rows.line_num} is not CSV ({error})") from None


def read_parquet(unit: Unit, text_field: str) -> Iterator[Record]:
    """One document per row of the unit's row groups; reads the text column only."""
    (place,) = unit.places
    with open_bytes(place) as raw:
        file = parquet_file(place, raw)
        if text_field not in file.schema_arrow.names:
            raise missing_field(place, text_field, file.schema_arrow.names)
        groups = list(range(unit.start, unit.stop))
        for batch in file.iter_batches(1024, row_groups=groups, columns=[text_field]):
            for text in batch.column(0).to_pylist():
                yield text_of(text, text_field, place)


def parquet_file(place: str, raw: IO[bytes]) -> Any:
    """The opened pyarrow.parquet.ParquetFile; BadInput where the content is another."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(raw)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"{place} is not a parquet file ({first_line(error)})") from None


def text_of(text: Any, text_field: str, place: str) -> Record:
    """The text of a record; BadInput where it is something else."""
    if text is None or isinstance(text, str):
        return text
    raise BadInput(
        f"{place}: data.text_field={text_field} holds {type(text).__name__}, not text; "
        "name another column"
    )


def missing_field(place: str, text_field: str, columns: Iterable[str]) -> BadInput:
    return BadInput(
        f"{place} has no column data.text_field={text_field}; it has {', '.join(columns)}"
    )


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
    except (EOFError, zlib.error, zstandard.ZstdError) as error:
        raise BadInput(f"{place} is damaged ({first_line(error)})") from None
    except OSError as error:
        if error.errno is None:  # gzip.BadGzipFile and pyarrow say no more
            raise BadInput(f"{place} is damaged ({first_line(error)})") from None
        raise BadInput(f"{place} cannot be read ({error.strerror})") from None


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


def _line_number(place: str, start: int, number: int) -> int:
    """Line of the file (from 1) of the unit's `number`-th line; read only to word an error."""
    if not start:
        return number
    with open_bytes(place) as raw:
        return raw.read(start - 1).count(b"\n") + 1 + number
