"""The folder of one run: who may write to it, whose it is, and what the driver leaves in it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2dist.config.load import dump, flatten, identity, load_dumped, to_tree
from gpt2dist.config.schema import IDENTITY_SECTIONS, Config
from gpt2dist.errors import BadInput, RunFailure

CONFIG_FILE, EVENTS_FILE, SAMPLES_FILE = "config.yaml", "events.jsonl", "samples.txt"
STOP_FILE, OUTCOME_FILE = ".stop", ".outcome.json"
DRIVER_LOCK = ".driver.lock"


def prepare(run_dir: Path, config: Config, *, fresh: bool) -> None:
    """Make the folder ready for `config`: new, or a run of the same identity to continue.

    With `fresh` an existing folder is kept under another name. Raises BadInput when the folder
    belongs to a different identity, naming what differs.
    """
    if fresh and run_dir.exists():
        with locked(run_dir / DRIVER_LOCK):
            stamp = time.strftime("%Y%m%d-%H%M%S")
            run_dir.rename(run_dir.with_name(f"{run_dir.name}.old-{stamp}"))
    written = run_dir / CONFIG_FILE
    if written.exists():
        _require_same(run_dir, load_dumped(written), config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(run_dir, error) from None


def claim(run_dir: Path, config: Config) -> None:
    """Write the config and remove what the last attempt left; call it under the driver's lock."""
    try:
        write_whole(run_dir / CONFIG_FILE, dump(config))
    except OSError as error:
        raise _cannot_write(run_dir, error) from None
    for leftover in (STOP_FILE, OUTCOME_FILE):
        (run_dir / leftover).unlink(missing_ok=True)


def open_run(run: str, runs_dir: str = "runs") -> tuple[Path, Config]:
    """The folder and config of a run given as a path or as a name below `runs_dir`."""
    for candidate in (Path(run), Path(runs_dir) / run):
        if (candidate / CONFIG_FILE).is_file():
            return candidate, load_dumped(candidate / CONFIG_FILE)
    known = sorted(path.parent.name for path in Path(runs_dir).glob(f"*/{CONFIG_FILE}"))
    hint = f"runs in {runs_dir}/: {', '.join(known)}" if known else f"there are none in {runs_dir}/"
    raise BadInput(f"no run at {run!r}; {hint}")


@contextmanager
def locked(path: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold `path` exclusively, so that two processes never write one run.

    On file systems without locks it does nothing. Raises RunFailure when someone else holds it.
    """
    with path.open("a") as file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunFailure(
                        f"another process is training {path.parent}; wait for it or stop it"
                    ) from None
                time.sleep(0.2)
            except OSError:
                break
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def request_stop(run_dir: Path, signal_name: str) -> None:
    """Ask the workers of a run to save and leave at the next step."""
    write_whole(run_dir / STOP_FILE, signal_name)


def write_outcome(run_dir: Path, **outcome: Any) -> None:
    """How the workers ended, for the driver; a failure is not replaced by a later one."""
    path = run_dir / OUTCOME_FILE
    if not path.exists():
        write_whole(path, json.dumps(outcome))


def read_outcome(run_dir: Path) -> dict[str, Any] | None:
    try:
        return json.loads((run_dir / OUTCOME_FILE).read_text())
    except (OSError, ValueError):
        return None


def _cannot_write(run_dir: Path, error: OSError) -> RunFailure:
    return RunFailure(f"cannot write to the run folder {run_dir}: {error.strerror}")


def _require_same(run_dir: Path, there: Config, config: Config) -> None:
    if identity(there) == identity(config):
        return
    old, new = flatten(to_tree(there)), flatten(to_tree(config))
    changed = [
        f"{key}={old[key]} there, {new[key]} asked"
        for key in new
        if key.split(".")[0] in IDENTITY_SECTIONS and old.get(key) != new[key]
    ]
    raise BadInput(
        f"{run_dir} holds a different run ({'; '.join(changed[:3])}); "
        f"use another --name, or --fresh to set it aside and start anew"
    )
