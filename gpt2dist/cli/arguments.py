"""Words that several verbs understand, and how a verb speaks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from gpt2dist.errors import BadInput
from gpt2dist.human import parse_count

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"What a verb adds its parser to."

T = TypeVar("T")

PROVIDERS = "lambda, runpod, vast, gcp or aws"


def add_recipe(
    verb: argparse.ArgumentParser, recipes: str = "debug, gpt2-124m, ... or a .yaml file"
) -> None:
    """RECIPE and the overrides after it."""
    verb.add_argument("recipe", metavar="RECIPE", help=recipes)
    verb.add_argument("overrides", nargs="*", metavar="a.b=value", help="config keys to change")


def count(text: str) -> int:
    """The type of options that count: `10B`, `300M`, `2.5k`, `1e9`."""
    try:
        return parse_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_runs_dir(
    verb: argparse.ArgumentParser, shown: str | None = "where runs lie (runs)"
) -> None:
    """--runs, the folder of all runs."""
    verb.add_argument("--runs", dest="runs_dir", default="runs", metavar="DIR", help=shown)


def add_many_runs(verb: argparse.ArgumentParser) -> None:
    """Any number of runs, all of them by default."""
    verb.add_argument("runs", nargs="*", metavar="RUN", help="folders or names; none: all")
    add_runs_dir(verb)
    verb.add_argument("--force", action="store_true", help="even where the runs do not compare")


def add_checkpoint(verb: argparse.ArgumentParser) -> None:
    """One run and which of its checkpoints."""
    verb.add_argument("run_folder", metavar="RUN", help="folder of a run, or its name")
    add_runs_dir(verb)
    verb.add_argument("--step", type=int, metavar="N", help="checkpoint of step N")
    verb.add_argument("--best", action="store_true", help="checkpoint of the lowest loss")


def add_device(verb: argparse.ArgumentParser) -> None:
    """--device of what runs in this process."""
    verb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def request(kind: Callable[..., T], arguments: argparse.Namespace, **given: object) -> T:
    """The dataclass `kind`, each field from `given` or from the argument of its name."""
    from dataclasses import fields

    words = {**vars(arguments), **given}
    return kind(**{field.name: words[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def split_on(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The hardware of `on=...` (None without it) and the other words."""
    named = [word.removeprefix("on=") for word in words if word.startswith("on=")]
    if len(named) > 1:
        raise BadInput(f"on={named[0]} and on={named[1]}: give one, or on=all")
    return (named[0] if named else None), [word for word in words if not word.startswith("on=")]


def say(text: str) -> None:
    """A line on stdout, at once; where that is a file on a full disk, later or never."""
    try:
        print(text, flush=True)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
