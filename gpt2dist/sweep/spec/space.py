"""Read the space of a sweep file: config keys, and the values that each may take."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from gpt2dist.config.typed import key_paths, number, typed_value, unknown_key
from gpt2dist.errors import BadInput
from gpt2dist.sweep.spec.sweep import Dimension, Listed, Range

LISTS, RANGES = ("grid", "choice"), ("uniform", "loguniform", "int")
NOT_SWEPT = {
    "train.seed": "name the seeds of every point in `seeds`",
    "budget": "the sweep's own budget limits every trial",
    "paths": "a sweep keeps its runs in one place",
    "track": "a sweep keeps its runs in one place",
    "recipe": "name it in `base`",
}


def read_space(tree: Any, where: str) -> tuple[Dimension, ...]:
    """The space of a sweep file: `{path: {kind: values}}`, or `"path, path"` for linked values.

    Raises BadInput for unknown keys, empty lists and impossible ranges.
    """
    if not isinstance(tree, Mapping) or not tree:
        raise BadInput(
            f"space={tree!r} must name what is swept, such as "
            f"optim.peak_lr: {{grid: [3e-4, 6e-4]}} (in {where})"
        )
    space = tuple(_dimension(str(key), value, where) for key, value in tree.items())
    paths = [path for dimension in space for path in dimension.paths]
    for path in paths:
        if paths.count(path) > 1:
            raise BadInput(f"space names {path} twice (in {where})")
    return space


def nearest(word: str, known: Collection[str], prefix: str = "") -> str:
    """What a misspelled word may have meant."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {prefix}{near[0]}?" if near else f"there are {', '.join(known)}"


def _dimension(key: str, tree: Any, where: str) -> Dimension:
    paths = tuple(part.strip() for part in key.split(","))
    for path in paths:
        _check_path(path, where)
    if not isinstance(tree, Mapping) or len(tree) != 1:
        raise BadInput(
            f"space.{key}={tree!r} must be one of {', '.join(LISTS + RANGES)} with its values, "
            f"such as {{grid: [1, 2]}} (in {where})"
        )
    kind, values = next(iter(tree.items()))
    if kind in LISTS:
        return _listed(key, paths, kind, values, where)
    if kind in RANGES:
        return _range(key, paths, kind, values, where)
    hint = nearest(str(kind), LISTS + RANGES)
    raise BadInput(f"space.{key}: unknown kind {kind!r}; {hint} (in {where})")


def _check_path(path: str, where: str) -> None:
    reason = NOT_SWEPT.get(path) or NOT_SWEPT.get(path.partition(".")[0])
    if reason:
        raise BadInput(f"space.{path} cannot be swept: {reason} (in {where})")
    if path not in key_paths():
        raise unknown_key(path, key_paths(), where, cutoff=0.4)


def _listed(key: str, paths: tuple[str, ...], kind: Any, values: Any, where: str) -> Listed:
    if not isinstance(values, list) or not values:
        raise BadInput(f"space.{key}: {kind}={values!r} is empty; list its values (in {where})")
    options = [tuple(value) if isinstance(value, list) else (value,) for value in values]
    for at, option in enumerate(options):
        if len(option) != len(paths) or any(isinstance(v, (list, dict)) for v in option):
            wanted = f"lists of {len(paths)} values" if len(paths) > 1 else "single values"
            raise BadInput(f"space.{key}: {kind} must list {wanted}, not {option} (in {where})")
        typed = tuple(typed_value(p, v, where) for p, v in zip(paths, option))
        options[at] = typed
        if options.index(typed) < at:
            raise BadInput(f"space.{key}: {kind} lists {typed} twice (in {where})")
    return Listed(paths, tuple(options))


def _range(key: str, paths: tuple[str, ...], kind: Any, values: Any, where: str) -> Range:
    if len(paths) > 1:
        raise BadInput(f"space.{key}: linked keys need grid or choice, not {kind} (in {where})")
    ends = [number(value) for value in values] if isinstance(values, list) else []
    if len(ends) != 2 or None in ends:
        raise BadInput(f"space.{key}: {kind}={values!r} must be [low, high] (in {where})")
    low, high = (end or 0.0 for end in ends)
    if not low < high:
        raise BadInput(f"space.{key}: {kind}=[{low:g}, {high:g}] is empty (in {where})")
    if kind == "loguniform" and low <= 0:
        raise BadInput(f"space.{key}: loguniform needs a low end above 0, not {low:g} (in {where})")
    if kind == "int" and not (low.is_integer() and high.is_integer()):
        raise BadInput(f"space.{key}: int needs whole numbers, not {values!r} (in {where})")
    return Range((paths[0],), kind, low, high)
