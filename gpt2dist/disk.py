"""Files and folders that are there whole or not at all, and one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt2dist.errors import RunFailure, StorageRefused

_ASIDE = ".aside"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says against writing `path`, as StorageRefused in one line."""
    try:
        yield
    except OSError as error:
        said = f"cannot write {path}: {error.strerror or error}"
        raise StorageRefused(f"{said}; make room there or make it writable") from None


def write_atomically(
    path: Path, content: str | bytes | memoryview, *, make_folder: bool = True
) -> None:
    """Replaces `path` in one move, fsynced: readers and crashes see the old content or the new.

    Creates the folder unless told not to; raises StorageRefused when the disk refuses.
    """
    partial = partial_of(path)
    with writing(path):
        try:
            if make_folder:
                path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def append_line(path: Path, line: str) -> None:
    """One line more, all of it or nothing, in a file that several processes make longer."""
    content = f"{line}\n".encode()
    with writing(path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            done = os.write(file, content)
            if done < len(content):  # the disk is full in the middle of the line
                os.ftruncate(file, os.fstat(file).st_size - done)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)


class AppendedFile:
    """A file that one process makes longer by whole lines.

    What a refused try left behind is cut off by the next one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._end = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0

    def append(self, lines: str) -> None:
        """Hands all of it to the system, or raises StorageRefused."""
        content, done = lines.encode(), 0
        with writing(self.path):
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._end = min(self._end, os.fstat(file).st_size)
                os.ftruncate(file, self._end)
                while done < len(content):
                    done += os.pwrite(file, content[done:], self._end + done)
            finally:
                os.close(file)
        self._end += done

    def sync(self) -> None:
        """Forces all lines onto the disk, or raises StorageRefused."""
        with writing(self.path):
            fsync(self.path)


@contextlib.contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` once the block has ended well."""
    partial = partial_of(path)
    partial.mkdir(parents=True)
    try:
        yield partial
        finish_folder(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def partial_of(path: Path) -> Path:
    """A hidden name beside `path` for what is not whole yet; no other writer has the same."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def finish_folder(partial: Path, path: Path) -> None:
    """Gives a filled folder its name; everything in it is on the disk before.

    A folder that has the name is set aside until then: at every moment one of them is there.
    """
    for file in partial.rglob("*"):
        fsync(file)
    fsync(partial)
    aside = path.with_name(f".{path.name}{_ASIDE}")
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    partial.rename(path)
    fsync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Removes a folder in one move: half removed it is hidden already."""
    doomed = partial_of(path)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_partials(folder: Path, of: str = "") -> None:
    """Clears away what killed writers left in a folder, all or `of` one name; nobody may write.

    A folder that `finish_folder` had set aside for a successor that never came is back.
    """
    for aside in folder.glob(f".{glob.escape(of)}*{_ASIDE}"):
        name = aside.name.removeprefix(".").removesuffix(_ASIDE)
        if (folder / name).exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(folder / name)
    for leftover in folder.glob(f".{glob.escape(of)}*partial*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


def user_cache(name: str) -> Path:
    """A folder of ours for what can be made again; a temporary one where home cannot be written."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache_home / "gpt2dist" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:  # a read-only or missing home, as in some containers
        pass
    folder = Path(tempfile.gettempdir()) / f"gpt2dist-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_record(record: Mapping[str, Any]) -> str:
    """Of what a JSON record says, however it is spaced."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path, wait_seconds: float = 0.0, doing: str | None = None) -> Iterator[None]:
    """Hold the file `path` exclusively, so that two processes never write one folder.

    On file systems without locks it does nothing. Raises StorageRefused where there is no folder,
    RunFailure when someone else holds it: another process is `doing`, by default training the run
    in that folder.
    """
    with writing(path):
        file = path.open("a")
    with file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    doing = doing or f"training {path.parent}"
                    said = f"another process is {doing}; wait for it or stop it"
                    raise RunFailure(said) from None
                time.sleep(0.2)
            except OSError:
                break
        yield
