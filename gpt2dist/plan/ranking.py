"""Many plans side by side: every offer for one recipe, every recipe on one machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.plan.goals import Goal
from gpt2dist.plan.machine.hardware import Hardware, all_gpus, gpu_named
from gpt2dist.plan.machine.prices import Offer, offers
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.planner import USUAL, Basis, best_plan, offers_for


@dataclass(frozen=True)
class Refused:
    """A combination that was asked for and cannot be had."""

    recipe: str
    on: str
    reason: str


def everywhere(
    configs: Sequence[Config],
    goal: Goal,
    *,
    spot: bool | None = None,
    provider: str | None = None,
    basis: Basis = USUAL,
) -> tuple[list[Plan], list[Refused]]:
    """Every config on every machine for rent, cheapest offer of each kind, best plans first."""
    machines: dict[tuple[str, int, str, bool], tuple[Hardware, list[Offer | None]]] = {}
    for offer in offers(spot=spot, provider=provider):
        try:
            gpu = gpu_named(offer.planned_as)
        except BadInput:
            continue  # a GPU that the planner has no data of
        kind = (gpu.key, offer.gpus, offer.provider, offer.spot)
        machines.setdefault(
            kind, (Hardware(gpu, offer.gpus), [offer])
        )  # offers come cheapest first
    return _plans(configs, machines.values(), goal, basis)


def single_gpus(
    configs: Sequence[Config],
    goal: Goal,
    *,
    spot: bool | None = None,
    provider: str | None = None,
    basis: Basis = USUAL,
) -> tuple[list[Plan], list[Refused]]:
    """Every config on one GPU of each kind, priced where somebody rents it out."""
    pairs: list[tuple[Hardware, list[Offer | None]]] = []
    for gpu in all_gpus():
        found = offers(gpu.key, 1, spot=spot, provider=provider)
        if found or (provider is None and not spot):
            pairs.append((Hardware(gpu), [found[0] if found else None]))
    return _plans(configs, pairs, goal, basis)


def on_one(
    configs: Sequence[Config],
    hardware: Hardware,
    goal: Goal,
    *,
    spot: bool = False,
    provider: str | None = None,
    basis: Basis = USUAL,
) -> tuple[list[Plan], list[Refused]]:
    """Every config on one kind of machine, best plans first."""
    found = offers_for(configs[0], hardware, spot=spot, provider=provider)
    return _plans(configs, [(hardware, found)], goal, basis)


def by_goal(plans: Iterable[Plan], goal: Goal) -> list[Plan]:
    """Lowest loss first where money, time or compute is given, else fewest dollars first."""
    if (goal.usd, goal.hours, goal.flops) != (None, None, None):
        return sorted(plans, key=lambda p: (_known(p.val_loss), -p.tokens, _known(p.usd)))
    return sorted(plans, key=lambda p: (_known(p.usd), _known(p.hours), p.params))


def quickest(plans: Sequence[Plan]) -> Plan | None:
    """The one with the fewest hours."""
    timed = [plan for plan in plans if plan.hours is not None]
    return min(timed, key=lambda plan: plan.hours or 0.0, default=None)


def _plans(
    configs: Sequence[Config],
    pairs: Iterable[tuple[Hardware, list[Offer | None]]],
    goal: Goal,
    basis: Basis,
) -> tuple[list[Plan], list[Refused]]:
    plans: list[Plan] = []
    refused: list[Refused] = []
    for hardware, choices in pairs:
        for config in configs:
            try:
                plan = best_plan(config, hardware, choices, goal, basis)
            except BadInput as problem:
                refused.append(Refused(config.recipe, str(hardware), str(problem)))
                continue
            if plan.runs:
                plans.append(plan)
            else:
                refused.append(Refused(config.recipe, str(hardware), why_not(plan)))
    return by_goal(plans, goal), refused


def why_not(plan: Plan) -> str:
    """Why a plan does not run, in one line."""
    if plan.measures:
        names = " + ".join(measure.name for measure in plan.measures)
        return f"would need {names}, and `gpt2dist train` does not offer all of that"
    lacks = plan.peak_gib - plan.gpu_memory_gib
    return f"does not fit: {lacks:.1f} GiB too much at micro-batch 1, whatever is done"


def _known(value: float | None) -> float:
    return float("inf") if value is None else value
