"""The sha256 of every shard: computed once per machine, while the run is already training.

Shards that were found whole are remembered in the user's cache folder, by inode, size and times.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from gpt2dist.data.shards import TOKEN, Dataset, Shard, damaged
from gpt2dist.disk import user_cache, write_atomically
from gpt2dist.errors import BadInput, RunFailure

_BLOCK_TOKENS = 1 << 19
_REMEMBERED_EVERY_BYTES = 1 << 26
"Less is read again in a moment."


def verify(dataset: Dataset) -> None:
    """Reads every shard; BadInput names one whose sha256 or token range is wrong."""
    for shard in dataset.shards:
        _verify_shard(dataset, shard)


class Verification:
    """What `verifying` has found until now."""

    def __init__(self, dataset: Dataset, start_step: int) -> None:
        self._dataset, self._start_step = dataset, start_step
        self._error: Exception | None = None
        self._over = threading.Event()
        # A daemon, so that a run that is told to stop does not wait for it.
        self._thread = threading.Thread(target=self._run, name="verify-shards", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises BadInput if a shard has been found wrong."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Waits until every shard was read; raises BadInput if one is wrong."""
        self._thread.join()
        self.check()

    def stop(self) -> None:
        """Reads no further shard."""
        self._over.set()

    def _run(self) -> None:
        try:
            self._read_the_new()
        except BadInput as error:
            since = f"checkpoints after step {self._start_step:,} may have learned from it"
            self._error = BadInput(f"{error}; {since}")
        except Exception as error:
            self._error = error

    def _read_the_new(self) -> None:
        dataset = self._dataset
        found_whole, unwritten_bytes = _remembered(dataset), 0
        for shard in dataset.shards:
            if self._over.is_set():
                return
            # Taken before it is read: what is written to meanwhile will be read again.
            sign = _sign(Path(dataset.path) / shard.file, shard)
            if found_whole.get(shard.file) == sign:
                continue
            _verify_shard(dataset, shard)
            found_whole[shard.file] = sign
            unwritten_bytes += shard.tokens * TOKEN.itemsize
            if unwritten_bytes >= _REMEMBERED_EVERY_BYTES:
                unwritten_bytes = 0
                _remember(dataset, found_whole)


@contextmanager
def verifying(dataset: Dataset, start_step: int) -> Iterator[Verification]:
    """`verify` beside a run from `start_step` on, but for what this machine found whole before."""
    verification = Verification(dataset, start_step)
    try:
        yield verification
    finally:
        verification.stop()


def _verify_shard(dataset: Dataset, shard: Shard) -> None:
    path, digest, highest = Path(dataset.path) / shard.file, hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while len(tokens := np.fromfile(file, TOKEN, _BLOCK_TOKENS)):
                digest.update(tokens.data)
                highest = max(highest, int(tokens.max()))
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from None
    if digest.hexdigest() != shard.sha256:
        raise damaged(path, "does not have the sha256 of its manifest")
    if highest >= dataset.vocab:
        raise damaged(path, f"holds token {highest}, beyond vocab={dataset.vocab}")


def _sign(path: Path, shard: Shard) -> list[int | str]:
    """What stays the same as long as nobody writes to a shard."""
    try:
        found = path.stat()
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from None
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, shard.sha256]


def _memory(dataset: Dataset) -> Path:
    place = f"{socket.gethostname()}:{Path(dataset.path).resolve()}"
    return user_cache("verified") / f"{hashlib.sha256(place.encode()).hexdigest()[:16]}.json"


def _remembered(dataset: Dataset) -> dict[str, list[int | str]]:
    try:
        found = json.loads(_memory(dataset).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(dataset: Dataset, found_whole: dict[str, list[int | str]]) -> None:
    with suppress(OSError, RunFailure):  # nowhere to write: all is read again at the next start
        write_atomically(_memory(dataset), json.dumps(found_whole))
