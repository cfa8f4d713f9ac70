"""`gpt2dist fit`: the scaling law of one's own runs."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_many_runs, request, say


def add_parser(verbs: Verbs) -> None:
    """`fit [RUN ...]`."""
    verb = verbs.add_parser("fit", help="a scaling law from your own runs, for the planner")
    add_many_runs(verb)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The scaling law of one's own runs, kept where the planner finds it."""
    from gpt2dist.compare.fit_command import FitRequest, fit

    return fit(request(FitRequest, arguments), say)
