"""Plans asked backwards: how far do these dollars, these hours go; what does this loss take?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.human import human_count
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.loss.predict import OwnFit, published_text, tokens_for_loss
from gpt2dist.plan.plan_record import Plan

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


def plan_for(
    config: Config,
    goal: Goal,
    plan_of: Callable[[Config], Plan],
    *,
    own_fit: OwnFit | None = None,
    dataset_tokens: float | None = None,
) -> Plan:
    """The longest run that keeps within the goal's dollars or hours, or the one that it takes.

    `plan_of` prices a config on fixed hardware. Raises BadInput when the goal cannot be met:
    not even one evaluation for these dollars, or a loss that this model never reaches.
    """
    if goal.tokens is not None:
        return plan_of(with_tokens(config, goal.tokens))
    if goal.loss is not None:
        source = config.data.source
        tokens = tokens_for_loss(parameters(config.model), goal.loss, source, own_fit=own_fit)
        if tokens is None:
            raise BadInput(
                f"--loss {goal.loss:g}: no number of tokens of {source} brings {config.recipe} "
                "there as far as is known; take a larger model or a higher loss"
            )
        return plan_of(with_tokens(config, max(tokens, config.train.batch_tokens)))
    if goal.flops is not None:
        return plan_of(with_tokens(config, goal.flops / (6 * parameters(config.model))))
    if goal.epochs is not None:
        unique = dataset_tokens or published_text(config.data.source)[1]
        if unique is None:
            raise BadInput(
                f"--epochs {goal.epochs:g}: how many tokens data.source={config.data.source} holds "
                "is not known; give --dataset-tokens, such as --dataset-tokens 50M"
            )
        return plan_of(with_tokens(config, goal.epochs * unique))
    if goal.usd is not None:
        return _longest(_with_limit(config, usd=goal.usd), plan_of, "usd", goal.usd)
    if goal.hours is not None:
        return _longest(_with_limit(config, hours=goal.hours), plan_of, "hours", goal.hours)
    return plan_of(config)


def _with_limit(config: Config, **limit: float) -> Config:
    """The goal is the run's own hard limit too, unless the config has one already."""
    own = {name: value for name, value in vars(config.budget).items() if value is not None}
    return replace(config, budget=replace(config.budget, **{**limit, **own}))


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


def _longest(config: Config, plan_of: Callable[[Config], Plan], unit: str, limit: float) -> Plan:
    """Bisection over whole steps: cost grows with every one of them."""

    def at(steps: int) -> tuple[Plan, float | None]:
        plan = plan_of(with_tokens(config, float(steps) * config.train.batch_tokens))
        return plan, plan.usd if unit == "usd" else plan.hours

    plan, spent = at(1)
    if spent is None:
        if plan.throughput is None:
            return plan  # does not fit: the plan says so
        raise BadInput(
            f"--{unit} {limit:g}: no price is known for {plan.gpu}:{plan.gpus // plan.nodes}; "
            "give cluster.usd_per_hour=..., or cluster.watts=... cluster.usd_per_kwh=..."
        )
    shown = f"${spent:.2f}" if unit == "usd" else f"{spent:.2f} h"
    if spent > limit:
        raise BadInput(
            f"--{unit} {limit:g} cannot buy one step and one evaluation of {config.recipe} on "
            f"{plan.gpu}:{plan.gpus // plan.nodes}: that takes {shown}"
        )
    if unit == "usd" and spent == 0:
        raise BadInput("--usd on a machine that costs nothing sets no length; use --hours")
    low, high = 1, 2
    while high < MOST_STEPS and _amount(at(high)[1]) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _amount(at(middle)[1]) <= limit else (low, middle)
    return at(low)[0]


def _amount(value: float | None) -> float:
    return float("inf") if value is None else value
