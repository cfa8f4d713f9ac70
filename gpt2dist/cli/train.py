"""`gpt2dist train`: one run, begun or continued."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_recipe, add_value, say
from gpt2dist.config.schema import Text
from gpt2dist.run_files import require_name


def add_parser(verbs: Verbs) -> None:
    """`train RECIPE [a.b=value ...]`."""
    verb = verbs.add_parser(
        "train",
        help="train a recipe; the same command continues an interrupted run",
        description="Train a recipe or a YAML file. Interrupt with Ctrl-C: it saves and leaves.",
    )
    add_recipe(verb)
    add_value(verb, "--name", Text, help="name of the run's folder (default: recipe and identity)")
    verb.add_argument("--fresh", action="store_true", help="set an existing run aside, start anew")
    verb.add_argument(
        "--local", action="store_true", help="one device in this process, without Ray and MLflow"
    )
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train until the run's end, its budget or an interruption."""
    from gpt2dist.config.load import resolve

    config = resolve(arguments.recipe, arguments.overrides)  # before anything slow is imported
    from gpt2dist.train.driver import Launch, train

    if arguments.name is not None:
        require_name(arguments.name, "--name")
    launch = Launch(arguments.name, arguments.fresh, arguments.local, arguments.started_at)
    return train(config, launch, say=say).exit_code
