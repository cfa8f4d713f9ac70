"""A trial: what is tried, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gpt2dist.config.load import from_record, to_tree
from gpt2dist.config.schema import Config
from gpt2dist.config.validate import check
from gpt2dist.disk import locked
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.run_files import DRIVER_LOCK, LEDGER_FILE, ROWS_FILE, Tail
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.sweep.spec.sweep import Sweep, Values, point_text, short_names, value_text
from gpt2dist.track.attempts import Attempt
from gpt2dist.track.ledger import Account
from gpt2dist.track.summary import read_summary

NAME_CHARACTERS = 90

State = Literal[
    "waiting", "running", "finished", "stopped", "budget", "interrupted", "diverged", "failed"
]
"""stopped: early, by the scheduler; budget: its share of the sweep's budget was used up."""


@dataclass(frozen=True)
class Trial:
    """What is tried: a point of the space, with a seed."""

    sweep: Sweep = field(repr=False)
    number: int
    point: int
    "Trials of one point differ in their seed only."
    values: Values
    seed: int

    @cached_property
    def config(self) -> Config:
        """Of the point and its seed, without the sweep's own placement; see require_runnable."""
        tree = to_tree(self.sweep.config)
        for path, value in {**self.values, "train.seed": self.seed}.items():
            section, _, key = path.partition(".")
            tree[section][key] = value
        return from_record(tree, self.sweep.file)

    def require_runnable(self) -> None:
        """Raises BadInput naming the point when its values cannot be trained together."""
        try:
            check(self.config, self.sweep.file)
        except BadInput as error:
            text = point_text(self.values)
            raise BadInput(f"the point {text} cannot run: {error}") from None

    @property
    def name(self) -> str:
        """Of its folder in the sweep's folder."""
        names = short_names(list(self.values))
        parts = [f"{names[path]}-{text}" for path, text in self.texts.items()]
        if len(self.sweep.seeds) > 1:
            parts.append(f"seed-{self.seed}")
        text = re.sub(r"[^\w.+-]+", "_", "-".join(parts))[:NAME_CHARACTERS]
        return f"{self.number:03d}-{text}"

    @property
    def texts(self) -> dict[str, str]:
        """The values as people write them."""
        return {path: value_text(value) for path, value in self.values.items()}


def planned_trials(sweep: Sweep) -> tuple[Trial, ...]:
    """Exactly the trials of a grid or a random search; a typical sample for Optuna.

    Raises BadInput for a point that cannot run, unless Optuna would find another.
    """
    trials: list[Trial] = []
    for point, values in enumerate(sweep.points):
        for seed in sweep.seeds:
            trial = Trial(sweep, len(trials), point, values, seed)
            try:
                trial.require_runnable()
                trials.append(trial)
            except BadInput:
                if sweep.search.kind != "optuna":
                    raise
    if not trials:
        raise BadInput(f"no point of the space can run; narrow it (in {sweep.file})")
    return tuple(trials)


@dataclass(eq=False)
class TrialRecord:
    """What became of a trial: its state, and what its run folder says, whoever writes there."""

    trial: Trial
    folder: Path
    state: State = "waiting"
    reason: str = ""
    starts: int = 0
    granted: Amounts | None = None
    "What it may spend over its whole life; None while it does not run."
    slot: int | None = None
    evaluations: list[Mapping[str, Any]] = field(default_factory=list)
    "Rows with a validation loss, one per step."
    first: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        self._tail = Tail(self.folder / ROWS_FILE)

    @property
    def is_over(self) -> bool:
        """No resumed sweep changes it."""
        return self.state in ("finished", "stopped", "diverged")

    @property
    def trial_id(self) -> str:
        """By which the schedulers of Ray Tune know it; the same in every start of the sweep."""
        return f"{self.trial.number:03d}"

    def refresh(self) -> None:
        """Read what is new in the folder."""
        for row in self._tail.lines():
            if self.last is not None and row["step"] <= self.last["step"]:  # it was rolled back
                self.evaluations = [r for r in self.evaluations if r["step"] < row["step"]]
            self.first = self.first or row
            self.last = row
            self.loss = row.get("loss") or self.loss
            if row.get("val_loss") is not None:
                self.evaluations.append(row)

    @property
    def tokens(self) -> int:
        return self.last["tokens"] if self.last else 0

    @property
    def val_loss(self) -> float | None:
        return self.evaluations[-1]["val_loss"] if self.evaluations else None

    @property
    def pace(self) -> tuple[float, float] | None:
        """Seconds of its start and of a FLOP after it; None until there are two rows."""
        first, last = self.first, self.last
        if first is None or last is None or last["tokens"] <= first["tokens"]:
            return None
        flops = (last["tokens"] - first["tokens"]) * flops_per_token(self.trial.config.model)
        return first["seconds"], max(0.0, last["seconds"] - first["seconds"]) / flops

    @property
    def attempts(self) -> list[Attempt]:
        path = self.folder / LEDGER_FILE
        return Account.read(path).attempts if path.exists() else []

    def spent(self, part: float) -> Amounts:
        """Over all attempts, up to the last heartbeat; the trial has `part` of its machines."""
        return Amounts.spent(self.attempts, part) + Amounts(tokens=self.tokens)

    def objectives(self) -> dict[str, float] | None:
        """What it came to by each objective of the sweep; None while one is unknown."""
        try:
            summary = read_summary(self.folder)
        except BadInput:
            return None
        summary |= {"val_loss": summary.get("final_val_loss"), "hours": summary["seconds"] / 3600}
        found: dict[str, Any] = {name: summary.get(name) for name in self.trial.sweep.objective}
        return None if None in found.values() else found

    def is_busy(self) -> bool:
        """A process trains here, or is still saving."""
        if not (self.folder / DRIVER_LOCK).exists():
            return False
        try:
            with locked(self.folder / DRIVER_LOCK):
                return False
        except RunFailure:
            return True
