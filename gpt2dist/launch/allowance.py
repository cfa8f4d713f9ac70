"""The dollar arithmetic of a rented machine: what the run may spend and when it is ended by force.

    |-- boot --|-- setup --|------------- run -------------|-- idle, teardown --|
    billed from here       |       stops itself at run_usd |
                           |         SIGTERM, SIGKILL at the deadline
                                                                 budget_usd at the latest here

Everything between the run's own stop and the end of the bill is reserved, at full price.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpt2dist.errors import BadInput
from gpt2dist.human import finite_number
from gpt2dist.plan.machine.costs import IDLE_MINUTES, checkpoint_seconds
from gpt2dist.plan.plan_record import Plan

OWN_STOP_S = 120
"""Between the budget at which the run stops by itself and the SIGTERM from outside."""

GRACE_S = 300
"""Between SIGTERM, upon which the run saves, and SIGKILL, of a run that nobody planned."""

LEAST_GRACE_S = 120

UPLOAD_S = 600
"""The longest that the last upload to a bucket may take, of a run that nobody planned."""

UPLOAD_BYTES_PER_S = 100e6
"""From one machine to a bucket. Assumed; the last upload may take twice as long."""

CHECKPOINT_BYTES_PER_PARAM = 12
"""fp32 weights and Adam's two moments."""

TEARDOWN_S = 240
"""Billing before the clock starts and after the order to give the machine back. Assumed."""


LONGEST_OF_PLAN = 1.5
"""Of the upper end of a plan's hours: what takes longer is slower than anybody expected."""


@dataclass(frozen=True)
class Reserve:
    """What is kept back of a budget for the time after the run's own stop."""

    grace_s: float = GRACE_S
    "The task's env GRACE_S."
    upload_s: float = UPLOAD_S
    "The task's env UPLOAD_S; what the run leaves of its time is there for the upload too."
    bucket: bool = True
    "False: there is nowhere to upload to."

    @classmethod
    def of(cls, plan: Plan, *, bucket: bool) -> Reserve:
        """Twice a step, a validation and a save until SIGKILL, twice the last upload after it."""
        assert plan.throughput is not None
        evaluation_s = plan.config.eval.tokens / plan.throughput.tokens_per_s / 3
        save_s = checkpoint_seconds(plan.params)
        grace_s = 60 + 2 * (plan.throughput.step_seconds + evaluation_s + save_s)
        upload_s = 60 + 2 * plan.params * CHECKPOINT_BYTES_PER_PARAM / UPLOAD_BYTES_PER_S
        return cls(max(LEAST_GRACE_S, math.ceil(grace_s)), math.ceil(upload_s), bucket)

    @property
    def seconds(self) -> float:
        upload_s = self.upload_s if self.bucket else 0.0
        return OWN_STOP_S + self.grace_s + upload_s + IDLE_MINUTES * 60 + TEARDOWN_S

    def beyond_plan_usd(self, usd_per_hour: float) -> float:
        """What it adds to a plan, which counts the idle minutes itself."""
        return usd_per_hour * (self.seconds / 3600 - IDLE_MINUTES / 60)


@dataclass(frozen=True)
class Limit:
    """The dollars that a launch may cost at most, and what set them."""

    usd: float
    said: str
    "The words of the command line, or of the plan."

    @classmethod
    def of(cls, plan: Plan, reserve: Reserve, usd: float | None, hours: float | None) -> Limit:
        """The smallest of what was asked for; time counts at the machines' price.

        Without dollars it is the upper end of the plan and the reserve, in whole dollars; dollars
        alone do not rent for longer than LONGEST_OF_PLAN.
        """
        assert plan.usd_range is not None
        assert plan.usd_per_hour is not None
        longest_usd, kept_usd = plan.usd_range[1], reserve.beyond_plan_usd(plan.usd_per_hour)
        limits = [] if usd is None else [cls(usd, f"--usd {usd:g}")]
        if hours is not None:
            if not 0 < hours < math.inf:
                raise BadInput(f"--hours {hours:g} must be a positive number")
            limits.append(cls(hours * plan.usd_per_hour, f"--hours {hours:g}"))
        elif usd is not None:
            most_usd = math.ceil(LONGEST_OF_PLAN * longest_usd + kept_usd)
            said = f"{LONGEST_OF_PLAN:g} x the plan's longest, which --hours raises"
            limits.append(cls(float(most_usd), said))
        if usd is None:
            enough_usd = math.ceil(longest_usd + kept_usd)
            limits.append(cls(float(enough_usd), "the plan's longest and the reserve"))
        return min(limits, key=lambda limit: limit.usd)


@dataclass(frozen=True)
class Allowance:
    """What is left of a budget on machines that together cost `usd_per_hour`."""

    budget_usd: float
    usd_per_hour: float
    spent_usd: float
    "By earlier machines, and by these since they are billed."
    reserve: Reserve = field(default_factory=Reserve)

    def __post_init__(self) -> None:
        kept = (self.reserve.grace_s, self.reserve.upload_s)
        numbers = (self.budget_usd, self.usd_per_hour, self.spent_usd, *kept)
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise BadInput(
                f"budget ${self.budget_usd}, price ${self.usd_per_hour} per hour and "
                f"${self.spent_usd} spent, {kept} s of grace and upload must be numbers from 0"
            )

    @property
    def reserve_usd(self) -> float:
        return self.usd_per_hour * self.reserve.seconds / 3600

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
    found = table.get("", table.get((cloud or "").lower(), ""))
    amount = finite_number(found)
    if amount is None or amount < 0:
        raise BadInput(
            f"{name}={text!r} says no amount for {cloud or 'this machine'}; "
            f"set dollars, as in --env {name}=1.39"
        )
    return amount


def spent_now(
    past_usd: float, accounted: Iterable[float], now: float, usd_per_hour: float
) -> float:
    """Past attempts, and the present machines since the last of the Unix times `accounted`.

    Those are the boot, the end of what other runs took of the bill, and the run's last sign of
    life on these machines: time up to it is in past_usd.
    """
    return past_usd + max(0.0, now - max(accounted)) * usd_per_hour / 3600
