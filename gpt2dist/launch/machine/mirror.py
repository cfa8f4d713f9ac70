"""Copies runs and sweeps from the machine's disk to a bucket while they are trained, and back.

    python -m gpt2dist.launch.machine.mirror check BUCKET
    python -m gpt2dist.launch.machine.mirror pull  BUCKET RUNS RUN
    python -m gpt2dist.launch.machine.mirror push  BUCKET RUNS [--every SECONDS]
    python -m gpt2dist.launch.machine.mirror copy  SOURCE TARGET

BUCKET is an address (s3://..., gs://...) or a folder, such as a mounted bucket. Training itself
needs appending, locks and renaming, which buckets do not have, so it always happens on a disk.

A checkpoint counts by its state.json: it goes up last, is taken away first, and a copy that
stopped halfway is skipped as damaged by whoever resumes from it. Checkpoints go up before the
rows, so that the rows in the bucket are never behind the newest checkpoint there. A sweep's journal
goes up after its trials, as it was before they did: what it calls finished is whole there, and
there is no trial of which it says nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2dist.errors import BadInput, RunFailure

if TYPE_CHECKING:
    import pyarrow.fs

RUN_FILE, JOURNAL_FILE = "config.yaml", "journal.jsonl"
"""What makes a folder a run's, and a sweep's."""
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
"""A task's secret that nobody gave is empty, which is not the same as unset."""
CHECKPOINTS = "checkpoints"
LAST_FILES = ("state.json", "manifest.json")
"""Written after everything that they vouch for."""
SKIPPED_SUFFIXES = (".db", ".db-wal", ".db-shm", ".log")
"""MLflow's own database is not copied half-written; `gpt2dist track sync` rebuilds it."""


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
        self.filesystem.create_dir(f"{self.base}/{name}".rpartition("/")[0], recursive=True)
        with (
            source.open("rb") as stream,
            self.filesystem.open_output_stream(f"{self.base}/{name}") as target,
        ):
            while piece := stream.read(16 * 2**20):
                target.write(piece)
        self.sent[name] = (state.st_size, state.st_mtime_ns)

    def write(self, content: bytes, name: str) -> bool:
        """A file that only grows, as it was when it was read; False if that is there already."""
        if self.sent.get(name) == (len(content), 0):
            return False
        self.filesystem.create_dir(f"{self.base}/{name}".rpartition("/")[0], recursive=True)
        with self.filesystem.open_output_stream(f"{self.base}/{name}") as target:
            target.write(content)
        self.sent[name] = (len(content), 0)
        return True

    def fetch(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            self.filesystem.open_input_stream(f"{self.base}/{name}") as stream,
            target.open("wb") as file,
        ):
            while piece := stream.read(16 * 2**20):
                file.write(piece)

    def remove(self, name: str) -> None:
        self.filesystem.delete_file(f"{self.base}/{name}")
        self.sent.pop(name, None)


def check(bucket: Bucket) -> None:
    """Write a small file there and take it away again; OSError where that cannot be done."""
    name = f".gpt2dist-{os.getpid()}-{time.time_ns()}"
    bucket.write(b"gpt2dist can write here", name)
    bucket.remove(name)


def push(runs: Path, bucket: Bucket) -> int:
    """Bring the bucket up to date with every run and sweep here; returns how many files went."""
    sent = sum(_push_run(run, run.name, bucket) for run in _folders_with(RUN_FILE, runs))
    for sweep in _folders_with(JOURNAL_FILE, runs / "sweeps"):
        sent += _push_sweep(sweep, f"sweeps/{sweep.name}", bucket)
    return sent


def _folders_with(mark: str, parent: Path) -> list[Path]:
    """Sorted; a folder whose name begins with a dot is still being fetched."""
    found = (path.parent for path in parent.glob(f"*/{mark}"))
    return sorted(folder for folder in found if not folder.name.startswith("."))


def _push_run(run_dir: Path, name: str, bucket: Bucket) -> int:
    sent = _push_checkpoints(run_dir, name, bucket, bucket.files(name))
    return sent + _push_files(run_dir, name, bucket)


def _push_sweep(folder: Path, name: str, bucket: Bucket) -> int:
    trials = _folders_with(RUN_FILE, folder)
    journal = (folder / JOURNAL_FILE).read_bytes()  # knows all of these, and no later end of one
    sent = sum(_push_run(trial, f"{name}/{trial.name}", bucket) for trial in trials)
    sent += _push_files(folder, name, bucket)
    sent += bucket.write(journal, f"{name}/{JOURNAL_FILE}")
    return sent


def _push_files(folder: Path, name: str, bucket: Bucket) -> int:
    changed = [path for path in sorted(folder.iterdir()) if _is_new(path, name, bucket)]
    for path in changed:
        bucket.send(path, f"{name}/{path.name}")
    return len(changed)


def _is_new(path: Path, folder_name: str, bucket: Bucket) -> bool:
    skipped = path.name.startswith(".") or path.suffix in SKIPPED_SUFFIXES
    if skipped or path.name == JOURNAL_FILE or not path.is_file():
        return False
    state = path.stat()
    return bucket.sent.get(f"{folder_name}/{path.name}") != (state.st_size, state.st_mtime_ns)


def _push_checkpoints(run_dir: Path, name: str, bucket: Bucket, there: dict[str, int]) -> int:
    sent = 0
    prefix = f"{name}/{CHECKPOINTS}"
    here = sorted((run_dir / CHECKPOINTS).glob("step-*"))
    for folder in here:
        try:
            sent += _push_checkpoint(folder, bucket, f"{prefix}/{folder.name}", there)
        except FileNotFoundError:
            continue  # rotated away meanwhile; the next round clears what was sent of it
    kept = {f"{prefix}/{folder.name}" for folder in here}
    gone = [file for file in there if file.startswith(f"{prefix}/") and _parent(file) not in kept]
    for file in sorted(gone, key=lambda name: not name.endswith(LAST_FILES)):
        bucket.remove(file)
    return sent


def _push_checkpoint(folder: Path, bucket: Bucket, name: str, there: dict[str, int]) -> int:
    state = f"{name}/state.json"
    if state in there:
        if bucket.read(state) == (folder / "state.json").read_bytes():
            return 0
        bucket.remove(state)  # the step was trained again and saved anew
    files = sorted(folder.iterdir(), key=lambda path: path.name in LAST_FILES)
    for path in files:
        bucket.send(path, f"{name}/{path.name}")
    return len(files)


def _parent(file: str) -> str:
    return file.rpartition("/")[0]


def pull(bucket: Bucket, runs: Path, run: str) -> bool:
    """Fetch a run, or a sweep as `sweeps/NAME`, that this machine does not have.

    False when there is nothing to fetch.
    """
    target = runs / run
    if any((target / mark).exists() for mark in (RUN_FILE, JOURNAL_FILE)):
        return False
    files = bucket.files(run)
    if not any(f"{run}/{mark}" in files for mark in (RUN_FILE, JOURNAL_FILE)):
        return False
    partial = target.with_name(f".pulling-{target.name}")
    for file in sorted(files):
        bucket.fetch(file, partial / file.removeprefix(f"{run}/"))
    partial.rename(target)
    return True


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
        goal.filesystem.create_dir(_parent(f"{goal.base}/{name}"), recursive=True)
        pyarrow.fs.copy_files(
            f"{origin.base}/{name}",
            f"{goal.base}/{name}",
            source_filesystem=origin.filesystem,
            destination_filesystem=goal.filesystem,
        )
    return len(files)


def _push_for_ever(runs: Path, bucket: Bucket, every_s: float) -> None:
    while True:
        time.sleep(every_s)
        try:
            push(runs, bucket)
        except OSError as error:
            print(f"mirror: {bucket.address}: {error}; trying again", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gpt2dist.launch.machine.mirror")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("check", "pull", "push", "copy"):
        command = verbs.add_parser(verb)
        command.add_argument("first")
        if verb != "check":
            command.add_argument("second")
        if verb == "pull":
            command.add_argument("run")
        if verb == "push":
            command.add_argument("--every", type=float, metavar="SECONDS")
    return parser.parse_args()


def main() -> int:
    """Exit code 0 done, 1 the bucket failed, 2 bad input."""
    words = _arguments()
    for name in SECRETS:
        if os.environ.get(name) == "":
            del os.environ[name]
    try:
        if words.verb == "copy":
            print(f"{copy(words.first, words.second)} files at {words.second}")
            return 0
        bucket = Bucket.open(words.first)
        if words.verb == "check":
            check(bucket)
            return 0
        runs = Path(words.second)
        if words.verb == "pull":
            found = pull(bucket, runs, words.run)
            print(
                f"{words.run}: {'continued from' if found else 'nothing to fetch in'} {words.first}"
            )
        elif words.every:
            _push_for_ever(runs, bucket, words.every)
        else:
            print(f"{push(runs, bucket)} files sent to {words.first}")
    except OSError as error:
        print(f"gpt2dist: {words.first}: {error}", file=sys.stderr)
        return RunFailure.exit_code
    except BadInput as error:
        print(f"gpt2dist: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
