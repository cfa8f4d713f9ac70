"""`gpt2dist launch`: rent what a plan needs, and look after it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpt2dist.cli.plan_command import split_on
from gpt2dist.errors import BadInput


def launch(arguments: argparse.Namespace) -> int:
    """Launch a recipe or a task file; or `status`, `logs NAME`, `stop NAME` of earlier ones."""
    if arguments.target in ("status", "logs", "stop"):
        return _look_after(arguments)
    from gpt2dist.launch.start import LaunchRequest, launch

    on, overrides = split_on(arguments.overrides)
    request = LaunchRequest(
        target=arguments.target,
        overrides=tuple(overrides),
        on=on,
        usd=arguments.usd,
        spot=arguments.spot,
        provider=arguments.provider,
        bucket=arguments.bucket,
        data=arguments.data,
        name=arguments.name,
        runs=arguments.runs,
        dry_run=arguments.dry_run,
        yes=arguments.yes,
    )
    return launch(request, _say, _confirm if sys.stdin.isatty() else None)


def _look_after(arguments: argparse.Namespace) -> int:
    from gpt2dist.launch import control

    verb, names, runs = arguments.target, arguments.overrides, Path(arguments.runs)
    if verb == "status":
        if names:
            raise BadInput(f"launch status takes no name ({names[0]}): it shows every launch")
        _say(control.status(runs))
        return 0
    if len(names) != 1:
        raise BadInput(f"launch {verb} needs the name of one launch; `launch status` shows them")
    if verb == "logs":
        return control.logs(names[0], runs)
    return control.stop(names[0], runs, _say)


def _confirm(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _say(text: str) -> None:
    print(text, flush=True)
