"""`gpt2dist track`: the MLflow records of a run."""

from __future__ import annotations

import argparse
import os

from gpt2dist.cli.arguments import Verbs, add_runs_dir, add_value
from gpt2dist.config.schema import Text


def add_parser(verbs: Verbs) -> None:
    """`track sync RUN`."""
    track = verbs.add_parser("track", help="MLflow records of a run")
    track_verbs = track.add_subparsers(dest="track_verb", metavar="COMMAND", required=True)
    sync = track_verbs.add_parser("sync", help="bring MLflow up to date from the run's rows")
    add_value(sync, "run_folder", Text, metavar="RUN")
    add_runs_dir(sync, None)
    sync.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Bring MLflow up to date from the run's rows."""
    from gpt2dist.track.mlflow_log import sync
    from gpt2dist.track.mlflow_uri import tracking_uri
    from gpt2dist.train.run_folder import open_run

    run_dir, config = open_run(arguments.run_folder, arguments.runs_dir)
    report = sync(run_dir, config, tracking_uri(config, os.environ))
    artifacts = ", ".join(report.artifacts) or "none"
    print(
        f"MLflow run {report.run_id} at {report.uri}: {report.rows:,} rows sent, last step "
        f"{report.last_step}, artifacts: {artifacts}, status {report.status}"
    )
    return 0
