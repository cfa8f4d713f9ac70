"""A sweep file, typed and frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gpt2dist.config.schema import Config
from gpt2dist.sweep.spec.space import Dimension

Objective = Literal["val_loss", "usd", "hours", "tokens_per_s"]
LARGER_IS_BETTER = ("tokens_per_s",)


@dataclass(frozen=True)
class Search:
    kind: Literal["grid", "random", "optuna"] | None = None
    "None: grid where every swept key lists its values, else random."
    seed: int = 0
    "Of the search, not of the training."


@dataclass(frozen=True)
class Scheduler:
    kind: Literal["none", "asha", "median"] = "none"
    by: Literal["tokens", "usd"] = "tokens"
    "Trials are compared after equal tokens or equal dollars, never after equal time."
    first: float | None = None
    "No trial is judged before this many tokens or dollars."
    factor: float = 3.0
    "asha: one in `factor` trials goes on at each rung, and rungs are this far apart."
    peers: int = 3
    "median: trials to compare with before anyone is stopped."


@dataclass(frozen=True)
class SweepBudget:
    """Hard limits over all trials together, failed and early-stopped ones included."""

    trials: int | None = None
    tokens: int | None = None
    hours: float | None = None
    "Machine-hours: trials that share a machine share its hours, as they share its price."
    usd: float | None = None


@dataclass(frozen=True)
class Resources:
    """Of one trial."""

    gpus: float = 0.0
    "Whole GPUs train under Ray Train; below 1, several trials share a GPU as processes."
    cpus: int = 1
    "Cores of a trial that is a process of its own."
    runner: Literal["ray", "process"] | None = None
    "None: ray for whole GPUs, else process."


@dataclass(frozen=True)
class Sweep:
    name: str
    file: str
    base: str
    config: Config
    "The base recipe with everything that all trials share."
    space: tuple[Dimension, ...]
    tree: dict[str, Any] = field(repr=False)
    "What a resumed sweep must have in common with the one that was started."
    seeds: tuple[int, ...] = (0,)
    objective: tuple[Objective, ...] = ("val_loss",)
    search: Search = field(default_factory=Search)
    scheduler: Scheduler = field(default_factory=Scheduler)
    budget: SweepBudget = field(default_factory=SweepBudget)
    resources: Resources = field(default_factory=Resources)
    at_once: int = 1
    hardware: str | None = None
    "What a dry run is priced for, such as RTX3090:4; None: this machine."

    @property
    def in_processes(self) -> bool:
        """Trials are processes of their own rather than runs under Ray Train."""
        if self.resources.runner is not None:
            return self.resources.runner == "process"
        return self.resources.gpus < 1

    @property
    def stops_early(self) -> bool:
        return self.scheduler.kind != "none"
