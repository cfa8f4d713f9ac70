"""Read, override, check and write configs. Precedence: defaults < recipe < file < `a.b=value`."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from gpt2dist.config.bounds import shown
from gpt2dist.config.schema import IDENTITY_SECTIONS, Config
from gpt2dist.config.typed import base_type, build, key_paths, key_type, typed_value, unknown_key
from gpt2dist.config.validate import check
from gpt2dist.errors import BadInput
from gpt2dist.human import holds_password, without_credentials

Tree = dict[str, Any]

ALIASES = {
    "gpt2": "gpt2-124m", "gpt2-small": "gpt2-124m", "gpt2-117m": "gpt2-124m",
    "gpt2-medium": "gpt2-355m", "gpt2-345m": "gpt2-355m", "gpt2-350m": "gpt2-355m",
    "gpt2-large": "gpt2-774m", "gpt2-762m": "gpt2-774m", "gpt2-770m": "gpt2-774m",
    "gpt2-xl": "gpt2-1558m", "gpt2-1.5b": "gpt2-1558m", "gpt2-1542m": "gpt2-1558m",
}  # fmt: skip
"The sizes as people and papers call them; `gpt2-` and capitals are optional."

NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"What PyYAML raises, also for `!!bool maybe`, `!!timestamp x` and a thousand brackets."


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("gpt2dist.config") / "recipes"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_name(written: str) -> str:
    """The recipe that `GPT2-XL`, `124m` or `gpt2-355m` means; BadInput names the nearest."""
    names = recipe_names()
    for name in (written.lower(), f"gpt2-{written.lower()}"):
        if ALIASES.get(name, name) in names:
            return ALIASES.get(name, name)
    near = difflib.get_close_matches(written.lower(), [*names, *ALIASES], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise BadInput(
        f"unknown recipe {shown(repr(written))}; {hint}recipes: {', '.join(names)}; or give a "
        ".yaml file"
    )


def resolve(recipe: str, overrides: Sequence[str] = ()) -> Config:
    """The config of a recipe name or a YAML file, with `a.b=value` overrides applied.

    A file may name the recipe it starts from with the key `recipe`.
    Raises BadInput naming key, value, place and the nearest valid key.
    """
    tree: Tree = {}
    if recipe.endswith((".yaml", ".yml")):
        where, own = recipe, read_yaml(Path(recipe))
        base = str(own.get("recipe", "custom"))
    else:
        where, own, base = f"recipe {recipe}", {}, recipe
    if base != "custom":
        base = recipe_name(base)
        _merge(tree, _read_recipe(base))
    _merge(tree, own)
    tree["recipe"] = base
    for override in overrides:
        _set_path(tree, override)
    return from_tree(tree, where)


def from_tree(tree: Mapping[str, Any], where: str) -> Config:
    """The one way to a config: types, bounds and combinations of plain nested dicts are checked.

    `where` names their origin in errors.
    """
    config = build(Config, tree, prefix="", where=where)
    check(config, where)
    return config


def from_record(tree: Mapping[str, Any], where: str) -> Config:
    """The config of a run that was, or a part of it: what has run is not judged again."""
    return build(Config, tree, prefix="", where=where)


def to_tree(config: Config) -> Tree:
    """Plain nested dicts, ready for YAML, JSON or MLflow."""
    return dataclasses.asdict(config)


def masked(tree: Tree) -> Tree:
    """Without the passwords that runs of versions before this one were given in addresses."""
    return {
        key: masked(value)
        if isinstance(value, dict)
        else without_credentials(value)
        if isinstance(value, str) and holds_password(value)
        else value
        for key, value in tree.items()
    }


def dump(config: Config) -> str:
    """The config as YAML that `resolve` reads back to an equal one."""
    return yaml.safe_dump(masked(to_tree(config)), sort_keys=False)


def load_dumped(path: Path) -> Config:
    """The config that a run wrote beside itself."""
    return from_record(read_yaml(path), str(path))


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


def overrides_of(config: Config, base: Config) -> list[str]:
    """The overrides that make `config` of `base`."""
    old = flatten(to_tree(base))
    new = flatten(to_tree(config))
    return [
        f"{path}={_word(path, value)}"
        for path, value in new.items()
        if value != old[path] and path != "recipe"
    ]


def _word(path: str, value: object) -> str:
    """A value as an override spells it: plain text where it is read back as that text."""
    if isinstance(value, str) and value and _read_value(path, value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def read_yaml(path: Path) -> Tree:
    """The keys of a YAML file; BadInput for anything that is none, and for keys given twice."""
    try:
        tree = yaml.load(path.read_text(), Loader=_Loader)
    except FileNotFoundError:
        raise BadInput(f"no such config file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read config file {path}: {error}") from None
    except NOT_YAML as error:
        line = " ".join(str(error).split())
        raise BadInput(f"{path} is not valid YAML: {line}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise BadInput(f"{path} must hold `section: {{key: value}}`, not {type(tree).__name__}")
    return tree


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: the first one would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                problem = f"the key {key} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}  # 2026-11-26 is a text here


def _read_recipe(name: str) -> Tree:
    text = (resources.files("gpt2dist.config") / "recipes" / f"{name}.yaml").read_text()
    return yaml.safe_load(text) or {}


def _merge(tree: Tree, other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = dict(value) if isinstance(value, Mapping) else value


def _set_path(tree: Tree, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise BadInput(f"cannot read override {shown(repr(override))}; write section.key=value")
    if path not in key_paths():
        raise unknown_key(path, key_paths(), "the command line")
    section, _, key = path.partition(".")
    if not isinstance(tree.setdefault(section, {}), dict):
        raise BadInput(f"config key {section} must hold keys, not {shown(repr(tree[section]))}")
    tree[section][key] = typed_value(path, _read_value(path, text), "the command line")


def _read_value(path: str, text: str) -> Any:
    """The YAML value of a word; what a text key gets stays as it was written, but for quotes."""
    try:
        value = yaml.load(text, Loader=_Loader) if text else ""
    except NOT_YAML:
        return text
    kind, optional = base_type(key_type(path))
    if kind is str and not isinstance(value, str) and not (optional and value is None):
        return text
    return value
