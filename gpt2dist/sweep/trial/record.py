"""One trial of a sweep that goes on: its state, its start, the config that it trains with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from gpt2dist.config.schema import BudgetConfig, Config
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.sweep.cost.trial_cost import Rent, placed
from gpt2dist.sweep.journal import State
from gpt2dist.sweep.spec.schema import Objective, Sweep
from gpt2dist.sweep.trial.run_folder import TrialFolder
from gpt2dist.sweep.trial.trial import Trial


@dataclass
class Record:
    """A trial of this sweep and how it goes."""

    trial: Trial
    folder: TrialFolder
    state: State | Literal["waiting"]
    reason: str = ""
    starts: int = 0
    granted: Amounts | None = None
    "What it may spend over its whole life; None while it does not run."
    slot: int | None = None


@dataclass(frozen=True)
class Start:
    """A trial that may start now."""

    record: Record
    config: Config
    "Of the run: with the trial's share of the machine's price and of the budget."
    slot: int
    seconds: float | None
    "From the start of its process on, that the grant covers; None: no limit."


def run_config(sweep: Sweep, rent: Rent, trial: Trial, granted: Amounts) -> Config:
    """The config that a trial trains with: its share of the machine's price and of the budget."""
    config = placed(sweep, trial.config)
    seconds_per_machine_hour = 1 / (rent.share * rent.machines)
    tokens = _least(config.budget.tokens, granted.tokens)
    budget = BudgetConfig(
        usd=_least(config.budget.usd, granted.usd if rent.is_known else math.inf),
        hours=_least(config.budget.hours, granted.hours * seconds_per_machine_hour),
        tokens=None if tokens is None else int(tokens),
    )
    cluster = config.cluster
    if rent.is_known:
        cluster = replace(cluster, usd_per_hour=rent.usd_per_hour)
    # The sweep speaks to MLflow for its trials, as only it knows the parent run.
    track = config.track if sweep.in_processes else replace(config.track, mlflow=False)
    return replace(config, budget=budget, cluster=cluster, track=track)


def objective_of(summary: Mapping[str, Any], name: Objective) -> float | None:
    field, unit = {
        "val_loss": ("final_val_loss", 1.0),
        "usd": ("usd", 1.0),
        "hours": ("seconds", 3600.0),
        "tokens_per_s": ("tokens_per_s", 1.0),
    }[name]
    value = summary.get(field)
    return value / unit if isinstance(value, (int, float)) else None


def _least(own: float | None, granted: float) -> float | None:
    least = min(math.inf if own is None else own, granted)
    return None if math.isinf(least) else least
