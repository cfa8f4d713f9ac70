"""What a trial is going to cost, by the planner, a probe or its siblings, and what all need."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import Literal

from gpt2dist.config.schema import BudgetConfig, Config
from gpt2dist.errors import BadInput
from gpt2dist.human import human_count, usd
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.machine.hardware import Hardware, parse_on
from gpt2dist.plan.placement import Machine, place
from gpt2dist.plan.planner import offers_for, plan_run
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.sweep.spec.sweep import Sweep
from gpt2dist.track.ledger import no_price, price_usd_per_hour
from gpt2dist.train.predicted import prediction

Unit = Literal["usd", "hours", "tokens"]
UNIT_NAMES: dict[Unit, str] = {"usd": "dollars", "hours": "hours", "tokens": "tokens"}


@dataclass(frozen=True)
class MachineShare:
    """The part of a machine, or the machines, that one trial pays for."""

    part: float
    "1 where a trial has its machines to itself."
    machines: int
    usd_per_hour: float
    "Of one machine, times the part."
    source: str

    @classmethod
    def of(cls, sweep: Sweep, gpus_per_machine: int, price: tuple[float, str]) -> MachineShare:
        """Trials that run at once share a machine; `price`: of a whole one, and its source."""
        part, machines, gpus = 1 / sweep.at_once, 1, sweep.resources.gpus
        if gpus and gpus_per_machine:
            machines = max(1, math.ceil(gpus / gpus_per_machine))
            together = max(1, int(gpus_per_machine / gpus + 1e-9))
            part = 1 / min(sweep.at_once, together)
        return cls(part, machines, price[0] * part, price[1])

    @property
    def is_known(self) -> bool:
        """Also where somebody said 0."""
        return self.usd_per_hour > 0 or self.source in ("config", "environment")

    def cost(self, seconds: float, tokens: float = 0.0) -> Amounts:
        machine_hours = seconds * self.machines / 3600
        return Amounts(machine_hours * self.usd_per_hour, machine_hours * self.part, tokens)

    def seconds(self, granted: Amounts, spent: Amounts) -> float | None:
        """How long a trial may go on with what it was granted; None: there is no limit."""
        a_second = self.cost(1.0)
        by_hours = (granted.hours - spent.hours) / a_second.hours
        by_usd = (granted.usd - spent.usd) / a_second.usd if a_second.usd else math.inf
        return _limit(None, min(by_hours, by_usd))


@dataclass(frozen=True)
class Estimate:
    """What one whole trial takes; None is unknown."""

    tokens: int
    hours: float | None = None
    basis: str | None = None
    "Where the hours are from."
    once_hours: float = 0.0
    "Of the machines, before the first trial can start; the sweep pays them once."


@dataclass(frozen=True)
class Pricing:
    """The machines of a sweep: what a trial pays for them, and how long it takes there."""

    share: MachineShare
    estimate: Callable[[Config], Estimate]


def pricing_here(sweep: Sweep, machine: Machine, gpus_per_machine: int) -> Pricing:
    """By a probe or the planner where it knows the GPU, at the price of config or environment."""
    price = price_usd_per_hour(sweep.config.cluster, os.environ)
    share = MachineShare.of(sweep, gpus_per_machine, price)

    @cache
    def estimate(config: Config) -> Estimate:
        placed = _placed(sweep, config)
        placement = place(placed, machine, single_process=sweep.in_processes)
        found = prediction(placed, placement, (share.usd_per_hour, share.source))
        if found["hours"] is None:
            return Estimate(config.total_tokens)
        hours = found["hours"] * _slowdown(sweep, machine)
        return Estimate(config.total_tokens, hours, found["basis"])

    return Pricing(share, estimate)


def pricing_on(sweep: Sweep, on: str) -> Pricing:
    """At the cheapest offer of the machine that `on` names, or the config's price, by the planner.

    What a sweep pays only once is apart: renting, installing, preparing data.
    """
    hardware = parse_on(on)
    gpus = sweep.resources.gpus
    if gpus > hardware.gpus:
        raise BadInput(f"resources.gpus={gpus:g} is more than the {hardware.gpus} GPUs of {on}")
    offer = offers_for(sweep.config, hardware)[0]
    price = 0.0, f"no offer of {on}"
    if offer is not None:
        price = offer.usd_per_hour, f"{offer.provider} {offer.instance}"
    share = MachineShare.of(sweep, hardware.gpus_per_node, price)
    own = Hardware(hardware.gpu, math.ceil(max(1.0, gpus) / share.machines), share.machines)

    def estimate(config: Config) -> Estimate:
        plan = plan_run(config, own, offer)
        if plan.hours is None or plan.cost is None:
            return Estimate(config.total_tokens)
        once = plan.cost.setup_hours + plan.cost.data_hours
        hours = (plan.hours - once) / min(1.0, gpus or 1.0)
        basis = f"planner, {plan.gpu} x {plan.gpus}"
        return Estimate(config.total_tokens, hours, basis, once)

    return Pricing(share, estimate)


def run_config(sweep: Sweep, share: MachineShare, config: Config, granted: Amounts) -> Config:
    """The config that a trial trains with: its share of the machine's price and of the budget."""
    config = _placed(sweep, config)
    tokens = _limit(config.budget.tokens, granted.tokens)
    budget = BudgetConfig(
        usd=_limit(config.budget.usd, granted.usd if share.is_known else math.inf),
        hours=_limit(config.budget.hours, granted.hours / (share.part * share.machines)),
        tokens=None if tokens is None else int(tokens),
    )
    cluster = config.cluster
    if share.is_known:
        cluster = replace(cluster, usd_per_hour=share.usd_per_hour)
    # The sweep speaks to MLflow for its trials, as only it knows the parent run.
    track = config.track if sweep.in_processes else replace(config.track, mlflow=False)
    return replace(config, budget=budget, cluster=cluster, track=track)


def expected_seconds(
    config: Config, left: float, paces: Sequence[tuple[float, float]], estimate: Estimate
) -> float | None:
    """A start and `left` tokens of a trial; `paces`: its siblings' starts and seconds per FLOP."""
    if paces:
        starts, rates = zip(*paces)
        return median(starts) + left * flops_per_token(config.model) * median(rates)
    if estimate.hours is not None:
        return estimate.hours * 3600 * left / estimate.tokens
    return None


@dataclass(frozen=True)
class SweepEstimate:
    """What a sweep needs when nobody is stopped early, and at least when most are."""

    trials: tuple[Estimate, ...]
    share: MachineShare
    least_part: float
    "Of the whole, when the scheduler stops all it may; 1 without one."

    @classmethod
    def of(cls, sweep: Sweep, configs: Sequence[Config], pricing: Pricing) -> SweepEstimate:
        trials = tuple(pricing.estimate(config) for config in configs)
        longest = max(trial.tokens for trial in trials)
        return cls(trials, pricing.share, _least_part(sweep, longest))

    @property
    def once(self) -> Amounts:
        """Before the first trial can start, on whole machines."""
        hours = max(trial.once_hours for trial in self.trials) * self.share.machines
        return Amounts(hours * self.share.usd_per_hour / self.share.part, hours)

    def needs(self, unit: Unit) -> list[float] | None:
        """Of every trial, without what is paid once; None when one is unknown."""
        if unit == "tokens":
            return [float(trial.tokens) for trial in self.trials]
        hours = [trial.hours for trial in self.trials if trial.hours is not None]
        costs = [self.share.cost(one * 3600) for one in hours]
        return [getattr(c, unit) for c in costs] if len(costs) == len(self.trials) else None

    def budget_notes(self, sweep: Sweep) -> list[str]:
        """Remarks on what is unknown or tight; raises BadInput for what cannot fit the budget.

        The budget is for the trials; what is paid once before them is shown beside it.
        """
        notes = []
        if not self.share.is_known:
            if sweep.budget.usd is not None:
                raise no_price(f"budget.usd={sweep.budget.usd:g}")
            if "usd" in (*sweep.objective, sweep.scheduler.by):
                raise no_price("a comparison of trials by usd")
        for unit, name in UNIT_NAMES.items():
            limit, needs = getattr(sweep.budget, unit), self.needs(unit)
            if limit is not None and needs is None:
                notes.append(
                    f"planned {name} are unknown: no probe of this model on this machine "
                    "(`gpt2dist plan RECIPE --probe` takes one); the budget holds all the same"
                )
            elif limit is not None and needs is not None:
                notes += self._fit(sweep, unit, limit, needs)
        if not self.share.is_known:
            notes.append(f"dollars are unknown: no price of this machine ({self.share.source})")
        return notes

    def _fit(self, sweep: Sweep, unit: Unit, limit: float, needs: Sequence[float]) -> list[str]:
        texts = {"usd": usd, "hours": "{:.2f} h".format, "tokens": human_count}
        text: Callable[[float], str] = texts[unit]
        one, together = max(needs), sum(needs)
        if one > limit:
            raise BadInput(
                f"budget.{unit}={text(limit)} is below one trial, which needs {text(one)}; raise "
                f"it or shorten train.tokens (in {sweep.file})"
            )
        if together * self.least_part > limit:
            least = " at least, even with early stopping" if sweep.stops_early else ""
            raise BadInput(
                f"the sweep needs {text(together * self.least_part)}{least} for {len(needs)} "
                f"trials of up to {text(one)}, but budget.{unit}={text(limit)}; raise it, shorten "
                f"train.tokens or take fewer trials (in {sweep.file})"
            )
        if together <= limit:
            return []
        without = f"without early stopping the sweep would need {text(together)}"
        return [f"{without}; it ends at budget.{unit}={text(limit)}"]


def _least_part(sweep: Sweep, tokens: int) -> float:
    """ASHA: one in `factor` of the trials goes on at each rung. Median: the better half ends."""
    scheduler = sweep.scheduler
    if scheduler.kind == "none" or scheduler.first is None or scheduler.by == "usd":
        return 1.0 if scheduler.kind == "none" else 0.0
    if scheduler.kind == "median":
        return 0.5
    part, done, going = 0.0, 0.0, 1.0
    rung = scheduler.first
    while rung < tokens:
        part += going * (rung - done) / tokens
        done, rung, going = rung, rung * scheduler.factor, going / scheduler.factor
    return part + going * (tokens - done) / tokens


def _placed(sweep: Sweep, config: Config) -> Config:
    """The config with the workers that a trial of this sweep has."""
    if sweep.in_processes or sweep.resources.gpus < 1:
        return config
    return replace(config, cluster=replace(config.cluster, workers=int(sweep.resources.gpus)))


def _slowdown(sweep: Sweep, machine: Machine) -> float:
    """How much longer a trial takes than one that has the device to itself."""
    if 0 < sweep.resources.gpus < 1:
        return 1 / sweep.resources.gpus
    if sweep.in_processes and not sweep.resources.gpus:
        return max(1.0, machine.cpu_cores / sweep.resources.cpus)
    return 1.0


def _limit(own: float | None, granted: float) -> float | None:
    """The lower one; None where there is none."""
    least = min(math.inf if own is None else own, granted)
    return None if math.isinf(least) else least
