"""Runs read from their folders: config, summary, ledger, and of the rows those that were evaluated.

Written for a thousand folders: nothing is parsed that is not shown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from gpt2dist.compare.read.run_record import Run, make_run, summary_of_rows
from gpt2dist.config.load import from_record
from gpt2dist.config.schema import IDENTITY_SECTIONS, Config
from gpt2dist.errors import BadInput
from gpt2dist.run_files import CONFIG_FILE, LEDGER_FILE, ROWS_FILE, SUMMARY_FILE, SWEEPS
from gpt2dist.track.attempts import Attempt, read_attempts, total_spent
from gpt2dist.track.ledger import Account
from gpt2dist.track.rows import read_rows
from gpt2dist.track.summary import read_summary

SET_ASIDE = ".old-"
"In the name of a folder that `train --fresh` moved away."
SECTIONS = (*IDENTITY_SECTIONS, "recipe", "eval", "paths")
"What of a config a comparison needs."
TOP_LEVEL = re.compile(rb"^(?=\S)", re.MULTILINE)
WANTED = tuple(f"{key}:".encode() for key in SECTIONS)

# With libyaml five times as fast.
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def named_runs(names: Iterable[str], runs_dir: Path) -> list[Path]:
    """The folders of runs given as paths or as names below `runs_dir`, each once."""
    found: dict[Path, None] = {}
    for name in names:
        for candidate in (Path(name), runs_dir / name):
            if (candidate / CONFIG_FILE).is_file():
                found[candidate] = None
                break
        else:
            raise BadInput(_no_run(name, runs_dir))
    return list(found)


def runs_in(runs_dir: Path, *, deep: bool = False) -> list[Path]:
    """Run folders in `runs_dir`, with `deep` also those of sweeps; none that was set aside."""
    pattern = f"**/{CONFIG_FILE}" if deep else f"*/{CONFIG_FILE}"
    folders = sorted(path.parent for path in runs_dir.glob(pattern))
    found = [
        folder
        for folder in folders
        if SET_ASIDE not in folder.name and (folder / ROWS_FILE).is_file()
    ]
    if not found:
        raise BadInput(f"no runs in {runs_dir}/; train one first, or name their folder with --runs")
    return found


def sweep_runs(sweep: str, runs_dir: Path) -> list[Path]:
    """The run folders of all trials of a sweep."""
    folder = runs_dir / SWEEPS / sweep
    if not folder.is_dir():
        known = sorted(path.name for path in (runs_dir / SWEEPS).glob("*") if path.is_dir())
        hint = f"there are: {', '.join(known)}" if known else f"there are none in {runs_dir}/"
        raise BadInput(f"no sweep {sweep!r} in {runs_dir / SWEEPS}/; {hint}")
    return runs_in(folder, deep=True)


def read_run(folder: Path) -> Run:
    """The record of one run folder; BadInput or RunFailure names what is damaged in it."""
    config = _read_config(folder / CONFIG_FILE)
    rows = _read_rows(folder / ROWS_FILE)
    summary: Mapping[str, Any] | None = None
    if (folder / SUMMARY_FILE).is_file():
        summary = read_summary(folder)
    last_step = rows[-1]["step"] if rows else 0
    if summary is None or last_step > summary.get("steps", 0):  # it goes on after that summary
        rows = read_rows(folder / ROWS_FILE)
        summary = summary_of_rows(folder.name, config.recipe, rows)
    attempts = read_attempts(folder / LEDGER_FILE) if (folder / LEDGER_FILE).is_file() else []
    try:
        usd = Account(attempts).known_usd if attempts else None
        spent = {"usd": usd, "gpu_hours": _gpu_hours(attempts, summary["workers"])}
        whole = {**summary, **spent, "run": folder.name, "where": str(folder)}
        return make_run(config, whole, rows)
    except KeyError as error:
        raise BadInput(
            f"{folder / SUMMARY_FILE} lacks {error}; it is of another version: run the command "
            "that trained this run once more, it only writes the summary again"
        ) from None


def _gpu_hours(attempts: list[Attempt], workers: int | None) -> float | None:
    """Hours times GPUs; machines of earlier attempts count with as many GPUs as the last ones."""
    if not attempts or workers is None:
        return None
    per_machine = workers / attempts[-1].machines
    return total_spent(attempts).machine_seconds / 3600 * per_machine


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows with an evaluation and the last one; all of them to name damage."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; is this a run's folder?") from None
    found = _evaluated_rows(content)
    return read_rows(path) if found is None else found


def _evaluated_rows(content: bytes) -> list[dict[str, Any]] | None:
    """Without parsing the other rows; None where the lines do not look like whole rows."""
    looks_whole = (
        content.startswith(b"{")
        and content.endswith(b"}\n")
        and content.count(b"}\n{") == content.count(b"\n") - 1
    )
    if not looks_whole:
        return None
    rows, end, last = [], 0, content.rfind(b"\n", 0, -1) + 1
    while (at := content.find(b'"val_loss"', end)) >= 0:
        start, end = content.rfind(b"\n", end, at) + 1 or end, content.find(b"\n", at)
        rows.append(content[start:end])
    if not end or end <= last:
        rows.append(content[last:])
    try:
        return [json.loads(row) for row in rows]
    except ValueError:
        return None


def _read_config(path: Path) -> Config:
    """The sections that matter here, as `config.load.load_dumped` would read them."""
    try:
        content = path.read_bytes()
        blocks = [block for block in TOP_LEVEL.split(content) if block.startswith(WANTED)]
        trees = [_parsed(block) for block in blocks or [content]]
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if not all(isinstance(tree, dict) for tree in trees):
        raise BadInput(f"{path} is not the config of a run")
    sections = {key: value for tree in trees for key, value in tree.items()}
    return from_record({key: sections[key] for key in SECTIONS if key in sections}, str(path))


@lru_cache(maxsize=10_000)
def _parsed(block: bytes) -> Any:
    """Most runs of a comparison have most of their sections in common."""
    return yaml.load(block, Loader=_YamlLoader)


def _no_run(name: str, runs_dir: Path) -> str:
    if Path(name).is_dir() or (runs_dir / name).is_dir():
        folder = name if Path(name).is_dir() else str(runs_dir / name)
        return (
            f"{folder} is a folder but no run's (no {CONFIG_FILE} in it); name a run, "
            f"or all of them with --runs {folder}"
        )
    known = sorted(os.path.basename(path.parent) for path in runs_dir.glob(f"*/{CONFIG_FILE}"))
    if not known:
        return f"no run at {name!r}; there are none in {runs_dir}/"
    shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    return f"no run at {name!r}; runs in {runs_dir}/: {shown}"
