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
from pathlib import Path

from gpt2dist.disk import folder_atomically, remove_partials
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.launch.machine.bucket import LAST_FILES, Bucket, check_writable, copy
from gpt2dist.run_files import (
    CHECKPOINT_STATE,
    CHECKPOINTS,
    CONFIG_FILE,
    JOURNAL_FILE,
    SWEEPS,
    checkpoint_folders,
)

MARKS = (CONFIG_FILE, JOURNAL_FILE)
"""What makes a folder a run's, and a sweep's."""
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
"""A task's secret that nobody gave is empty, which is not the same as unset."""
SKIPPED_SUFFIXES = (".db", ".db-wal", ".db-shm", ".log")
"""MLflow's own database is not copied half-written; `gpt2dist track sync` rebuilds it."""


def push(runs: Path, bucket: Bucket) -> int:
    """Bring the bucket up to date with every run and sweep here; returns how many files went."""
    sent = sum(_push_run(run, run.name, bucket) for run in _folders_with(CONFIG_FILE, runs))
    for sweep in _folders_with(JOURNAL_FILE, runs / SWEEPS):
        sent += _push_sweep(sweep, f"{SWEEPS}/{sweep.name}", bucket)
    return sent


def _folders_with(mark: str, parent: Path) -> list[Path]:
    """Sorted; a folder whose name begins with a dot is still being fetched."""
    found = (path.parent for path in parent.glob(f"*/{mark}"))
    return sorted(folder for folder in found if not folder.name.startswith("."))


def _push_run(run_dir: Path, name: str, bucket: Bucket) -> int:
    sent = _push_checkpoints(run_dir, name, bucket, bucket.files(name))
    return sent + _push_files(run_dir, name, bucket)


def _push_sweep(folder: Path, name: str, bucket: Bucket) -> int:
    trials = _folders_with(CONFIG_FILE, folder)
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
    here = checkpoint_folders(run_dir)[::-1]
    for folder in here:
        try:
            sent += _push_checkpoint(folder, bucket, f"{prefix}/{folder.name}", there)
        except FileNotFoundError:
            continue  # rotated away meanwhile; the next round clears what was sent of it
    kept = tuple(f"{prefix}/{folder.name}/" for folder in here)
    gone = [file for file in there if file.startswith(f"{prefix}/") and not file.startswith(kept)]
    for file in sorted(gone, key=lambda name: not name.endswith(LAST_FILES)):
        bucket.remove(file)
    return sent


def _push_checkpoint(folder: Path, bucket: Bucket, name: str, there: dict[str, int]) -> int:
    state = f"{name}/{CHECKPOINT_STATE}"
    if state in there:
        if bucket.read(state) == (folder / CHECKPOINT_STATE).read_bytes():
            return 0
        bucket.remove(state)  # the step was trained again and saved anew
    files = sorted(folder.iterdir(), key=lambda path: path.name in LAST_FILES)
    for path in files:
        bucket.send(path, f"{name}/{path.name}")
    return len(files)


def pull(bucket: Bucket, runs: Path, run: str) -> bool:
    """Fetch a run, or a sweep as `sweeps/NAME`, that this machine does not have.

    False when there is nothing to fetch.
    """
    target = runs / run
    if any((target / mark).exists() for mark in MARKS):
        return False
    files = bucket.files(run)
    if not any(f"{run}/{mark}" in files for mark in MARKS):
        return False
    remove_partials(target.parent, of=f"{target.name}.")
    with folder_atomically(target) as partial:
        for file in sorted(files):
            bucket.fetch(file, partial / file.removeprefix(f"{run}/"))
    return True


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
        said = _do(words)
    except OSError as error:
        print(f"gpt2dist: {words.first}: {error}", file=sys.stderr)
        return RunFailure.exit_code
    except BadInput as error:
        print(f"gpt2dist: {error}", file=sys.stderr)
        return error.exit_code
    if said:
        print(said)
    return 0


def _do(words: argparse.Namespace) -> str | None:
    """What the command says once it is done."""
    if words.verb == "copy":
        return f"{copy(words.first, words.second)} files at {words.second}"
    bucket = Bucket.open(words.first)
    if words.verb == "check":
        check_writable(bucket)
        return None
    runs = Path(words.second)
    if words.verb == "pull":
        found = pull(bucket, runs, words.run)
        how = "continued from" if found else "nothing to fetch in"
        return f"{words.run}: {how} {words.first}"
    if words.every:
        _push_for_ever(runs, bucket, words.every)
    return f"{push(runs, bucket)} files sent to {words.first}"


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
