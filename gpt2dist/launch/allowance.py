"""The dollar arithmetic of a rented machine: what the run may spend and when it is ended by force.

    |-- boot --|-- setup --|------------- run -------------|-- idle, teardown --|
    billed from here       |       stops itself at run_usd |
                           |         SIGTERM, SIGKILL at the deadline
                                                                 budget_usd at the latest here

Everything between the run's own stop and the end of the bill is reserved, at full price.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt2dist.errors import BadInput
from gpt2dist.plan.machine.costs import IDLE_MINUTES

OWN_STOP_S = 120
"""Between the budget at which the run stops by itself and the SIGTERM from outside."""

GRACE_S = 300
"""Between SIGTERM, upon which the run saves, and SIGKILL; the task's env GRACE_S changes it."""

UPLOAD_S = 600
"""The longest that the last upload to a bucket may take."""

TEARDOWN_S = 240
"""Billing before the clock starts and after the order to give the machine back. Assumed."""

RESERVE_S = OWN_STOP_S + GRACE_S + UPLOAD_S + IDLE_MINUTES * 60 + TEARDOWN_S
"""What is kept back of every budget, in seconds of the full price."""


@dataclass(frozen=True)
class Allowance:
    """What is left of a budget on machines that together cost `usd_per_hour`."""

    budget_usd: float
    usd_per_hour: float
    spent_usd: float
    "By earlier machines, and by these since they are billed."
    grace_s: float = GRACE_S

    def __post_init__(self) -> None:
        numbers = (self.budget_usd, self.usd_per_hour, self.spent_usd, self.grace_s)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise BadInput(
                f"budget ${self.budget_usd}, price ${self.usd_per_hour} per hour and "
                f"${self.spent_usd} spent, {self.grace_s} s of grace must be numbers, not below 0"
            )

    @property
    def reserve_usd(self) -> float:
        return self.usd_per_hour * (RESERVE_S - GRACE_S + self.grace_s) / 3600

    @property
    def run_usd(self) -> float:
        """`budget.usd` of the run: it saves and stops before its own account passes this."""
        return self.budget_usd - self.reserve_usd

    @property
    def deadline_s(self) -> int | None:
        """Seconds from now to SIGTERM; None for machines that cost nothing.

        Raises BadInput when the budget has no second left.
        """
        if self.usd_per_hour == 0:
            return None
        left_usd = self.run_usd + self.usd_per_hour * OWN_STOP_S / 3600 - self.spent_usd
        seconds = math.floor(left_usd / self.usd_per_hour * 3600)
        if self.run_usd <= self.spent_usd or seconds < 1:
            raise BadInput(
                f"budget of ${self.budget_usd:,.2f}: ${self.spent_usd:,.2f} are spent and "
                f"${self.reserve_usd:,.2f} are reserved for saving and giving the machines back "
                f"(${self.usd_per_hour:,.2f} per hour); raise the budget"
            )
        return seconds


def amount_at(name: str, text: str, cloud: str | None) -> float:
    """Dollars in an env of the task: `1.39`, or the entry of `cloud` in `runpod=1.39 gcp=3.67`.

    Raises BadInput, naming the env, where neither tells.
    """
    table: dict[str, str] = {}
    for word in text.split():
        provider, equals, dollars = word.rpartition("=")
        table[provider.lower() if equals else ""] = dollars
    found = table.get("", table.get((cloud or "").lower(), "nan"))
    try:
        amount = float(found)
    except ValueError:
        amount = math.nan
    if not (math.isfinite(amount) and amount >= 0):
        raise BadInput(
            f"{name}={text!r} says no amount for {cloud or 'this machine'}; "
            f"set dollars, as in --env {name}=1.39"
        )
    return amount


def billed_since(booted_at: float, accounted_until: float | None) -> float:
    """Unix time from which this machine's bill is not yet in anybody's account."""
    return max(booted_at, accounted_until or 0.0)


def spent_now(
    past_usd: float, last_seen_at: float, billed_from: float, now: float, usd_per_hour: float
) -> float:
    """Past attempts, and the present machines since they are billed or were last accounted for.

    `last_seen_at`: the run's last sign of life, on whatever machine; time up to it is in past_usd.
    """
    return past_usd + max(0.0, now - max(billed_from, last_seen_at)) * usd_per_hour / 3600
