"""Plans asked backwards: how far do these dollars, these hours go; what does this loss take?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.human import human_count
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.loss.own_fit import OwnFit
from gpt2dist.plan.loss.predict import published_text, tokens_for_loss
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.speed.throughput import Throughput

MOST_STEPS = 100_000_000
"""Beyond this a length is a slip of the pen: 52T tokens of the recipes' batches."""


@dataclass(frozen=True)
class Goal:
    """At most one of the six; none keeps the config's own length."""

    tokens: float | None = None
    usd: float | None = None
    hours: float | None = None
    loss: float | None = None
    flops: float | None = None
    "Of the model: 6 N D, N parameters and D tokens."
    epochs: float | None = None
    "Times that the whole text is seen."

    def __post_init__(self) -> None:
        """Raises BadInput when there are two goals, or one that is not a positive number."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            first, second, *_ = given
            raise BadInput(f"--{first} and --{second} both set the run's length; give one")
        for name, value in given.items():
            if not 0 < value < float("inf"):
                raise BadInput(f"--{name} {value:g} must be a positive number")


WHOLE = Goal()


@dataclass(frozen=True)
class Measured:
    """What was measured on the machine takes the place of what would be predicted."""

    throughput: Throughput
    peak_gib: float


@dataclass(frozen=True)
class Basis:
    """What a plan rests on beside config, hardware and price."""

    goal: Goal = WHOLE
    data_ready: bool = False
    "The shards are there: nothing is downloaded or tokenised."
    dataset_tokens: float | None = None
    "Different tokens that the text holds; None: what is known of its name."
    own_fit: OwnFit | None = None
    measured: Measured | None = None


USUAL = Basis()


def plan_for(config: Config, basis: Basis, plan_of: Callable[[Config], Plan]) -> Plan:
    """The longest run that keeps within the goal's dollars or hours, or the one that it takes.

    `plan_of` prices a config on fixed hardware. Raises BadInput when the goal cannot be met:
    not even one evaluation for these dollars, or a loss that this model never reaches.
    """
    goal = basis.goal
    if goal.usd is not None:
        return _longest(config, plan_of, "usd", goal.usd)
    if goal.hours is not None:
        return _longest(config, plan_of, "hours", goal.hours)
    tokens = _tokens(config, basis)
    return plan_of(config if tokens is None else with_tokens(config, tokens))


def _tokens(config: Config, basis: Basis) -> float | None:
    """The length that the goal takes; None where it sets none."""
    goal, source, params = basis.goal, config.data.source, parameters(config.model)
    if goal.loss is not None:
        tokens = tokens_for_loss(params, goal.loss, source, own_fit=basis.own_fit)
        if tokens is None:
            raise BadInput(
                f"--loss {goal.loss:g}: no number of tokens of {source} brings {config.recipe} "
                "there as far as is known; take a larger model or a higher loss"
            )
        return max(tokens, config.train.batch_tokens)
    if goal.flops is not None:
        return goal.flops / (6 * params)
    if goal.epochs is not None:
        unique = basis.dataset_tokens or published_text(source)[1]
        if unique is None:
            raise BadInput(
                f"--epochs {goal.epochs:g}: how many tokens data.source={source} holds "
                "is not known; give --dataset-tokens, such as --dataset-tokens 50M"
            )
        return goal.epochs * unique
    return goal.tokens


def with_tokens(config: Config, tokens: float) -> Config:
    """The same run, longer or shorter; warmup shrinks with runs shorter than ten times of it.

    Raises BadInput for less than one optimizer step and for more than anybody could mean.
    """
    batch = config.train.batch_tokens
    if not batch <= tokens <= batch * MOST_STEPS:
        bound = f"is less than one step of {batch:,} tokens (train.batch_tokens)"
        if tokens > batch:
            bound = f"is more than {human_count(batch * MOST_STEPS)}, which nobody trains"
        raise BadInput(f"{human_count(tokens)} tokens {bound}")
    steps = round(tokens / batch)
    train = replace(config.train, tokens=steps * batch)
    warmup = min(config.optim.warmup_steps, steps // 10)
    return replace(config, train=train, optim=replace(config.optim, warmup_steps=warmup))


def _longest(
    config: Config,
    plan_of: Callable[[Config], Plan],
    unit: Literal["usd", "hours"],
    limit: float,
) -> Plan:
    """Bisection over whole steps: cost grows with every one of them."""
    own: dict[str, Any] = {unit: limit}  # the goal is the run's own hard limit too
    if getattr(config.budget, unit) is None:
        config = replace(config, budget=replace(config.budget, **own))

    def at(steps: int) -> Plan:
        return plan_of(with_tokens(config, float(steps) * config.train.batch_tokens))

    def within(steps: int) -> bool:
        spent = getattr(at(steps), unit)
        return spent is not None and spent <= limit

    plan = at(1)
    spent: float | None = getattr(plan, unit)
    if spent is None:
        if plan.throughput is None:
            return plan  # does not fit: the plan says so
        raise BadInput(
            f"--{unit} {limit:g}: no price is known for {plan.on}; "
            "give cluster.usd_per_hour=..., or cluster.watts=... cluster.usd_per_kwh=..."
        )
    shown = f"${spent:.2f}" if unit == "usd" else f"{spent:.2f} h"
    if spent > limit:
        raise BadInput(
            f"--{unit} {limit:g} cannot buy one step and one evaluation of {config.recipe} on "
            f"{plan.on}: that takes {shown}"
        )
    if unit == "usd" and spent == 0:
        raise BadInput("--usd on a machine that costs nothing sets no length; use --hours")
    low, high = 1, 2
    while high < MOST_STEPS and within(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return at(low)
