"""`gpt2dist tune`, `compare` and `fit`: many runs at once."""

from __future__ import annotations

import argparse


def tune(arguments: argparse.Namespace) -> int:
    """Run a sweep file within its budget."""
    from gpt2dist.sweep.run import SweepRequest, run_sweep

    request = SweepRequest(
        file=arguments.file,
        overrides=arguments.overrides,
        usd=arguments.usd,
        dry_run=arguments.dry_run,
        resume=arguments.resume,
        fresh=arguments.fresh,
    )
    return run_sweep(request, _say)


def compare(arguments: argparse.Namespace) -> int:
    """Table, frontier and page of what runs cost and reached."""
    from gpt2dist.compare.command import CompareRequest, compare

    request = CompareRequest(
        runs=arguments.runs_named,
        experiment=arguments.experiment,
        sweep=arguments.sweep,
        runs_dir=arguments.runs,
        axis=arguments.x,
        loss=arguments.loss,
        html=arguments.html,
        png=arguments.png,
        csv=arguments.csv,
        json=arguments.json,
        force=arguments.force,
    )
    return compare(request, _say)


def fit(arguments: argparse.Namespace) -> int:
    """The scaling law of one's own runs, kept where the planner finds it."""
    from gpt2dist.compare.fit_command import FitRequest, fit

    request = FitRequest(runs=arguments.runs_named, runs_dir=arguments.runs, force=arguments.force)
    return fit(request, _say)


def _say(text: str) -> None:
    print(text, flush=True)
