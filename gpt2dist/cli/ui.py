"""`gpt2dist ui`: MLflow on the local runs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Annotated

from gpt2dist.cli.arguments import Verbs, add_runs_dir, add_value
from gpt2dist.config.bounds import at_least
from gpt2dist.errors import BadInput

PORT = Annotated[int, at_least(1, most=65_535, why="TCP has no more")]


def add_parser(verbs: Verbs) -> None:
    """`ui`."""
    verb = verbs.add_parser("ui", help="open MLflow on the local runs")
    add_runs_dir(verb, None)
    add_value(verb, "--port", PORT, default=5000)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve MLflow until Ctrl-C."""
    import subprocess

    from gpt2dist.track.mlflow_uri import default_uri, ui_command, ui_environment

    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri(Path(arguments.runs_dir))
    command = ui_command(uri, arguments.port)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise BadInput(
            f"no MLflow store in {arguments.runs_dir}/ yet; train a run first, or give --runs"
        )
    print(f"MLflow on http://127.0.0.1:{arguments.port} (Ctrl-C ends it)", flush=True)
    environment = {**os.environ, **ui_environment(uri)}
    return subprocess.run(command, env=environment, check=False).returncode
