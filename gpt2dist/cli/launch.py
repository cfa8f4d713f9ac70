"""`gpt2dist launch`: rent what a plan needs, and look after it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpt2dist.cli.arguments import PROVIDERS, Verbs, add_runs_dir, add_value, request, say, split_on
from gpt2dist.config.schema import Hours, Text, Usd
from gpt2dist.errors import BadInput


def add_parser(verbs: Verbs) -> None:
    """`launch RECIPE on=...`, `launch FILE` and `launch status|logs|stop`."""
    verb = verbs.add_parser(
        "launch",
        help="rent what a plan needs and train there; never beyond a budget",
        description="Launch a recipe (with on=GPU:COUNT) or a task file such as "
        "sky/a100_124m.yaml through SkyPilot: the priced plan is shown and asked about first. "
        "`launch status`, `launch logs NAME` and `launch stop NAME` look after what was launched.",
    )
    add_value(verb, "target", Text, metavar="RECIPE|FILE|status|logs|stop")
    verb.add_argument("overrides", nargs="*", metavar="on=... a.b=value", help="or the NAME")
    add_value(verb, "--usd", Usd, metavar="X", help="hard limit in dollars")
    add_value(
        verb,
        "--hours",
        Hours,
        metavar="H",
        help="the longest that machines are paid for (1.5 x the plan's upper end)",
    )
    verb.add_argument("--spot", action="store_true", help="spot machines; needs --bucket")
    add_value(verb, "--provider", Text, metavar="P", help=PROVIDERS)
    add_value(
        verb, "--bucket", Text, metavar="URL", help="where runs are kept: s3://... or gs://..."
    )
    add_value(verb, "--data", Text, metavar="URL", help="prepared shards: s3://... or gs://...")
    add_value(verb, "--name", Text, help="name of the launch (default: from recipe and GPU)")
    add_runs_dir(verb, "where records lie (runs)")
    verb.add_argument("--dry-run", action="store_true", help="show plan and task, rent nothing")
    verb.add_argument("--yes", action="store_true", help="do not ask")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Launch a recipe or a task file; or `status`, `logs NAME`, `stop NAME` of earlier ones."""
    if arguments.target in ("status", "logs", "stop"):
        return _look_after(arguments)
    from gpt2dist.launch.order import LaunchRequest
    from gpt2dist.launch.start import launch

    on, overrides = split_on(arguments.overrides)
    wish = request(
        LaunchRequest, arguments, on=on, overrides=tuple(overrides), runs=arguments.runs_dir
    )
    return launch(wish, say, _confirm if sys.stdin.isatty() else None)


def _look_after(arguments: argparse.Namespace) -> int:
    from gpt2dist.launch import control

    verb, names, runs = arguments.target, arguments.overrides, Path(arguments.runs_dir)
    if verb == "status":
        if names:
            raise BadInput(f"launch status takes no name ({names[0]}): it shows every launch")
        say(control.status(runs))
        return 0
    if len(names) != 1:
        raise BadInput(f"launch {verb} needs the name of one launch; `launch status` shows them")
    if verb == "logs":
        return control.logs(names[0], runs)
    return control.stop(names[0], runs, say)


def _confirm(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
