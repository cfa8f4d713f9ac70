"""A bucket as a tree of files: list, read, send, fetch, remove, copy."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2dist.errors import BadInput
from gpt2dist.run_files import CHECKPOINT_STATE, MANIFEST

if TYPE_CHECKING:
    import pyarrow.fs

LAST_FILES = (CHECKPOINT_STATE, MANIFEST)
"""Written after everything that they vouch for."""
PIECE_BYTES = 16 * 2**20


@dataclass
class Bucket:
    """A folder tree behind pyarrow's file systems, local ones included."""

    address: str
    filesystem: pyarrow.fs.FileSystem
    base: str
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    "Size and mtime_ns of the files that this process has sent."

    @classmethod
    def open(cls, address: str) -> Bucket:
        """Raises BadInput where the address leads nowhere."""
        import pyarrow
        import pyarrow.fs

        where = address if "://" in address else str(Path(address).expanduser().resolve())
        try:
            filesystem, base = pyarrow.fs.FileSystem.from_uri(where)
        except (pyarrow.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"bucket {address} cannot be opened ({reason})") from None
        return cls(address, filesystem, base.rstrip("/"))

    def files(self, folder: str = "") -> dict[str, int]:
        """Sizes of all files below a folder, by their path relative to the bucket."""
        import pyarrow.fs

        root = f"{self.base}/{folder}".rstrip("/")
        selector = pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True)
        return {
            entry.path[len(self.base) :].lstrip("/"): entry.size
            for entry in self.filesystem.get_file_info(selector)
            if entry.type == pyarrow.fs.FileType.File
        }

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(f"{self.base}/{name}") as stream:
            return stream.read()

    def send(self, source: Path, name: str) -> None:
        """One whole file, written front to back: mounted buckets take nothing else."""
        state = source.stat()
        with source.open("rb") as stream, self._output(name) as target:
            shutil.copyfileobj(stream, target, PIECE_BYTES)
        self.sent[name] = (state.st_size, state.st_mtime_ns)

    def write(self, content: bytes, name: str) -> bool:
        """A file that only grows, as it was when it was read; False if that is there already."""
        if self.sent.get(name) == (len(content), 0):
            return False
        with self._output(name) as target:
            target.write(content)
        self.sent[name] = (len(content), 0)
        return True

    def fetch(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self.filesystem.open_input_stream(f"{self.base}/{name}")
        with source as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, PIECE_BYTES)

    def remove(self, name: str) -> None:
        self.filesystem.delete_file(f"{self.base}/{name}")
        self.sent.pop(name, None)

    def _output(self, name: str) -> Any:
        """A stream into the file of that name; its folder is made."""
        self.filesystem.create_dir(f"{self.base}/{name}".rpartition("/")[0], recursive=True)
        return self.filesystem.open_output_stream(f"{self.base}/{name}")


def check_writable(bucket: Bucket) -> None:
    """Write a small file there and take it away again; OSError where that cannot be done."""
    name = f".gpt2dist-{os.getpid()}-{time.time_ns()}"
    bucket.write(b"gpt2dist can write here", name)
    bucket.remove(name)


def copy(source: str, target: str) -> int:
    """Copy a folder, such as prepared shards, between addresses; what vouches for it goes last."""
    import pyarrow.fs

    origin, goal = Bucket.open(source), Bucket.open(target)
    sizes = origin.files()
    files = sorted(sizes, key=lambda name: name.endswith(LAST_FILES))
    if not files:
        raise BadInput(f"there are no files at {source}")
    there = goal.files()
    for name in files:
        if there.get(name) == sizes[name] and not name.endswith(LAST_FILES):
            continue
        goal.filesystem.create_dir(f"{goal.base}/{name}".rpartition("/")[0], recursive=True)
        pyarrow.fs.copy_files(
            f"{origin.base}/{name}",
            f"{goal.base}/{name}",
            source_filesystem=origin.filesystem,
            destination_filesystem=goal.filesystem,
        )
    return len(files)
