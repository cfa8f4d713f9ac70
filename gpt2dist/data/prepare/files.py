"""Source files, found and opened wherever they lie, and the units of work that text is cut into."""

from __future__ import annotations

import fnmatch
import glob
import gzip
import os
import sysconfig
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

from gpt2dist.errors import BadInput

if TYPE_CHECKING:
    import pyarrow.fs

Reader = Literal["python", "text", "jsonl", "csv", "parquet", "hub", "disk"]
Item = TypeVar("Item")

_LARGEST_BYTES = 16 << 20
_SMALLEST_BYTES = 256 << 10
_FEWEST_UNITS = 8
RecordText = str | None
"None where a record has no text, which is no document."

READERS: dict[str, Reader] = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
COMPRESSED = (".gz", ".zst")
_KNOWN = ", ".join(READERS) + " (also .gz and .zst)"

# Left out of the standard library: its tests, what is not part of it, what differs by machine.
_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_SKIPPED_PREFIX = "_sysconfigdata"


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


@dataclass(frozen=True)
class SourceFile:
    place: str
    "Path or cloud address."
    reader: Reader
    source_bytes: int

    @property
    def compressed(self) -> bool:
        return _name(self.place).endswith(COMPRESSED)


def standard_library() -> list[SourceFile]:
    """Python's own modules, sorted by their place in the library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED_FOLDERS]
        found += [
            Path(folder, name)
            for name in names
            if name.endswith(".py") and not name.startswith(_SKIPPED_PREFIX)
        ]
    found.sort(key=lambda path: path.relative_to(root).as_posix())
    return [SourceFile(str(path), "python", path.stat().st_size) for path in found]


def find_files(source: str) -> list[SourceFile]:
    """Files of a path, glob, folder (searched deeply) or cloud address, sorted by name.

    Raises BadInput when nothing matches or a file's kind is unknown. In a folder or glob, files
    of unknown kind are passed over as long as one is known.
    """
    found, single = _find_cloud(source) if "://" in source else _find_local(source)
    if not found:
        raise BadInput(f"data.source={source}: no file there; name a file, a folder or a glob")
    known = [
        SourceFile(place, reader, size)
        for place, size in sorted(found)
        if (reader := _reader(place)) is not None
    ]
    if not known:
        example = "" if single else f", {found[0][0]} for example,"
        raise BadInput(f"data.source={source}{example} is of unknown kind; use {_KNOWN}")
    return known


def open_bytes(place: str) -> IO[bytes]:
    """The file's content, decompressed; seekable where it is not compressed."""
    raw: IO[bytes]
    if _name(place).endswith(".gz") and "://" not in place:
        return gzip.open(place)  # type: ignore[return-value]
    if "://" in place:
        filesystem, path = _filesystem(place)
        raw = filesystem.open_input_file(path)
    else:
        raw = open(place, "rb")  # noqa: SIM115 - the caller closes what is returned
    if _name(place).endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if _name(place).endswith(".zst"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    return raw


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


def text_of(text: Any, text_field: str, place: str) -> RecordText:
    """The text of a record; BadInput where it is something else."""
    if text is None or isinstance(text, str):
        return text
    raise BadInput(
        f"{place}: data.text_field={text_field} holds {type(text).__name__}, not text; "
        "name another column"
    )


def require_column(place: str, text_field: str, columns: Collection[str]) -> None:
    """BadInput naming the columns there are."""
    if text_field not in columns:
        raise BadInput(
            f"{place} has no column data.text_field={text_field}; it has {', '.join(columns)}"
        )


def _name(place: str) -> str:
    return (place.partition("?")[0] if "://" in place else place).lower()


def _reader(place: str) -> Reader | None:
    name = _name(place)
    if not name.endswith(COMPRESSED):
        return READERS.get(os.path.splitext(name)[1])
    reader = READERS.get(os.path.splitext(os.path.splitext(name)[0])[1])
    return None if reader == "parquet" else reader  # parquet compresses inside


def _find_local(source: str) -> tuple[list[tuple[str, int]], bool]:
    path = Path(source).expanduser()
    if path.is_file():
        return [(str(path.resolve()), path.stat().st_size)], True
    if path.is_dir():
        matches = [p for p in path.rglob("*") if not _hidden(p.relative_to(path))]
    else:
        matches = [Path(name) for name in glob.glob(str(path), recursive=True)]
    files = [p for p in matches if p.is_file()]
    return [(str(p.resolve()), p.stat().st_size) for p in files], False


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _find_cloud(source: str) -> tuple[list[tuple[str, int]], bool]:
    import pyarrow.fs

    address, mark, options = source.partition("?")  # s3://bucket/key?endpoint_override=...
    scheme, _, path = address.partition("://")
    wild = min((path.index(c) for c in "*[" if c in path), default=None)
    folder = path if wild is None else path[:wild].rpartition("/")[0]
    filesystem, base = _filesystem(f"{scheme}://{folder}{mark}{options}")
    try:
        info = filesystem.get_file_info(base)
        if info.type == pyarrow.fs.FileType.File:
            return [(source, info.size)], True
        selector = pyarrow.fs.FileSelector(base, recursive=True, allow_not_found=True)
        entries = filesystem.get_file_info(selector)
    except OSError as error:
        raise BadInput(
            f"data.source={source} cannot be listed ({first_line(error)}); "
            "check the address and your credentials"
        ) from None
    return [
        (f"{scheme}://{entry.path}{mark}{options}", entry.size)
        for entry in entries
        if entry.type == pyarrow.fs.FileType.File
        and (wild is None or fnmatch.fnmatchcase(entry.path, path))
    ], False


def _filesystem(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    import pyarrow.fs

    try:
        return pyarrow.fs.FileSystem.from_uri(address)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BadInput(
            f"data.source={address} cannot be opened ({first_line(error)}); "
            "check the address and your credentials"
        ) from None


def first_line(error: Exception) -> str:
    """What an error of another library says, as part of our one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
