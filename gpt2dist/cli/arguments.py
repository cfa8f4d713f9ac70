"""Words that several verbs understand, and how a verb speaks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from gpt2dist.config.schema import Step, Text
from gpt2dist.config.typed import checked
from gpt2dist.errors import BadInput

Arguments: TypeAlias = "argparse.ArgumentParser | argparse._MutuallyExclusiveGroup"
"What arguments are added to."

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"What a verb adds its parser to."

T = TypeVar("T")

PROVIDERS = "lambda, runpod, vast, gcp or aws"


def add_recipe(
    verb: argparse.ArgumentParser, recipes: str = "debug, gpt2-124m, ... or a .yaml file"
) -> None:
    """RECIPE and the overrides after it."""
    add_value(verb, "recipe", Text, metavar="RECIPE", help=recipes)
    verb.add_argument("overrides", nargs="*", metavar="a.b=value", help="config keys to change")


def add_value(verb: Arguments, name: str, hint: object, **words: Any) -> None:
    """An argument of the type and within the bounds of `hint`, as the config's own keys are."""
    said = name if name.startswith("-") else words["metavar"]
    verb.add_argument(name, type=partial(checked, hint, said, "the command line"), **words)


def add_runs_dir(
    verb: argparse.ArgumentParser, shown: str | None = "where runs lie (runs)"
) -> None:
    """--runs, the folder of all runs."""
    add_value(verb, "--runs", Text, dest="runs_dir", default="runs", metavar="DIR", help=shown)


def add_many_runs(verb: argparse.ArgumentParser) -> None:
    """Any number of runs, all of them by default."""
    add_value(verb, "runs", Text, nargs="*", metavar="RUN", help="folders or names; none: all")
    add_runs_dir(verb)
    verb.add_argument("--force", action="store_true", help="even where the runs do not compare")


def add_checkpoint(verb: argparse.ArgumentParser) -> None:
    """One run and which of its checkpoints."""
    add_value(verb, "run_folder", Text, metavar="RUN", help="folder of a run, or its name")
    add_runs_dir(verb)
    add_value(verb, "--step", Step, metavar="N", help="checkpoint of step N")
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
