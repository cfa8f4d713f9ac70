"""Read and check a sweep file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from gpt2dist.config.bounds import shown
from gpt2dist.config.load import NOT_YAML, flatten, read_yaml, resolve, to_tree
from gpt2dist.config.schema import Config, Count, Seed
from gpt2dist.config.typed import checked
from gpt2dist.errors import BadInput
from gpt2dist.run_files import require_name
from gpt2dist.sweep.spec.space import nearest, read_space
from gpt2dist.sweep.spec.sweep import (
    Listed,
    Objective,
    Resources,
    Scheduler,
    Search,
    Sweep,
    SweepBudget,
    grid_points,
)

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
SECTIONS = {"search": Search, "scheduler": Scheduler, "budget": SweepBudget, "resources": Resources}
KEYS = ("name", "base", "set", "space", "seeds", "objective", "at_once", "hardware", *SECTIONS)
MAY_CHANGE = ("budget", "at_once", "resources", "hardware")
"Keys that say how much and where; a resumed sweep may take other values."


def load_sweep(file: str, overrides: Sequence[str] = (), usd: float | None = None) -> Sweep:
    """The sweep of a file; `a.b=value` changes the base, `sweep.a.b=value` the sweep itself.

    `on=RTX3090:4` is short for `sweep.hardware`, as `gpt2dist plan` writes it; `usd` takes the
    place of `budget.usd`. Raises BadInput naming key, value and remedy.
    """
    tree = read_yaml(Path(file))
    own = [word for word in overrides if word.startswith(("sweep.", "on="))]
    for word in own:
        _set(tree, "hardware=" + word[3:] if word.startswith("on=") else word[6:])
    for key in tree:
        if key not in KEYS:
            raise BadInput(f"unknown sweep key {key}; {nearest(str(key), KEYS)} (in {file})")
    if "base" not in tree:
        raise BadInput(f"{file} must name what it varies: base: gpt2-124m, or a config file")
    space = read_space(tree.get("space"), file)
    shared = [word for word in overrides if word not in own]
    config = _base(tree, shared, {path for d in space for path in d.paths}, file)
    sections: dict[str, Any] = {
        name: _section(kind, tree.get(name) or {}, name, file) for name, kind in SECTIONS.items()
    }
    if usd is not None:
        sections["budget"] = dataclasses.replace(sections["budget"], usd=usd)
    if sections["search"].kind is None:
        kind = "grid" if all(isinstance(d, Listed) for d in space) else "random"
        sections["search"] = dataclasses.replace(sections["search"], kind=kind)
    seeds = tree.get("seeds", config.train.seed)
    sweep = Sweep(
        name=require_name(str(tree.get("name", Path(file).stem)), f"{file}: name"),
        file=file,
        base=str(tree["base"]),
        config=config,
        space=space,
        tree=_comparable(tree, config, sections),
        seeds=tuple(checked(Seed, "seeds", file, seed) for seed in _as_list(seeds)),
        objective=tuple(_as_list(tree.get("objective", "val_loss"))),
        at_once=checked(Count, "at_once", file, tree.get("at_once", 1)),
        hardware=tree.get("hardware"),
        **sections,
    )
    for problems in (_problems, _budget_problems, _scheduler_problems, _resource_problems):
        for problem in problems(sweep):
            raise BadInput(f"{problem} (in {file})")
    return sweep


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What distinguishes two sweeps, one line each; where and for how much does not count."""
    old, new = flatten(before), flatten(now)
    return [
        f"{key}: {old.get(key, 'absent')} before, {new.get(key, 'absent')} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith("base.track.")
    ]


def _base(
    tree: Mapping[str, Any], shared: Sequence[str], swept: Container[str], file: str
) -> Config:
    base = str(tree["base"])
    beside = Path(file).parent / base
    if base.endswith((".yaml", ".yml")) and beside.is_file():
        base = str(beside)
    fixed = tree.get("set") or {}
    if not isinstance(fixed, Mapping):
        raise BadInput(f"set={fixed!r} must hold `a.b: value` (in {file})")
    words = [f"{path}={json.dumps(value)}" for path, value in flatten(fixed).items()]
    for word in [*words, *shared]:
        path = word.partition("=")[0]
        if path in swept:
            change = f"change space.{path} instead (in {file})"
            raise BadInput(f"{shown(word)}: {path} is swept; {change}")
    return resolve(base, [*words, *shared])


def _section(kind: Any, tree: Any, name: str, file: str) -> Any:
    if not isinstance(tree, Mapping):
        raise BadInput(f"{name}={tree!r} must hold keys (in {file})")
    hints = get_type_hints(kind, include_extras=True)
    for key in tree:
        if key not in hints:
            hint = nearest(str(key), hints, f"{name}.")
            raise BadInput(f"unknown sweep key {name}.{key}; {hint} (in {file})")
    return kind(**{k: checked(hints[k], f"{name}.{k}", file, v) for k, v in tree.items()})


def _set(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    section, _, key = path.partition(".")
    if not equals or not text:
        raise BadInput(f"cannot read override sweep.{override}; write sweep.key=value")
    try:
        value = yaml.safe_load(text)
    except NOT_YAML:
        raise BadInput(f"sweep.{path}={shown(text)} cannot be read as YAML") from None
    if not key:
        tree[section] = value
    elif isinstance(tree.setdefault(section, {}), dict):
        tree[section][key] = value
    else:
        raise BadInput(f"sweep.{path}: {section}={tree[section]!r} holds no keys")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _comparable(
    tree: Mapping[str, Any], config: Config, sections: Mapping[str, Any]
) -> dict[str, Any]:
    own = {k: v for k, v in tree.items() if k not in (*MAY_CHANGE, *SECTIONS, "base", "set")}
    own |= {k: dataclasses.asdict(v) for k, v in sections.items() if k not in MAY_CHANGE}
    return json.loads(json.dumps({"base": to_tree(config), **own}, default=str))


def _problems(sweep: Sweep) -> Iterator[str]:
    names = list(sweep.objective)
    if not sweep.seeds or len(set(sweep.seeds)) < len(sweep.seeds):
        yield f"seeds={list(sweep.seeds)} must list different whole numbers from 0"
    if not names or any(name not in OBJECTIVES or names.count(name) > 1 for name in names):
        yield f"objective={names} must name different ones of {', '.join(OBJECTIVES)}"


def _budget_problems(sweep: Sweep) -> Iterator[str]:
    budget, kind, seeds = sweep.budget, sweep.search.kind, len(sweep.seeds)
    if kind == "grid":
        for dimension in sweep.space:
            if not isinstance(dimension, Listed):
                yield (
                    f"search.kind=grid needs lists, but {dimension.paths[0]} is {dimension.kind}; "
                    "use search.kind=random or optuna"
                )
        points = len(grid_points(sweep.space))
        if budget.trials is not None and budget.trials < points * seeds:
            yield (
                f"the grid has {points * seeds} trials ({points} points x {seeds} seeds), "
                f"budget.trials={budget.trials}; shorten a list or use search.kind=random"
            )
    elif budget.trials is None:
        yield f"search.kind={kind} needs budget.trials, the number of trials to run"
    elif budget.trials < seeds:
        yield f"budget.trials={budget.trials} is below one point of {seeds} seeds"


def _resource_problems(sweep: Sweep) -> Iterator[str]:
    gpus = sweep.resources.gpus
    if gpus >= 1 and not gpus.is_integer():
        yield f"resources.gpus={gpus:g} must be whole GPUs, or below 1"
    if sweep.in_processes and gpus > 1:
        yield f"resources.runner=process trains on one GPU, not {gpus:g}"
    if 0 < gpus < 1 and sweep.config.cluster.micro_batch is None:
        yield (
            f"resources.gpus={gpus:g}: trials share a GPU's memory, so none can measure what is "
            "free; set cluster.micro_batch"
        )


def _scheduler_problems(sweep: Sweep) -> Iterator[str]:
    kind, by, first = sweep.scheduler.kind, sweep.scheduler.by, sweep.scheduler.first
    if kind == "none":
        return
    if first is None:
        yield f"scheduler.first={first} must say after how many {by} trials are first compared"
    elif by == "tokens" and first >= sweep.config.train.tokens:
        yield (
            f"scheduler.first={first:,.0f} tokens is not before the end of a trial "
            f"(train.tokens={sweep.config.train.tokens:,})"
        )
    if sweep.scheduler.factor <= 1:
        yield f"scheduler.factor={sweep.scheduler.factor:g} must be above 1"
    if sweep.objective[0] != "val_loss":
        yield f"scheduler.kind={kind} compares val_loss: make it the objective"
    if sweep.config.eval.every_steps is None:
        yield f"scheduler.kind={kind} needs evaluations: set eval.every_steps"
