"""`gpt2dist tune`: a sweep within its budget."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_value, request, say
from gpt2dist.config.schema import Text, Usd


def add_parser(verbs: Verbs) -> None:
    """`tune FILE [a.b=value ...]`."""
    verb = verbs.add_parser(
        "tune",
        help="a sweep over configs that is priced before it starts and keeps to its budget",
        description="Run a sweep file such as tune/debug.yaml with Ray Tune. It says what all "
        "trials will cost, refuses what the budget cannot hold, and goes on with --resume.",
    )
    add_value(verb, "file", Text, metavar="FILE", help="tune/....yaml")
    verb.add_argument("overrides", nargs="*", metavar="a.b=value", help="config keys of all trials")
    add_value(verb, "--usd", Usd, metavar="X", help="hard limit of the whole sweep")
    verb.add_argument("--dry-run", action="store_true", help="trials and price; start nothing")
    again = verb.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue an interrupted sweep")
    again.add_argument("--fresh", action="store_true", help="set an earlier one aside")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a sweep file within its budget."""
    from gpt2dist.sweep.run import SweepRequest, run_sweep

    return run_sweep(request(SweepRequest, arguments), say)
