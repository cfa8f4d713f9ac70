"""`gpt2dist compare`: which runs, what to say of them, and which files to write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2dist.compare.read.run_folders import named_runs, read_run, runs_in, sweep_runs
from gpt2dist.compare.read.run_record import AXES, Axis, Run
from gpt2dist.compare.show.table import csv_text, json_tree, text_lines
from gpt2dist.compare.stats.comparison import Comparison, compare_runs
from gpt2dist.disk import write_atomically
from gpt2dist.errors import BadInput


@dataclass(frozen=True)
class CompareRequest:
    runs: Sequence[str] = ()
    "Folders, or names below runs_dir; none: all runs in runs_dir."
    experiment: str | None = None
    "Read this MLflow experiment instead of folders."
    sweep: str | None = None
    runs_dir: str = "runs"
    axis: Axis = "usd"
    loss: float | None = None
    "Also say what each run had spent when its validation loss was this."
    html: str | None = None
    png: str | None = None
    csv: str | None = None
    json: bool = False
    "Print JSON instead of tables."
    force: bool = False


def compare(request: CompareRequest, say: Callable[[str], None]) -> int:
    """Reads, compares and writes what was asked for; BadInput for runs that do not compare."""
    if request.axis not in AXES:
        raise BadInput(f"--x {request.axis} is none of {', '.join(AXES)}")
    if request.loss is not None and not request.loss > 0:
        raise BadInput(f"--loss {request.loss} must be above 0")
    comparison = compare_runs(read_runs(request), target_loss=request.loss, force=request.force)
    if request.json:
        say(json.dumps(json_tree(comparison), indent=1, allow_nan=False))
    else:
        for line in text_lines(comparison, request.axis):
            say(line)
    written = _write_files(request, comparison)
    if written and not request.json:
        say(f"written: {', '.join(written)}")
    return 0


def read_runs(request: CompareRequest) -> list[Run]:
    """The runs that a request names, from folders or from MLflow."""
    ways = {"RUN": request.runs, "--experiment": request.experiment, "--sweep": request.sweep}
    asked = [way for way, given in ways.items() if given]
    if len(asked) > 1:
        raise BadInput(f"{' and '.join(asked)} name runs in different ways; give one of them")
    runs_dir = Path(request.runs_dir)
    if request.experiment:
        from gpt2dist.compare.read.mlflow_runs import experiment_runs
        from gpt2dist.track.mlflow_uri import URI_VARIABLE, default_uri

        uri = os.environ.get(URI_VARIABLE) or default_uri(runs_dir)
        return experiment_runs(uri, request.experiment)
    if request.sweep:
        folders = sweep_runs(request.sweep, runs_dir)
    elif request.runs:
        folders = named_runs(request.runs, runs_dir)
    else:
        folders = runs_in(runs_dir)
    return [read_run(folder) for folder in folders]


def _write_files(request: CompareRequest, comparison: Comparison) -> list[str]:
    if request.csv:
        write_atomically(Path(request.csv), csv_text(comparison))
    if request.png:
        from gpt2dist.compare.show.picture import draw_frontier

        draw_frontier(comparison, request.axis, Path(request.png))
    if request.html:
        from gpt2dist.compare.show.page import page

        write_atomically(Path(request.html), page(comparison, request.axis))
    return [path for path in (request.csv, request.png, request.html) if path]
