"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from gpt2dist.errors import RunFailure


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces `path` in one move, fsynced: readers and crashes see the old content or the new.

    Creates the folder; raises RunFailure when the disk refuses.
    """
    data = content.encode() if isinstance(content, str) else content
    # The process id keeps two writers of one path from tearing each other's half-written file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunFailure(f"cannot write {path}: {error.strerror}; is there space left?") from None
