"""`gpt2dist plan`: questions in, priced plans out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2dist.cli.arguments import PROVIDERS, Verbs, add_recipe, count, split_on
from gpt2dist.errors import BadInput

if TYPE_CHECKING:
    from gpt2dist.config.schema import Config
    from gpt2dist.plan.goals import Goal
    from gpt2dist.plan.loss.predict import OwnFit
    from gpt2dist.plan.plan_record import Plan
    from gpt2dist.plan.ranking import Refused

SIZES = ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m")


def add_parser(verbs: Verbs) -> None:
    """`plan RECIPE [on=...] [a.b=value ...]`."""
    verb = verbs.add_parser(
        "plan",
        help="memory, hours, dollars and loss of a run, before it is paid for",
        description="Plan a recipe, or `all` four sizes, on given hardware: on=A100-80GB:8, "
        "on=RTX3090:4, on=A100:8x2 (two nodes), or on=all for every machine for rent. Without "
        "on= every single GPU is listed.",
    )
    add_recipe(verb, "debug, gpt2-124m, ..., a .yaml file, or all")
    goal = verb.add_mutually_exclusive_group()
    goal.add_argument("--tokens", type=count, metavar="N", help="train this many tokens")
    goal.add_argument("--usd", type=float, metavar="X", help="the longest run for these dollars")
    goal.add_argument("--hours", type=float, metavar="H", help="the longest run in these hours")
    goal.add_argument("--loss", type=float, metavar="L", help="the run that reaches this loss")
    verb.add_argument("--spot", action="store_true", help="spot machines only")
    verb.add_argument("--provider", metavar="P", help=PROVIDERS)
    verb.add_argument("--rows", type=int, default=15, metavar="N", help="of a table (15)")
    verb.add_argument("--json", action="store_true", help="plans as JSON")
    verb.add_argument(
        "--probe", action="store_true", help="measure 20 real steps on this machine instead"
    )
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one plan, or a table of them."""
    from gpt2dist.config.load import resolve
    from gpt2dist.plan.goals import Goal, check_goal
    from gpt2dist.plan.loss.own_fit import OWN_FIT_FILE, load_own_fit

    on, overrides = split_on(arguments.overrides)
    recipes = SIZES if arguments.recipe == "all" else (arguments.recipe,)
    configs = [resolve(recipe, overrides) for recipe in recipes]
    goal = Goal(arguments.tokens, arguments.usd, arguments.hours, arguments.loss)
    check_goal(goal)
    if arguments.rows < 1:
        raise BadInput(f"--rows {arguments.rows} must be at least 1")
    own_fit = load_own_fit(Path(configs[0].paths.runs) / OWN_FIT_FILE)
    if arguments.probe:
        return _probe(arguments, configs, on, goal, own_fit)
    if on == "all" or len(configs) > 1 or on is None:
        plans, refused = _many(arguments, configs, on, goal, own_fit)
        return _print_table(arguments, plans, refused, configs[0], own_fit)
    one = _one(arguments, configs[0], on, goal, own_fit)
    return _print_one(arguments, one, configs[0], own_fit)


def _one(
    arguments: argparse.Namespace, config: Config, on: str, goal: Goal, own_fit: OwnFit | None
) -> Plan:
    from gpt2dist.plan.goals import plan_for
    from gpt2dist.plan.machine.hardware import parse_on
    from gpt2dist.plan.planner import offer_for, plan_run

    hardware = parse_on(on)
    offer = offer_for(config, hardware, spot=arguments.spot, provider=arguments.provider)
    return plan_for(
        config,
        goal,
        lambda c: plan_run(c, hardware, offer, spot=arguments.spot, own_fit=own_fit),
        own_fit=own_fit,
    )


def _many(
    arguments: argparse.Namespace,
    configs: Sequence[Config],
    on: str | None,
    goal: Goal,
    own_fit: OwnFit | None,
) -> tuple[list[Plan], list[Refused]]:
    from gpt2dist.plan import ranking
    from gpt2dist.plan.machine.hardware import parse_on

    spot = True if arguments.spot else None
    if on == "all":
        return ranking.everywhere(
            configs, goal, spot=spot, provider=arguments.provider, own_fit=own_fit
        )
    if on is None:
        return ranking.single_gpus(
            configs, goal, spot=spot, provider=arguments.provider, own_fit=own_fit
        )
    return ranking.on_one(
        configs,
        parse_on(on),
        goal,
        spot=arguments.spot,
        provider=arguments.provider,
        own_fit=own_fit,
    )


def _probe(
    arguments: argparse.Namespace,
    configs: Sequence[Config],
    on: str | None,
    goal: Goal,
    own_fit: OwnFit | None,
) -> int:
    if len(configs) > 1 or on is not None:
        raise BadInput("--probe measures one recipe on this machine: give no on= and not `all`")
    from gpt2dist.train.probe import probe_plan

    plan = probe_plan(configs[0], goal, own_fit, lambda text: print(text, file=sys.stderr))
    return _print_one(arguments, plan, configs[0], own_fit)


def _print_one(
    arguments: argparse.Namespace, plan: Plan, config: Config, own_fit: OwnFit | None
) -> int:
    from gpt2dist.plan.describe import as_json, compute_optimal_line, describe

    if arguments.json:
        print(json.dumps(as_json(plan), indent=2))
        return 0
    print(describe(plan))
    if plan.loss is not None:
        print(f"         {compute_optimal_line(plan, config.data.source, own_fit)}")
    if plan.runs:
        words = " ".join(plan.settings())
        print(f"train    gpt2dist train {arguments.recipe} {words}")
    return 0


def _print_table(
    arguments: argparse.Namespace,
    plans: Sequence[Plan],
    refused: Sequence[Refused],
    config: Config,
    own_fit: OwnFit | None,
) -> int:
    from gpt2dist.plan.describe import as_json, refusals, table

    if arguments.json:
        print(json.dumps([as_json(plan) for plan in plans], indent=2))
        return 0
    if plans:
        print(table(plans, arguments.rows, equal_hours=arguments.hours is not None))
    if refused and (not plans or len(plans) < arguments.rows):
        print(refusals(refused))
    if not plans:
        raise BadInput("nothing of what was asked for is possible; the lines above say why")
    return 0
