"""Read, override, check and write configs. Precedence: defaults < recipe < file < `a.b=value`."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import types
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from gpt2dist.config.schema import IDENTITY_SECTIONS, Config
from gpt2dist.config.validate import check
from gpt2dist.errors import BadInput

Tree = dict[str, Any]


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("gpt2dist.config") / "recipes"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def resolve(recipe: str, overrides: Sequence[str] = ()) -> Config:
    """The config of a recipe name or a YAML file, with `a.b=value` overrides applied.

    A file may name the recipe it starts from with the key `recipe`.
    Raises BadInput naming key, value, place and the nearest valid key.
    """
    tree: Tree = {}
    if recipe.endswith((".yaml", ".yml")):
        own = _read_yaml(Path(recipe))
        base = own.get("recipe", "custom")
        if base != "custom":
            _merge(tree, _read_recipe(str(base)))
        _merge(tree, own)
        tree["recipe"] = base
        where = recipe
    else:
        _merge(tree, _read_recipe(recipe))
        tree["recipe"] = recipe
        where = f"recipe {recipe}"
    for override in overrides:
        _set_path(tree, override)
    config = from_tree(tree, where)
    check(config)
    return config


def from_tree(tree: Mapping[str, Any], where: str) -> Config:
    """The typed config of plain nested dicts; `where` names their origin in errors."""
    return _build(Config, tree, prefix="", where=where)


def to_tree(config: Config) -> Tree:
    """Plain nested dicts, ready for YAML, JSON or MLflow."""
    return dataclasses.asdict(config)


def dump(config: Config) -> str:
    """The config as YAML that `resolve` reads back to an equal one."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def load_dumped(path: Path) -> Config:
    """The config that a run wrote beside itself."""
    return from_tree(_read_yaml(path), str(path))


def identity(config: Config) -> str:
    """16 hexadecimal digits that depend only on what is learned, never on where."""
    learned = {section: to_tree(config)[section] for section in IDENTITY_SECTIONS}
    text = json.dumps(learned, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_name(config: Config) -> str:
    """Default name of the run's folder: recipe and the first digits of its identity."""
    return f"{config.recipe}-{identity(config)[:8]}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(config: Config, base: Config) -> list[str]:
    """The overrides that make `config` of `base`."""
    old = flatten(to_tree(base))
    new = flatten(to_tree(config))
    return [
        f"{path}={_word(value)}"
        for path, value in new.items()
        if value != old[path] and path != "recipe"
    ]


def _word(value: object) -> str:
    """A value as an override spells it: plain text where YAML reads it back as that text."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if value and yaml.safe_load(value) == value else json.dumps(value)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read_recipe(name: str) -> Tree:
    names = recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadInput(
            f"unknown recipe {name!r}; {hint}recipes: {', '.join(names)}; or give a .yaml file"
        )
    text = (resources.files("gpt2dist.config") / "recipes" / f"{name}.yaml").read_text()
    return yaml.safe_load(text) or {}


def _read_yaml(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"no such config file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read config file {path}: {error}") from None
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise BadInput(f"{path} is not valid YAML: {line}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise BadInput(f"{path} must hold `section: {{key: value}}`, not {type(tree).__name__}")
    return tree


def _merge(tree: Tree, other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value


def _set_path(tree: Tree, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise BadInput(f"cannot read override {override!r}; write section.key=value")
    section, dot, key = path.partition(".")
    if not dot:
        hints = [known for known in _all_paths() if known.endswith(f".{path}")]
        near = hints or difflib.get_close_matches(path, _all_paths(), n=1, cutoff=0.4)
        raise BadInput(_unknown(path, near, "the command line"))
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        value = text
    if not isinstance(tree.setdefault(section, {}), dict):
        raise BadInput(f"config key {section} must hold keys, not {tree[section]!r}")
    tree[section][key] = value


def _all_paths() -> list[str]:
    return list(flatten(to_tree(Config())))


def _unknown(path: str, near: Sequence[str], where: str) -> str:
    hint = f"; did you mean {near[0]}?" if near else "; see `gpt2dist config debug` for all keys"
    return f"unknown config key {path}{hint} (in {where})"


def _build(kind: Any, tree: Any, prefix: str, where: str) -> Any:
    if not isinstance(tree, Mapping):
        raise BadInput(f"{prefix.rstrip('.')} must hold keys, not {tree!r} (in {where})")
    hints = _hints(kind)
    values = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if key not in hints:
            pool = _all_paths() if prefix else list(hints)
            near = difflib.get_close_matches(path, pool, n=1, cutoff=0.5)
            raise BadInput(_unknown(path, near, where))
        if dataclasses.is_dataclass(hints[key]):
            values[key] = _build(hints[key], value or {}, f"{path}.", where)
        else:
            values[key] = _convert(hints[key], value, path, where)
    return kind(**values)


def _convert(hint: Any, value: Any, path: str, where: str) -> Any:
    """`value` as the type a field declares; YAML reads 6e-4 and 1e9 as text, users mean numbers."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(o for o in options if o is not type(None)), value, path, where)
    if origin is Literal:
        if value in options and not isinstance(value, bool):
            return value
        raise BadInput(f"{path}={value} is none of {', '.join(map(str, options))} (in {where})")
    number = _number(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and number is not None and float(number).is_integer():
        return int(number)
    if hint is float and number is not None:
        return float(number)
    if hint is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise BadInput(f"{path}={value!r} is not {names[hint]} (in {where})")


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        text = value.replace("_", "").strip()
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                continue
    return None
