"""The folder of one run: made ready, claimed by a driver, opened by its name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from gpt2dist.config.load import dump, flatten, identity, load_dumped, to_tree
from gpt2dist.config.schema import IDENTITY_SECTIONS, Config
from gpt2dist.disk import locked, remove_partials, write_atomically, writing
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.run_files import (
    CONFIG_FILE,
    DRIVER_LOCK,
    LEDGER_FILE,
    LEDGER_LOCK,
    MLFLOW_FILE,
    OUTCOME_FILE,
    RANK_LOCK,
    ROWS_FILE,
    STOP_FILE,
    checkpoint_folders,
    checkpoint_record,
)
from gpt2dist.track.attempts import Spent
from gpt2dist.track.mlflow_read import stored_rows
from gpt2dist.track.mlflow_uri import tracking_uri
from gpt2dist.track.rows import Row, read_rows, write_rows


@contextmanager
def taken(run_dir: Path, config: Config, *, fresh: bool) -> Iterator[None]:
    """The folder, this driver's until the block ends: new, or a run of the same identity.

    With `fresh` an existing folder is kept under another name. Raises BadInput when the folder
    belongs to a different identity, naming what differs. A BadInput inside the block leaves
    everything as it was, unless rank 0 had begun.
    """
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    aside = _set_aside(run_dir) if fresh and run_dir.exists() else None
    written = run_dir / CONFIG_FILE
    is_new, ours = not written.exists(), [CONFIG_FILE, DRIVER_LOCK, RANK_LOCK, LEDGER_LOCK]
    if not (run_dir / LEDGER_FILE).exists():
        ours.append(LEDGER_FILE)
    if not is_new:
        _require_same(run_dir, load_dumped(written), config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailure(f"cannot write to the run folder {run_dir}: {error.strerror}") from None
    try:
        with locked(run_dir / DRIVER_LOCK, wait_seconds=5):
            # Held by workers of a killed driver that still write.
            with suppress(RunFailure), locked(run_dir / RANK_LOCK):
                remove_partials(run_dir)
            if is_new:
                write_atomically(written, dump(config))
            for leftover in (STOP_FILE, OUTCOME_FILE):
                with writing(run_dir / leftover):
                    (run_dir / leftover).unlink(missing_ok=True)
            yield
    except BadInput:
        if is_new and not (run_dir / ROWS_FILE).exists():
            for name in ours:
                (run_dir / name).unlink(missing_ok=True)
            with suppress(OSError):  # it was there before, or holds what is not ours
                for folder in [run_dir] if aside else made:
                    folder.rmdir()
                if aside:
                    aside.rename(run_dir)
        raise


class Vouched(NamedTuple):
    """What the newest checkpoint says of the files beside it."""

    by: str
    state: Mapping[str, Any]

    @property
    def spent(self) -> Spent:
        """Machines are not in it: only seconds and dollars count."""
        return Spent(self.state["seconds"], 0.0, self.state["usd"])


def vouched(run_dir: Path) -> Vouched | None:
    """Of the newest checkpoint whose record is whole; None without one."""
    for folder in checkpoint_folders(run_dir):
        with suppress(OSError, ValueError, KeyError):
            state = checkpoint_record(folder)["state"]
            return Vouched(f"checkpoint {folder.name}", {"rows": None, **state})
    return None


def restore_rows(run_dir: Path, config: Config, known: Vouched, say: Callable[[str], None]) -> None:
    """Says loudly which rows are lost, once MLflow has given back those that it holds."""
    path, last = run_dir / ROWS_FILE, known.state["step"]
    rows = {row["step"]: row for row in (read_rows(path) if path.exists() else [])}
    every = config.track.every_steps
    wanted = known.state["rows"]
    if wanted is None:  # of an early version
        wanted = min(1, last // every)
    here = sum(step <= last for step in rows)
    if here >= wanted:
        return
    found, trouble = _rows_of_mlflow(run_dir, config)
    added = {row["step"]: row for row in found if 0 < row["step"] <= last} | rows
    back = sum(step <= last for step in added) - here
    write_rows(path, [added[step] for step in sorted(added)])
    say(
        f"WARNING: {path} lacks {wanted - here:,} of the {wanted:,} rows that {known.by} vouches "
        f"for; {back:,} are back, as MLflow holds them{trouble}"
    )
    gaps = _gaps([0, *sorted(step for step in added if step <= last), last + 1], every)
    if here + back < wanted and gaps:
        say(f"WARNING: no rows from step {' and from step '.join(gaps)}: they are lost")


def _rows_of_mlflow(run_dir: Path, config: Config) -> tuple[list[Row], str]:
    """What MLflow holds of a run, and why it is nothing."""
    try:
        run_id = json.loads((run_dir / MLFLOW_FILE).read_text())["run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return [], f" (there is no {MLFLOW_FILE})"
    try:
        return stored_rows(tracking_uri(config, os.environ), run_id), ""
    except RunFailure as failure:
        return [], f" ({failure})"


def _gaps(steps: Sequence[int], every: int) -> list[str]:
    """Ranges without a step, longer than rows usually are apart."""
    return [
        f"{before + 1:,} to {after - 1:,}"
        for before, after in pairwise(steps)
        if after - before > every
    ]


def _set_aside(run_dir: Path) -> Path:
    visible = any(not path.name.startswith(".") for path in run_dir.iterdir())
    if visible and not (run_dir / CONFIG_FILE).is_file():
        raise BadInput(
            f"--fresh sets a run aside, and {run_dir} is none (no {CONFIG_FILE}); move it away "
            "yourself or use another --name"
        )
    with locked(run_dir / DRIVER_LOCK):
        stamp = time.strftime("%Y%m%d-%H%M%S")
        with writing(run_dir):
            return run_dir.rename(run_dir.with_name(f"{run_dir.name}.old-{stamp}"))


def open_run(run: str, runs_dir: str = "runs") -> tuple[Path, Config]:
    """The folder and config of a run given as a path or as a name below `runs_dir`."""
    for candidate in (Path(run), Path(runs_dir) / run):
        if (candidate / CONFIG_FILE).is_file():
            return candidate, load_dumped(candidate / CONFIG_FILE)
    known = sorted(path.parent.name for path in Path(runs_dir).glob(f"*/{CONFIG_FILE}"))
    hint = f"runs in {runs_dir}/: {', '.join(known)}" if known else f"there are none in {runs_dir}/"
    raise BadInput(f"no run at {run!r}; {hint}")


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
