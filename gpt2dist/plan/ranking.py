"""Many plans side by side: every offer for one recipe, every recipe on one machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.plan.goals import USUAL, Basis, Goal
from gpt2dist.plan.machine.hardware import Hardware, all_gpus, gpu_named
from gpt2dist.plan.machine.prices import Offer, offers
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.planner import best_plan


@dataclass(frozen=True)
class Refused:
    """A combination that was asked for and cannot be had."""

    recipe: str
    on: str
    reason: str


Choices = tuple[Hardware, list[Offer | None]]
"""A kind of machine, and the offers that it can be had at; None is a price that nobody knows."""


def everywhere(spot: bool | None = None, provider: str | None = None) -> list[Choices]:
    """Every machine for rent, at the cheapest offer of each kind."""
    machines: dict[tuple[str, int, str, bool], Choices] = {}
    for offer in offers(spot=spot, provider=provider):  # cheapest first
        gpu = gpu_named(offer.planned_as)
        kind = (gpu.key, offer.gpus, offer.provider, offer.spot)
        machines.setdefault(kind, (Hardware(gpu, offer.gpus), [offer]))
    return list(machines.values())


def single_gpus(spot: bool | None = None, provider: str | None = None) -> list[Choices]:
    """One GPU of each kind, priced where somebody rents it out."""
    found: list[Choices] = []
    for gpu in all_gpus():
        rented = offers(gpu.key, 1, spot=spot, provider=provider)
        if rented or (provider is None and not spot):
            found.append((Hardware(gpu), [rented[0] if rented else None]))
    return found


def rank(
    configs: Sequence[Config], machines: Iterable[Choices], basis: Basis = USUAL
) -> tuple[list[Plan], list[Refused]]:
    """Every config on every machine, best plans first, and what cannot be had."""
    plans: list[Plan] = []
    refused: list[Refused] = []
    for hardware, choices in machines:
        for config in configs:
            try:
                plan = best_plan(config, hardware, choices, basis)
            except BadInput as problem:
                refused.append(Refused(config.recipe, str(hardware), str(problem)))
                continue
            if plan.runs:
                plans.append(plan)
            else:
                refused.append(Refused(config.recipe, str(hardware), why_not(plan)))
    return by_goal(plans, basis.goal), refused


def by_goal(plans: Iterable[Plan], goal: Goal) -> list[Plan]:
    """Lowest loss first where money, time or compute is given, else fewest dollars first."""
    if (goal.usd, goal.hours, goal.flops) != (None, None, None):
        return sorted(plans, key=lambda p: (_known(p.val_loss), -p.tokens, _known(p.usd)))
    return sorted(plans, key=lambda p: (_known(p.usd), _known(p.hours), p.params))


def quickest(plans: Sequence[Plan]) -> Plan | None:
    """The one with the fewest hours."""
    timed = [plan for plan in plans if plan.hours is not None]
    return min(timed, key=lambda plan: plan.hours or 0.0, default=None)


def why_not(plan: Plan) -> str:
    """Why a plan does not run, in one line."""
    if plan.measures:
        names = " + ".join(measure.name for measure in plan.measures)
        return f"would need {names}, and `gpt2dist train` does not offer all of that"
    lacks = plan.peak_gib - plan.gpu_memory_gib
    return f"does not fit: {lacks:.1f} GiB too much at micro-batch 1, whatever is done"


def _known(value: float | None) -> float:
    return float("inf") if value is None else value
