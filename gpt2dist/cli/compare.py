"""`gpt2dist compare`: what runs cost and reached."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_many_runs, add_value, request, say
from gpt2dist.config.schema import Positive, Text


def add_parser(verbs: Verbs) -> None:
    """`compare [RUN ...]`."""
    verb = verbs.add_parser(
        "compare",
        help="validation loss against dollars, hours, tokens or FLOPs of many runs",
        description="Compare runs: a table, the frontier, and a page that works offline.",
    )
    add_many_runs(verb)
    add_value(verb, "--experiment", Text, metavar="NAME", help="read an MLflow experiment instead")
    add_value(verb, "--sweep", Text, metavar="NAME", help="all trials of a sweep")
    verb.add_argument(
        "--x", dest="axis", choices=("usd", "hours", "tokens", "flops"), default="usd"
    )
    add_value(verb, "--loss", Positive, metavar="L", help="say what reaching L took")
    add_value(verb, "--html", Text, metavar="FILE", help="write the page")
    add_value(verb, "--png", Text, metavar="FILE", help="write the picture")
    add_value(verb, "--csv", Text, metavar="FILE", help="write the table")
    verb.add_argument("--json", action="store_true", help="print everything as JSON")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Table, frontier and page of what runs cost and reached."""
    from gpt2dist.compare.command import CompareRequest, compare

    return compare(request(CompareRequest, arguments), say)
