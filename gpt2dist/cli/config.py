"""`gpt2dist config`: the resolved config of a recipe."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_recipe


def add_parser(verbs: Verbs) -> None:
    """`config RECIPE`."""
    verb = verbs.add_parser("config", help="print the resolved config of a recipe")
    add_recipe(verb)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print identity, default run name and every key."""
    from gpt2dist.config.load import dump, identity, resolve, run_name

    config = resolve(arguments.recipe, arguments.overrides)
    print(f"# identity {identity(config)}, run name {run_name(config)}")
    print(dump(config), end="")
    return 0
