"""From `RECIPE on=...` or a task file to the cheapest plan that can be launched."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2dist.config.bounds import shown
from gpt2dist.config.load import read_yaml, resolve
from gpt2dist.config.schema import Config, Count
from gpt2dist.config.typed import checked
from gpt2dist.errors import BadInput
from gpt2dist.human import holds_password
from gpt2dist.launch.allowance import Limit, Reserve
from gpt2dist.launch.providers import PROVIDERS, can_log_in, require_capable
from gpt2dist.plan.goals import WHOLE, Basis, Goal
from gpt2dist.plan.machine.hardware import parse_on
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.planner import plan_on

Tree = dict[str, Any]

PASSWORDS = ("_PASSWORD", "_TOKEN", "_SECRET", "_KEY")
"How the names of variables end that hold a secret."


@dataclass(frozen=True)
class Target:
    """What to train, and where it may run."""

    config: Config
    recipe: str
    "Name, or path of the recipe's file."
    overrides: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    "Provider and hardware (`A100:8x2`) there."
    spot: bool
    tree: Tree | None = None
    "The task file, when one was named."
    data_ready: bool = False
    "Prepared shards are given with it."

    @property
    def bucket(self) -> str:
        """Where the task file itself copies runs to; empty without."""
        return str(((self.tree or {}).get("envs") or {}).get("BUCKET") or "")


@dataclass(frozen=True)
class Choice:
    plan: Plan
    notes: tuple[str, ...]
    "Why other places were not taken, one line each."


def recipe_target(
    recipe: str, overrides: Sequence[str], on: str | None, *, spot: bool, provider: str | None
) -> Target:
    """A recipe on hardware, at one provider or any that can do it."""
    config = resolve(recipe, overrides)
    if on is None:
        raise BadInput(
            f"on what? give on=A100-80GB:8 or the like; `gpt2dist plan {recipe} on=all` lists all"
        )
    _require_rented(config)
    nodes = parse_on(on).nodes
    if provider is not None:
        require_capable(provider, nodes=nodes, spot=spot, bucket_mount=False)
    able = [
        name
        for name, each in PROVIDERS.items()
        if (nodes == 1 or each.multi_node) and (each.spot or not spot)
    ]
    places = tuple((name, on) for name in ([provider] if provider else able))
    return Target(config, recipe, tuple(overrides), places, spot)


def file_target(path: str, overrides: Sequence[str], *, provider: str | None, spot: bool) -> Target:
    """A task file such as those in sky/, with its recipe, settings and machines."""
    tree = read_yaml(Path(path))
    envs = _envs(path, tree)
    recipe = envs.get("RECIPE")
    if not recipe:
        raise BadInput(f"{path} trains no recipe (envs.RECIPE); start it with `sky launch {path}`")
    words = [*_split(path, str(envs.get("OVERRIDES") or "")), *overrides]
    config = resolve(str(recipe), words)
    _require_rented(config)
    nodes = checked(Count, "num_nodes", path, tree.get("num_nodes") or 1)
    machines = list(_machines(path, _section(path, tree, "resources")))
    on_spot = spot or any(machine["spot"] for machine in machines)
    places = tuple(
        (machine["provider"], f"{machine['gpu']}:{machine['gpus']}x{nodes}")
        for machine in machines
        if provider in (None, machine["provider"])
    )
    if not places:
        there = ", ".join(machine["provider"] for machine in machines)
        raise BadInput(f"{path} names no machine at {provider}; it has {there}")
    for name, _ in places:
        mounts = bool(tree.get("file_mounts"))
        require_capable(name, nodes=nodes, spot=on_spot, bucket_mount=mounts)
    return Target(config, str(recipe), tuple(words), places, on_spot, tree)


def _envs(path: str, tree: Tree) -> Tree:
    """What the task is told. It is copied to the launch's record: BadInput for a secret in it."""
    envs = {str(key): value for key, value in _section(path, tree, "envs").items()}
    secrets = {str(key): value for key, value in _section(path, tree, "secrets").items()}
    for section, told in ("secrets", secrets), ("envs", envs):
        for name, value in told.items():
            password = name.endswith(PASSWORDS) or holds_password(str(value))
            if name == "OVERRIDES":
                continue  # the config has its own word for it
            if value and (section == "secrets" or password):
                raise BadInput(
                    f"{path}: {section}.{name} holds a secret, which would be written to the "
                    f"launch's record; write `secrets: {{{name}: ''}}` there and export {name} here"
                )
    return envs


def _section(path: str, tree: Tree, name: str) -> Tree:
    section = tree.get(name) or {}
    if not isinstance(section, dict):
        raise BadInput(f"{path}: {name} must hold `key: value`, not {shown(repr(section))}")
    return section


def _split(path: str, words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError as error:
        raise BadInput(f"{path}: envs.OVERRIDES={shown(words)}: {error}") from None


def _require_rented(config: Config) -> None:
    if config.budget.usd is not None:
        raise BadInput(
            f"budget.usd={config.budget.usd:g}: a launch has one limit for run and machines; "
            f"give it as --usd {config.budget.usd:g}"
        )
    if config.cluster.own_usd_per_hour is not None:
        raise BadInput(
            "cluster.usd_per_hour, .watts and .purchase_usd price machines of your own; launch "
            "rents: leave them out, or run `gpt2dist train` there"
        )


def _machines(path: str, resources: Tree) -> Iterator[Tree]:
    """Each machine that a resources section allows."""
    common = {key: value for key, value in resources.items() if key not in ("any_of", "ordered")}
    for choice in resources.get("any_of") or resources.get("ordered") or [{}]:
        machine = {**common, **choice}
        provider = str(machine.get("infra", "")).partition("/")[0]
        wanted = machine.get("accelerators")
        if isinstance(wanted, Mapping) and len(wanted) == 1:
            wanted = ":".join(map(str, next(iter(wanted.items()))))
        if not provider or not isinstance(wanted, str):
            raise BadInput(
                f"{path}: resources need `infra: PROVIDER` and `accelerators: GPU:COUNT` in each "
                "choice, so that they can be priced"
            )
        gpu, _, gpus = wanted.partition(":")
        yield {
            "provider": provider,
            "gpu": gpu,
            "gpus": gpus or "1",
            "spot": bool(machine.get("use_spot")),
        }


def choose(target: Target, environ: Mapping[str, str] = os.environ) -> Choice:
    """The cheapest plan that runs, at a provider this machine can log in to if there is one.

    Raises BadInput when no provider has such a machine or the run fits on none of them.
    """
    plans, notes, refusals = [], [], []
    for provider, on in target.places:
        try:
            plan = plan_at(target, provider, on)
            _require_runs(plan, on)
            plans.append(plan)
        except BadInput as refusal:
            refusals.append(refusal)
            notes.append(f"not at {provider}: {refusal}")
    if not plans:
        raise refusals[0]
    plans.sort(key=lambda plan: plan.usd or 0.0)
    reachable = [
        plan for plan in plans if plan.offer and can_log_in(PROVIDERS[plan.offer.provider], environ)
    ]
    chosen = (reachable or plans)[0]
    notes += [
        f"cheaper at {plan.offer.provider} (${plan.usd:.2f}), but there are no credentials for it"
        for plan in plans[: plans.index(chosen)]
        if plan.offer is not None
    ]
    shown = notes if target.tree is not None or len(target.places) == 1 else notes[len(refusals) :]
    return Choice(chosen, tuple(shown))


def plan_at(target: Target, provider: str, on: str, goal: Goal = WHOLE) -> Plan:
    basis = Basis(goal, data_ready=target.data_ready)
    return plan_on(target.config, on, spot=target.spot, provider=provider, basis=basis)


def _require_runs(plan: Plan, on: str) -> None:
    if plan.runs:
        return
    need = f"needs {plan.wanted_gib:.1f} GiB a GPU, {plan.gpu} has {plan.gpu_memory_gib:.1f}"
    measures = ", ".join(measure.setting or measure.name for measure in plan.measures)
    helps = f"; it would take {measures}" if measures else "; no measure makes it fit"
    raise BadInput(f"on={on}: {plan.recipe} {need}{helps}")


def require_affordable(target: Target, plan: Plan, reserve: Reserve, limit: Limit) -> None:
    """BadInput, naming the length that would do, when the plan cannot end within the limit."""
    assert plan.usd is not None
    assert plan.usd_range is not None
    assert plan.usd_per_hour is not None
    assert plan.offer is not None
    kept_usd = reserve.beyond_plan_usd(plan.usd_per_hour)
    if plan.usd + kept_usd <= limit.usd:
        return
    provider, on = plan.offer.provider, plan.on
    kept = (
        f"${kept_usd:.2f} of it are reserved for saving and giving back machines of "
        f"${plan.usd_per_hour:.2f} per hour"
    )
    try:
        shorter = plan_at(target, provider, on, Goal(usd=limit.usd - kept_usd))
    except BadInput:
        raise BadInput(
            f"{limit.said} cannot buy one step and one evaluation of {plan.recipe} on {on} at "
            f"{provider}; {kept}"
        ) from None
    low, high = plan.usd_range
    raise BadInput(
        f"{limit.said}: {plan.recipe} on {on} at {provider} is planned at ${plan.usd:.2f} "
        f"({low:.2f} to {high:.2f}), and {kept}; train.tokens={shorter.tokens:.3g} would fit"
    )


def settle(tree: Tree, machine: Tree, envs: Mapping[str, str]) -> Tree:
    """The task file narrowed to one machine, with this launch's envs; all else stays as it is."""
    resources = tree.get("resources") or {}
    kept = {
        key: value
        for key, value in resources.items()
        if key not in ("any_of", "ordered", *machine, "instance_type", "use_spot", "zone", "region")
    }
    return {**tree, "resources": {**machine, **kept}, "envs": {**tree.get("envs", {}), **envs}}
