"""A sweep before it starts: its trials, what they need together, and whether that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpt2dist.errors import BadInput
from gpt2dist.human import human_count, human_duration, usd
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.sweep.cost.trial_cost import Price, Rent
from gpt2dist.sweep.search.points import listed_points
from gpt2dist.sweep.spec.schema import Sweep
from gpt2dist.sweep.spec.space import swept_paths
from gpt2dist.sweep.trial.trial import Trial, labels, make_trial, short

LINES = 40
"Of the list of trials; the rest is counted."


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep needs when nobody is stopped early, and at least when most are."""

    trials: tuple[Trial, ...]
    prices: tuple[Price, ...]
    rent: Rent
    least_part: float
    "Of the whole, when the scheduler stops all it may; 1 without one."

    @property
    def tokens(self) -> int:
        return sum(price.tokens for price in self.prices)

    @property
    def once(self) -> Amounts:
        """Before the first trial can start, on whole machines."""
        hours = max(price.once_hours for price in self.prices) * self.rent.machines
        return Amounts(hours * self.rent.usd_per_hour / self.rent.share, hours)

    @property
    def machine_hours(self) -> float | None:
        """Of all trials, without what is paid once."""
        hours = _all_known(price.hours for price in self.prices)
        return sum(hours) * self.rent.share * self.rent.machines if hours else None

    @property
    def usd(self) -> float | None:
        """Of all trials, without what is paid once."""
        dollars = _all_known(price.usd for price in self.prices)
        return sum(dollars) if dollars else None


def planned_trials(sweep: Sweep) -> tuple[Trial, ...]:
    """Exactly the trials of a grid or a random search; a typical sample for Optuna.

    Raises BadInput for a point that cannot run, unless Optuna would find another.
    """
    trials: list[Trial] = []
    for point, values in enumerate(listed_points(sweep)):
        for seed in sweep.seeds:
            try:
                trials.append(make_trial(sweep, len(trials), point, values, seed))
            except BadInput:
                if sweep.search.kind != "optuna":
                    raise
    if not trials:
        raise BadInput(f"no point of the space can run; narrow it (in {sweep.file})")
    return tuple(trials)


def plan_sweep(
    sweep: Sweep, trials: Sequence[Trial], price_of: Callable[[Trial], Price], rent: Rent
) -> SweepPlan:
    prices = tuple(price_of(trial) for trial in trials)
    longest = max(trial.tokens for trial in trials)
    return SweepPlan(tuple(trials), prices, rent, _least_part(sweep, longest))


def require_affordable(sweep: Sweep, plan: SweepPlan) -> list[str]:
    """Remarks on what is unknown or tight; raises BadInput for what cannot fit the budget.

    The budget is for the trials; what is paid once before them is shown beside it.
    """
    notes = []
    budget, rent = sweep.budget, plan.rent
    if budget.usd is not None and not rent.is_known:
        raise BadInput(
            f"budget.usd={budget.usd:g} cannot be kept: this machine has no price; set "
            "cluster.usd_per_hour, GPT2DIST_USD_PER_HOUR, or cluster.watts and cluster.usd_per_kwh"
        )
    for key, limit, needed, one, text in (
        ("usd", budget.usd, plan.usd, _most(price.usd for price in plan.prices), usd),
        ("hours", budget.hours, plan.machine_hours, _hours(plan), lambda h: f"{h:.2f} h"),
        ("tokens", budget.tokens, plan.tokens, max(p.tokens for p in plan.prices), human_count),
    ):
        if limit is None:
            continue
        if needed is None or one is None:
            notes.append(
                f"planned {'dollars' if key == 'usd' else key} are unknown: no probe of this model "
                "on this machine (`gpt2dist plan RECIPE --probe` takes one); the budget holds "
                "all the same"
            )
        elif one > limit:
            raise BadInput(
                f"budget.{key}={text(limit)} is below one trial, which needs {text(one)}; raise it "
                f"or shorten train.tokens (in {sweep.file})"
            )
        elif needed * plan.least_part > limit:
            least = " at least, even with early stopping" if sweep.stops_early else ""
            raise BadInput(
                f"the sweep needs {text(needed * plan.least_part)}{least} for {len(plan.trials)} "
                f"trials of up to {text(one)}, but budget.{key}={text(limit)}; raise it, shorten "
                f"train.tokens or take fewer trials (in {sweep.file})"
            )
        elif needed > limit:
            notes.append(
                f"without early stopping the sweep would need {text(needed)}; it ends at "
                f"budget.{key}={text(limit)}"
            )
    if not rent.is_known:
        notes.append(f"dollars are unknown: no price of this machine ({rent.source})")
    return notes


def describe_plan(sweep: Sweep, plan: SweepPlan) -> list[str]:
    """The trials with their planned tokens, hours and dollars, and the sums."""
    names = labels(swept_paths(sweep.space))
    several = len(sweep.seeds) > 1
    head = ["trial", *names.values(), *(["seed"] if several else []), "tokens", "hours", "dollars"]
    rows = [head]
    for trial, price in zip(plan.trials[:LINES], plan.prices):
        rows.append(
            [
                str(trial.number),
                *(short(trial.values[path]) for path in names),
                *([str(trial.seed)] if several else []),
                human_count(price.tokens),
                "unknown" if price.hours is None else human_duration(price.hours * 3600),
                "unknown" if price.usd is None else usd(price.usd),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths)) for row in rows]
    if len(plan.trials) > LINES:
        lines.append(f"... and {len(plan.trials) - LINES} more")
    hours = plan.machine_hours
    together = (
        f"together: {len(plan.trials)} trials, {human_count(plan.tokens)} tokens, "
        f"{'unknown' if hours is None else f'{hours:.2f}'} machine-hours, "
        f"{'unknown dollars' if plan.usd is None else usd(plan.usd)}"
    )
    if sweep.stops_early:
        together += f" without early stopping, {plan.least_part:.0%} of that at least with it"
    lines.append(together)
    if plan.once.hours:
        money = f", {usd(plan.once.usd)}" if plan.rent.is_known else ""
        lines.append(
            f"and once, before the first trial: renting, installing and preparing the data, "
            f"{plan.once.hours:.2f} machine-hours{money}"
        )
    if plan.rent.is_known:
        machines = f" and machine, {plan.rent.machines} machines" if plan.rent.machines > 1 else ""
        lines.append(
            f"price: {usd(plan.rent.usd_per_hour)} per trial-hour{machines} ({plan.rent.source})"
        )
    basis = sorted({price.basis for price in plan.prices if price.basis})
    if basis:
        lines.append(f"hours by: {', '.join(basis)}")
    if sweep.search.kind == "optuna":
        lines.append("the values are a typical sample: Optuna chooses while it learns")
    return lines


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


def _all_known(values: Iterable[float | None]) -> list[float] | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def _most(values: Iterable[float | None]) -> float | None:
    known = _all_known(values)
    return max(known) if known else None


def _hours(plan: SweepPlan) -> float | None:
    most = _most(price.hours for price in plan.prices)
    return None if most is None else most * plan.rent.share * plan.rent.machines
