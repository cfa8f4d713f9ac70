"""The folder of one run: made ready, claimed by a driver, opened by its name."""

from __future__ import annotations

import time
from pathlib import Path

from gpt2dist.config.load import dump, flatten, identity, load_dumped, to_tree
from gpt2dist.config.schema import IDENTITY_SECTIONS, Config
from gpt2dist.disk import locked, write_atomically, writing
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.run_files import CONFIG_FILE, DRIVER_LOCK, OUTCOME_FILE, STOP_FILE


def set_up(run_dir: Path, config: Config, *, fresh: bool) -> None:
    """Make the folder ready for `config`: new, or a run of the same identity to continue.

    With `fresh` an existing folder is kept under another name. Raises BadInput when the folder
    belongs to a different identity, naming what differs.
    """
    if fresh and run_dir.exists():
        visible = any(not path.name.startswith(".") for path in run_dir.iterdir())
        if visible and not (run_dir / CONFIG_FILE).is_file():
            raise BadInput(
                f"--fresh sets a run aside, and {run_dir} is none (no {CONFIG_FILE}); move it away "
                "yourself or use another --name"
            )
        with locked(run_dir / DRIVER_LOCK):
            stamp = time.strftime("%Y%m%d-%H%M%S")
            with writing(run_dir):
                run_dir.rename(run_dir.with_name(f"{run_dir.name}.old-{stamp}"))
    written = run_dir / CONFIG_FILE
    if written.exists():
        _require_same(run_dir, load_dumped(written), config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailure(f"cannot write to the run folder {run_dir}: {error.strerror}") from None


def claim(run_dir: Path, config: Config) -> None:
    """Write the config and remove what the last attempt left; call it under the driver's lock."""
    write_atomically(run_dir / CONFIG_FILE, dump(config))
    for leftover in (STOP_FILE, OUTCOME_FILE):
        with writing(run_dir / leftover):
            (run_dir / leftover).unlink(missing_ok=True)


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
