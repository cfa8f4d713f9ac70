"""A sweep, typed and frozen: what it varies, how it searches, what it may cost."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpt2dist.config.schema import Config, Count, Hours, NotNegative, Positive, Seed, Tokens, Usd
from gpt2dist.run_files import SWEEPS

Values = dict[str, Any]
"""Config path to the value that a trial takes there."""

Objective = Literal["val_loss", "usd", "hours", "tokens_per_s"]
LARGER_IS_BETTER = ("tokens_per_s",)
SHOWN_DIGITS = 4
"Drawn values are rounded to this many significant digits, so that people can read them."
DRAWS_IN_VAIN = 10_000
"So often the same points again: a narrow range has no more values of so few digits."


@dataclass(frozen=True)
class Listed:
    """Named values; several paths together take one tuple of them at a time."""

    paths: tuple[str, ...]
    options: tuple[tuple[Any, ...], ...]

    @property
    def size(self) -> float:
        return len(self.options)

    def draw(self, rng: random.Random) -> Values:
        return dict(zip(self.paths, rng.choice(self.options)))


@dataclass(frozen=True)
class Range:
    paths: tuple[str]
    kind: Literal["uniform", "loguniform", "int"]
    low: float
    high: float
    "Included."

    @property
    def size(self) -> float:
        return self.high - self.low + 1 if self.kind == "int" else math.inf

    def draw(self, rng: random.Random) -> Values:
        if self.kind == "int":
            return {self.paths[0]: rng.randint(int(self.low), int(self.high))}
        if self.kind == "uniform":
            return {self.paths[0]: self.rounded(rng.uniform(self.low, self.high))}
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return {self.paths[0]: self.rounded(drawn)}

    def rounded(self, value: float) -> float:
        return min(max(float(f"{value:.{SHOWN_DIGITS}g}"), self.low), self.high)


Dimension = Listed | Range


@dataclass(frozen=True)
class Search:
    kind: Literal["grid", "random", "optuna"] | None = None
    "None: grid where every swept key lists its values, else random."
    seed: Seed = 0
    "Of the search, not of the training."


@dataclass(frozen=True)
class Scheduler:
    kind: Literal["none", "asha", "median"] = "none"
    by: Literal["tokens", "usd"] = "tokens"
    "Trials are compared after equal tokens or equal dollars, never after equal time."
    first: Positive | None = None
    "No trial is judged before this many tokens or dollars."
    factor: Positive = 3.0
    "asha: one in `factor` trials goes on at each rung, and rungs are this far apart."
    peers: Count = 3
    "median: trials to compare with before anyone is stopped."


@dataclass(frozen=True)
class SweepBudget:
    """Hard limits over all trials together, failed and early-stopped ones included."""

    trials: Count | None = None
    tokens: Tokens | None = None
    hours: Hours | None = None
    "Machine-hours: trials that share a machine share its hours, as they share its price."
    usd: Usd | None = None


@dataclass(frozen=True)
class Resources:
    """Of one trial."""

    gpus: NotNegative = 0.0
    "Whole GPUs train under Ray Train; below 1, several trials share a GPU as processes."
    cpus: Count = 1
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
    def run_name(self) -> str:
        """Of its folder, below the runs."""
        return f"{SWEEPS}/{self.name}"

    @property
    def folder(self) -> Path:
        return Path(self.config.paths.runs, self.run_name)

    @property
    def names(self) -> dict[str, str]:
        """Every swept path, and its shortest name."""
        return short_names([path for dimension in self.space for path in dimension.paths])

    @property
    def points(self) -> list[Values]:
        """All points of a grid or a random search; a typical sample of what Optuna would propose.

        Fewer than asked for where the space has no more.
        """
        if self.search.kind == "grid":
            return grid_points(self.space)
        return draw_points(self.space, self.asked_points, self.search.seed)

    @property
    def asked_points(self) -> int:
        """That the budget has trials for; a grid has its own number."""
        return 0 if self.budget.trials is None else self.budget.trials // len(self.seeds)

    @property
    def in_processes(self) -> bool:
        """Trials are processes of their own rather than runs under Ray Train."""
        if self.resources.runner is not None:
            return self.resources.runner == "process"
        return self.resources.gpus < 1

    @property
    def stops_early(self) -> bool:
        return self.scheduler.kind != "none"


def space_size(space: Sequence[Dimension]) -> float:
    """Different points; infinite with a range of real numbers."""
    return math.prod(dimension.size for dimension in space)


def grid_points(space: Sequence[Dimension]) -> list[Values]:
    """Every combination of listed values; the last dimension changes fastest."""
    lists = [[(d.paths, option) for option in d.options] for d in space if isinstance(d, Listed)]
    return [
        {path: value for paths, option in combination for path, value in zip(paths, option)}
        for combination in itertools.product(*lists)
    ]


def draw_points(space: Sequence[Dimension], count: int, seed: int) -> list[Values]:
    """`count` different points, a function of the seed; fewer where there are no more."""
    rng = random.Random(seed)
    found: list[Values] = []
    most, in_vain = min(count, space_size(space)), 0
    while len(found) < most and in_vain < DRAWS_IN_VAIN:
        point = {path: value for d in space for path, value in d.draw(rng).items()}
        in_vain = in_vain + 1 if point in found else 0
        if not in_vain:
            found.append(point)
    return found


def value_text(value: Any) -> str:
    """`6e-4`, `0.003`, `true`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        plain, power = f"{value:.4g}", f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        return power if len(power) < len(plain) else plain
    return str(value)


def point_text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}={value_text(value)}" for path, value in values.items())


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest name of each path that is still its own: `peak_lr` for `optim.peak_lr`."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last)}
