"""`gpt2dist compare`: what runs cost and reached."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_many_runs, request, say


def add_parser(verbs: Verbs) -> None:
    """`compare [RUN ...]`."""
    verb = verbs.add_parser(
        "compare",
        help="validation loss against dollars, hours, tokens or FLOPs of many runs",
        description="Compare runs: a table, the frontier, and a page that works offline.",
    )
    add_many_runs(verb)
    verb.add_argument("--experiment", metavar="NAME", help="read an MLflow experiment instead")
    verb.add_argument("--sweep", metavar="NAME", help="all trials of a sweep")
    verb.add_argument(
        "--x", dest="axis", choices=("usd", "hours", "tokens", "flops"), default="usd"
    )
    verb.add_argument("--loss", type=float, metavar="L", help="say what reaching L took")
    verb.add_argument("--html", metavar="FILE", help="write the page")
    verb.add_argument("--png", metavar="FILE", help="write the picture")
    verb.add_argument("--csv", metavar="FILE", help="write the table")
    verb.add_argument("--json", action="store_true", help="print everything as JSON")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Table, frontier and page of what runs cost and reached."""
    from gpt2dist.compare.command import CompareRequest, compare

    return compare(request(CompareRequest, arguments), say)
