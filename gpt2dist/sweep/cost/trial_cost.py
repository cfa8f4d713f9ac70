"""What a trial is going to cost: from the planner or a probe, and then from its siblings."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.machine.hardware import Hardware, parse_on
from gpt2dist.plan.machine.prices import Offer
from gpt2dist.plan.placement import Machine, place
from gpt2dist.plan.planner import offer_for, plan_run
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.sweep.spec.schema import Sweep
from gpt2dist.sweep.trial.run_folder import TrialFolder
from gpt2dist.sweep.trial.trial import Trial
from gpt2dist.track.ledger import price_usd_per_hour
from gpt2dist.train.predicted import prediction

START_SECONDS = {"process": 15.0, "ray": 60.0}
"What a start takes while no trial has shown it."
MARGIN = 1.1
"A trial starts only when this many times its expected cost is still free."


@dataclass(frozen=True)
class Rent:
    """The part of a machine, or the machines, that one trial pays for."""

    share: float
    "1 where a trial has its machines to itself."
    machines: int
    usd_per_hour: float
    "Of one machine, times the share."
    source: str

    @property
    def is_known(self) -> bool:
        return self.usd_per_hour > 0

    def cost(self, seconds: float, tokens: float) -> Amounts:
        machine_hours = seconds * self.machines / 3600
        return Amounts(machine_hours * self.usd_per_hour, machine_hours * self.share, tokens)

    def seconds(self, granted: Amounts, spent: Amounts) -> float | None:
        """How long a trial may go on with what it was granted; None: there is no limit."""
        a_second = self.cost(1.0, 0)
        by_hours = (granted.hours - spent.hours) / a_second.hours
        by_usd = (granted.usd - spent.usd) / a_second.usd if self.is_known else math.inf
        least = min(by_hours, by_usd)
        return None if math.isinf(least) else least


@dataclass(frozen=True)
class Price:
    """Of one whole trial; None is unknown."""

    tokens: int
    hours: float | None = None
    usd: float | None = None
    basis: str | None = None
    "Where hours and dollars are from."
    once_hours: float = 0.0
    "Of the machines, before the first trial can start; the sweep pays them once."


def rent_here(sweep: Sweep, gpus_per_machine: int) -> Rent:
    """At the price that the config or the environment names; trials at once share a machine."""
    usd_per_hour, source = price_usd_per_hour(sweep.config.cluster, os.environ)
    share, machines = _share(sweep, gpus_per_machine)
    return Rent(share, machines, usd_per_hour * share, source)


def price_here(sweep: Sweep, trial: Trial, machine: Machine, rent: Rent) -> Price:
    """By a probe of this model on this machine, or by the planner where it knows the GPU."""
    config = placed(sweep, trial.config)
    placement = place(config, machine, single_process=sweep.in_processes)
    found = prediction(config, placement, (rent.usd_per_hour, rent.source))
    if found["hours"] is None:
        return Price(trial.tokens)
    hours = found["hours"] * _slowdown(sweep, machine)
    usd = rent.cost(hours * 3600, 0).usd if rent.is_known else None
    return Price(trial.tokens, hours, usd, found["basis"])


def rent_on(sweep: Sweep, on: str) -> tuple[Rent, Hardware, Offer | None]:
    """At the cheapest offer of the machine that `on` names, or at the config's own price."""
    hardware = parse_on(on)
    if sweep.resources.gpus > hardware.gpus:
        raise BadInput(
            f"resources.gpus={sweep.resources.gpus:g} is more than the {hardware.gpus} GPUs of {on}"
        )
    offer = offer_for(sweep.config, hardware)
    share, machines = _share(sweep, hardware.gpus_per_node)
    usd_per_hour = offer.usd_per_hour * share if offer else 0.0
    source = f"{offer.provider} {offer.instance}" if offer else f"no offer of {on}"
    return Rent(share, machines, usd_per_hour, source), hardware, offer


def price_on(
    sweep: Sweep, trial: Trial, rent: Rent, hardware: Hardware, offer: Offer | None
) -> Price:
    """By the planner. What a sweep pays only once is apart: renting, installing, preparing data."""
    gpus = max(1, math.ceil(sweep.resources.gpus))
    part = Hardware(hardware.gpu, math.ceil(gpus / rent.machines), rent.machines)
    plan = plan_run(trial.config, part, offer)
    if plan.hours is None or plan.cost is None:
        return Price(trial.tokens)
    once = plan.cost.setup_hours + plan.cost.data_hours
    hours = (plan.hours - once) / min(1.0, sweep.resources.gpus or 1.0)
    usd = rent.cost(hours * 3600, 0).usd if rent.is_known else None
    return Price(trial.tokens, hours, usd, f"planner, {plan.gpu} x {plan.gpus}", once)


def placed(sweep: Sweep, config: Config) -> Config:
    """The config with the workers that a trial of this sweep has."""
    if sweep.in_processes or sweep.resources.gpus < 1:
        return config
    return replace(config, cluster=replace(config.cluster, workers=int(sweep.resources.gpus)))


def start_seconds(sweep: Sweep) -> float:
    return START_SECONDS["process" if sweep.in_processes else "ray"]


def expected_seconds(
    trial: Trial, left: float, seen: Sequence[tuple[Trial, TrialFolder]], price: Price
) -> float | None:
    """A start and `left` tokens of a trial, by what its siblings took so far, else by its price."""
    starts, rates = [], []
    for other, folder in seen:
        first, last = folder.first, folder.last
        if first and last and last["tokens"] > first["tokens"]:
            flops = (last["tokens"] - first["tokens"]) * flops_per_token(other.config.model)
            rates.append(max(0.0, last["seconds"] - first["seconds"]) / flops)
            starts.append(first["seconds"])
    if rates:
        return median(starts) + left * flops_per_token(trial.config.model) * median(rates)
    if price.hours is not None:
        return price.hours * 3600 * left / trial.tokens
    return None


def _share(sweep: Sweep, gpus_per_machine: int) -> tuple[float, int]:
    """Part of a machine that a trial pays for, and the number of its machines."""
    gpus = sweep.resources.gpus
    if gpus and gpus_per_machine:
        machines = max(1, math.ceil(gpus / gpus_per_machine))
        together = max(1, int(gpus_per_machine / gpus + 1e-9))
        return 1 / min(sweep.at_once, together), machines
    return 1 / sweep.at_once, 1


def _slowdown(sweep: Sweep, machine: Machine) -> float:
    """How much longer a trial takes than one that has the device to itself."""
    if 0 < sweep.resources.gpus < 1:
        return 1 / sweep.resources.gpus
    if sweep.in_processes and not sweep.resources.gpus:
        return max(1.0, machine.cpu_cores / sweep.resources.cpus)
    return 1.0
