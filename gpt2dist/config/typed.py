"""Plain trees of YAML, JSON or text to the typed dataclasses that they stand for."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gpt2dist.config.bounds import shown, value_problems
from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.human import parse_count

NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def build(kind: Any, tree: Any, prefix: str, where: str) -> Any:
    """The dataclass `kind` of a tree; BadInput for unknown keys and wrong types."""
    if not isinstance(tree, Mapping):
        raise BadInput(f"{prefix.rstrip('.')} must hold keys, not {shown(repr(tree))} (in {where})")
    hints = _hints(kind)
    values = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if key not in hints:
            raise unknown_key(path, key_paths() if prefix else list(hints), where)
        if dataclasses.is_dataclass(hints[key]):
            values[key] = build(hints[key], value or {}, f"{path}.", where)
        else:
            values[key] = convert(hints[key], value, path, where)
    return kind(**values)


def typed_value(path: str, value: Any, where: str) -> Any:
    """The value of one config key, its type and bounds checked."""
    return checked(key_type(path), path, where, value)


def checked(hint: Any, path: str, where: str, value: Any) -> Any:
    """`value` as the type `hint`, within its bounds; `path` and `where` name it in errors."""
    found = convert(hint, value, path, where)
    if found is not None:
        for problem in value_problems(hint, found, path):
            raise BadInput(f"{problem} (in {where})")
    return found


def key_type(path: str) -> Any:
    """What `section.key` is annotated with."""
    section, _, key = path.partition(".")
    return _hints(_hints(Config)[section])[key]


@functools.cache
def key_paths() -> list[str]:
    """Every `section.key` of a config."""
    return [
        f"{section}.{key}"
        for section, kind in _hints(Config).items()
        if section != "recipe"
        for key in _hints(kind)
    ]


def unknown_key(path: str, known: Sequence[str], where: str, cutoff: float = 0.5) -> BadInput:
    """Names the nearest key that there is."""
    near = [name for name in known if name.endswith(f".{path}")]
    near = near or difflib.get_close_matches(path, known, n=1, cutoff=cutoff)
    hint = f"; did you mean {near[0]}?" if near else "; see `gpt2dist config debug` for all keys"
    return BadInput(f"unknown config key {shown(path)}{hint} (in {where})")


def convert(hint: Any, value: Any, path: str, where: str) -> Any:
    """`value` as the type `hint`; YAML reads 6e-4 and 10B as text, users mean numbers."""
    kind, optional = base_type(hint)
    if value is None and optional:
        return None
    if get_origin(kind) is Literal:
        options = get_args(kind)
        if value in options and not isinstance(value, bool):
            return options[options.index(value)]
        raise BadInput(
            f"{path}={shown(value)} is none of {', '.join(map(str, options))} (in {where})"
        )
    found = whole_number(value) if kind is int else number(value) if kind is float else None
    if found is not None:
        return found
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise BadInput(f"{path}={shown(repr(value))} is not {NAMES[kind]} (in {where})")


def base_type(hint: Any) -> tuple[Any, bool]:
    """The type below `Annotated` and `... | None`, and whether None is one of its values."""
    if get_origin(hint) is Annotated:
        return base_type(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return base_type(next(o for o in get_args(hint) if o is not types.NoneType))[0], True
    return hint, False


def number(value: Any) -> float | None:
    """A number, also one written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, int):
        value = max(min(value, 10**308), -(10**308))  # float() ends there
    try:
        return float(value)
    except ValueError:
        return None


def whole_number(value: Any) -> int | None:
    """A whole number, also `10B`, `2.5k` and `1e9`; None for anything else."""
    if isinstance(value, str):
        try:
            return parse_count(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if value == value // 1 else None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
