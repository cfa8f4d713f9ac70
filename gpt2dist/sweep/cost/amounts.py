"""Dollars, machine-hours and tokens together: limits, what was spent, what is still promised."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from gpt2dist.sweep.spec.schema import SweepBudget


@dataclass(frozen=True)
class Amounts:
    usd: float = 0.0
    hours: float = 0.0
    "Machine-hours."
    tokens: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def without(self, used: Amounts) -> Amounts:
        """What is left of limits; without a limit there is always more."""
        pairs = zip(astuple(self), astuple(used))
        return Amounts(*(math.inf if math.isinf(a) else a - b for a, b in pairs))

    def times(self, factor: float) -> Amounts:
        return Amounts(*(a * factor for a in astuple(self)))

    def at_least(self, other: Amounts) -> Amounts:
        return Amounts(*(max(a, b) for a, b in zip(astuple(self), astuple(other))))

    def covers(self, other: Amounts) -> bool:
        return all(a >= b for a, b in zip(astuple(self), astuple(other)))


def limits(budget: SweepBudget) -> Amounts:
    """Infinite where the budget says nothing."""
    given = (budget.usd, budget.hours, budget.tokens)
    return Amounts(*(math.inf if value is None else float(value) for value in given))


def grant(free: Amounts, need: Amounts, slots: int) -> Amounts | None:
    """What a new trial may spend of what is free; None when it needs more than there is.

    Everyone who could start now gets an equal part, and nobody less than it needs: the sum of all
    grants never passes the budget, so no trial can, whatever becomes of the sweep's driver.
    """
    if not free.covers(need):
        return None
    return free.times(1 / max(1, slots)).at_least(need)
