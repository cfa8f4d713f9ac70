"""Command lines that nobody can mean, made of the config's own schema and the verbs' own arguments.

A new key or argument is covered as soon as it is there. Every line is wrong for certain, whatever
the machine: a value of the wrong type or out of its bounds, a word that is unknown or missing, the
name of something that is not there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import yaml

from gpt2dist.cli.main import parser
from gpt2dist.config.bounds import AnyText, Bound, bounds_of
from gpt2dist.config.typed import base_type, key_paths, key_type
from gpt2dist.sweep.spec.sweep_file import SECTIONS

NOWHERE = "nowhere-é-😀"
SWEEP = "sweep.yaml"
NO_NUMBER = ["", "many", "nan", ".nan", "1e999", "9" * 500, "-" + "9" * 500, "[1]", "{a: 1}", "1;2",
             "0x1g", "1 2", "!!bool maybe", "[" * 400, "5B0", "\udcff", "１x", "--", "2026-11-26",
             "true"]  # fmt: skip
NOT_UTF8 = ["\udcff", "a\udc80b" * 40]
NO_LINE = ["", " ", "x" * 300, "d/" * 3000, "two\nlines", "\x1b[2J", "a\x7f", "\u2028", *NOT_UTF8,
           "http://me:hunter2@host:5000", "postgresql+psycopg://me:hunt/er2@db/x?a=b",
           "https://hunter2@host", "mysql://db/x?password=hunter2"]  # fmt: skip
NO_YAML = [b"model: {layers: [", b"\xff\xfe\x00", b"- model", b"model: 3", b"model: {layers: }",
           b"\x00", b"seed: 1", b"recipe: nobody", b"? [1, 2]\n: 3", b"!!python/name:os.system x",
           b"&a [*a]", b"a: &x {b: *x}", b"[" * 400, b"1: 2", b"model: !!bool maybe"]  # fmt: skip
PLACES = [NOWHERE, f"{NOWHERE}.yaml", f"../{NOWHERE}", f"/dev/null/{NOWHERE}", "empty", "text",
          "/dev/null", "x" * 255, "d/" * 2000 + "x", "~"]  # fmt: skip
VALID = {"recipe": "debug", "target": "debug", "file": SWEEP}


class BadLine(NamedTuple):
    words: list[str]
    named: str
    "What the error must speak of: a key, an argument, a word."
    files: dict[str, bytes] = {}  # noqa: RUF012
    "What lies in the folder before."


def wrong_values(hint: Any) -> Iterator[str]:
    """Words that a key or an argument of this type must refuse."""
    kind, optional = base_type(hint)
    if get_origin(kind) is Literal:
        yield from (*(f"{option}x" for option in get_args(kind)), "", "7", *NOT_UTF8)
    elif kind is bool:
        yield from ("", "maybe", "2", "[true]", "truee", *NOT_UTF8)
    elif kind is str:
        prose = any(isinstance(bound, AnyText) for bound in bounds_of(hint))
        yield from NOT_UTF8 if prose else NO_LINE
    else:
        yield from NO_NUMBER
        if not optional:
            yield "null"
        if kind is int:
            yield from ("1.5", "1e-3", "0.0005k")
        for bound in bounds_of(hint):
            assert isinstance(bound, Bound)
            for value in (bound.low - 1, -1e300, bound.high * 2, 1e300, bound.high + 1):
                if bound.problem(value):
                    yield str(int(value)) if kind is int else repr(value)
            yield from [repr(bound.low)] * bound.open_low + [repr(bound.high)] * bound.open_high


def bad_overrides() -> Iterator[tuple[str, str]]:
    """A word that changes a config, and what is wrong with it."""
    for path in key_paths():
        section, _, key = path.partition(".")
        for value in wrong_values(key_type(path)):
            quoted = json.dumps(value) if "\n" in value or value.isspace() else value
            yield f"{path}={quoted}", path
        for unknown in (
            f"{path}x",
            f"{path}.x",
            f"{path}\udcff",
            f" {path}",
            key,
            section,
        ):
            yield f"{unknown}=1", "config key"
        yield path, path
        yield f"={path}", path


def bad_files() -> Iterator[tuple[bytes, str]]:
    """A recipe's file, and what is wrong with it; the name of the file is always said."""
    for content in NO_YAML:
        yield content, "bad.yaml"
    for path in key_paths():
        section, _, key = path.partition(".")
        yield f"{section}: {{{key}: 1, {key}: 2}}".encode(), f"the key {key} is there twice"
        yield f"{section}: {{}}\n{section}: {{}}".encode(), f"the key {section} is there twice"
        yield f"{section}: {{{key}: {{a: [1]}}}}".encode(), path
        yield f"{section}: {{{key}x: 1}}".encode(), f"{path}x"
        yield f"{section}: [{key}]".encode(), section
        for value in wrong_values(key_type(path)):
            if value.isascii() and base_type(key_type(path))[0] is not str:
                yield yaml.safe_dump({section: {key: value}}).encode(), path


def leaves(of: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[Any]:
    """Every verb as its words and its parser."""
    below = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield words, of
    for action in below:
        for name, verb in action.choices.items():
            yield from leaves(verb, (*words, name))


def hint_of(action: argparse.Action) -> Any:
    """The type that a verb's argument was declared with; None for choices and flags."""
    return action.type.args[0] if isinstance(action.type, partial) else None


def takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def whole(words: tuple[str, ...], verb: argparse.ArgumentParser, but: str = "") -> list[str]:
    """The shortest line that a verb accepts, without the argument `but`."""
    line = [*words]
    for action in verb._actions:
        if action.required and action.nargs != "*" and action.dest != but:
            line += [*action.option_strings[:1], VALID.get(action.dest, NOWHERE)]
    return line


def bad_arguments(words: tuple[str, ...], verb: argparse.ArgumentParser) -> Iterator[BadLine]:
    """One wrong argument in a line of this verb that is right but for it."""
    for action in verb._actions:
        name = action.option_strings[0] if action.option_strings else str(action.metavar)
        base = whole(words, verb, but=action.dest)
        if action.dest == "help":
            continue
        if action.required and action.nargs != "*":
            yield BadLine(base, name)
        if action.option_strings:
            right = whole(words, verb)
            yield BadLine([*right, f"{name}-zz"], f"{name}-zz")
            yield BadLine([*right, *([name] if takes_value(action) else [f"{name}=1"])], name)
        if not takes_value(action) or action.dest == "overrides":
            continue
        for value in wrong_values(hint_of(action) or Literal[tuple(action.choices)]):  # type: ignore[misc]
            if action.option_strings:
                yield BadLine([*base, f"{name}={value}"], name)
                if not value.startswith("-"):
                    yield BadLine([*base, name, value], name)
            elif not value.startswith("-"):
                yield BadLine([*base, value], name)
    for group in verb._mutually_exclusive_groups:
        first, second, *_ = group._group_actions
        both = [[a.option_strings[0], "1"][: 1 + takes_value(a)] for a in (first, second)]
        yield BadLine([*whole(words, verb), *both[0], *both[1]], both[1][0])


def bad_places(words: tuple[str, ...], verb: argparse.ArgumentParser) -> Iterator[BadLine]:
    """Runs, files and recipes that are not there, or are something else."""
    local = ["--local"] * ("--local" in verb.format_usage())
    for action in verb._actions:
        if action.option_strings or action.dest == "overrides":
            continue
        base = whole(words, verb, but=action.dest)
        for place in PLACES:
            yield BadLine([*base, place, *local], place[:40])


def bad_lines() -> dict[str, list[BadLine]]:
    """All of them, by what they are made of."""
    recipes = {"config": ["debug"], "train": ["debug", "--local", "--name", "new"],
               "plan": ["debug", "on=A100"], "launch": ["debug", "on=A100", "--dry-run"],
               "tune": [SWEEP, "--dry-run"]}  # fmt: skip
    found = {
        f"{verb} override": [
            BadLine([verb, words[0], word, *words[1:]], named)
            for word, named in bad_overrides()
            if not word.startswith("-")
        ]
        for verb, words in recipes.items()
    }
    found["file"] = [
        BadLine([verb, "bad.yaml"], named, {"bad.yaml": content})
        for content, named in bad_files()
        for verb in ("config", "train", "plan", "launch")
    ]
    found["sweep"] = [
        BadLine(["tune", SWEEP, "--dry-run", f"sweep.{section}.{key}={value}"], f"{section}.{key}")
        for section, kind in SECTIONS.items()
        for key, hint in get_type_hints(kind, include_extras=True).items()
        for value in wrong_values(hint)
        if value and dataclasses.is_dataclass(kind)
    ]
    for words, verb in leaves(parser()):
        found[f"{' '.join(words)} argument"] = list(bad_arguments(words, verb))
        found[f"{' '.join(words)} place"] = list(bad_places(words, verb))
    found["verb"] = [BadLine([word], "COMMAND") for word in ("", "trian", "\udcff", "x" * 300)]
    return {kind: lines for kind, lines in found.items() if lines}


def drawn(count: int, seed: int) -> list[BadLine]:
    """As many of every kind, as far as there are."""
    draw, kinds = random.Random(seed), [*bad_lines().values()]
    for lines in kinds:
        draw.shuffle(lines)
    dealt = [line for rank in range(max(map(len, kinds))) for line in _rank(kinds, rank)]
    return dealt[:count]


def _rank(kinds: list[list[BadLine]], rank: int) -> list[BadLine]:
    return [lines[rank] for lines in kinds if rank < len(lines)]
