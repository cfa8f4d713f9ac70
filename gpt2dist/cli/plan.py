"""`gpt2dist plan`: questions in, priced plans out."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2dist.cli.arguments import PROVIDERS, Verbs, add_recipe, add_value, request, split_on
from gpt2dist.config.schema import Count, Hours, Positive, Text, Tokens, Usd
from gpt2dist.errors import BadInput

if TYPE_CHECKING:
    from gpt2dist.config.schema import Config
    from gpt2dist.plan.goals import Basis
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
    add_value(goal, "--tokens", Tokens, metavar="N", help="train this many tokens")
    add_value(goal, "--usd", Usd, metavar="X", help="the longest run for these dollars")
    add_value(goal, "--hours", Hours, metavar="H", help="the longest run in these hours")
    add_value(goal, "--loss", Positive, metavar="L", help="the run that reaches this loss")
    add_value(
        goal,
        "--flops",
        Positive,
        metavar="C",
        help="the run of this compute, 6 x parameters x tokens",
    )
    add_value(goal, "--epochs", Positive, metavar="E", help="see the whole text E times")
    add_value(
        verb, "--dataset-tokens", Tokens, metavar="N", help="different tokens that the text holds"
    )
    verb.add_argument("--spot", action="store_true", help="spot machines only")
    add_value(verb, "--provider", Text, metavar="P", help=PROVIDERS)
    add_value(verb, "--rows", Count, default=15, metavar="N", help="of a table (15)")
    verb.add_argument("--json", action="store_true", help="plans as JSON")
    verb.add_argument(
        "--probe", action="store_true", help="measure 20 real steps on this machine instead"
    )
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one plan, or a table of them."""
    from gpt2dist.config.load import resolve
    from gpt2dist.plan.goals import Basis, Goal
    from gpt2dist.plan.loss.own_fit import OWN_FIT_FILE, load_own_fit
    from gpt2dist.plan.planner import plan_on

    on, overrides = split_on(arguments.overrides)
    recipes = SIZES if arguments.recipe == "all" else (arguments.recipe,)
    configs = [resolve(recipe, overrides) for recipe in recipes]
    goal = request(Goal, arguments)
    basis = Basis(
        goal,
        dataset_tokens=arguments.dataset_tokens or _prepared_tokens(configs[0]),
        own_fit=load_own_fit(Path(configs[0].paths.runs) / OWN_FIT_FILE),
    )
    if arguments.probe:
        return _print_one(arguments, _probe(configs, on, basis), basis)
    if on == "all" or len(configs) > 1 or on is None:
        return _print_table(arguments, *_many(arguments, configs, on, basis))
    spot, provider = arguments.spot, arguments.provider
    plan = plan_on(configs[0], on, spot=spot, provider=provider, basis=basis)
    return _print_one(arguments, plan, basis)


def _prepared_tokens(config: Config) -> float | None:
    """Of the shards that the config names, where they lie on this machine."""
    folder = Path(config.paths.dataset or config.data.source)
    if not (folder / "manifest.json").is_file():
        return None
    from gpt2dist.data.shards import load_dataset_folder

    return float(load_dataset_folder(folder).totals["train"].tokens)


def _many(
    arguments: argparse.Namespace,
    configs: Sequence[Config],
    on: str | None,
    basis: Basis,
) -> tuple[list[Plan], list[Refused]]:
    from gpt2dist.plan import ranking
    from gpt2dist.plan.machine.hardware import parse_on
    from gpt2dist.plan.planner import offers_for

    spot, provider = arguments.spot, arguments.provider
    if on is None or on == "all":
        every = ranking.everywhere if on else ranking.single_gpus
        return ranking.rank(configs, every(spot or None, provider), basis)
    hardware = parse_on(on)
    found = offers_for(configs[0], hardware, spot=spot, provider=provider)
    return ranking.rank(configs, [(hardware, found)], basis)


def _probe(configs: Sequence[Config], on: str | None, basis: Basis) -> Plan:
    if len(configs) > 1 or on is not None:
        raise BadInput("--probe measures one recipe on this machine: give no on= and not `all`")
    from gpt2dist.train.probe import probe_plan

    return probe_plan(configs[0], basis.goal, lambda text: print(text, file=sys.stderr))


def _print_one(arguments: argparse.Namespace, plan: Plan, basis: Basis) -> int:
    from gpt2dist.plan.describe import as_json, compute_optimal_line, describe

    if arguments.json:
        print(json.dumps(as_json(plan, arguments.recipe), indent=2))
        return 0
    print(describe(plan))
    if plan.loss is not None:
        print(f"         {compute_optimal_line(plan, basis.own_fit)}")
    if plan.runs:
        words = shlex.join([arguments.recipe, *plan.settings(arguments.recipe)])
        print(f"train    gpt2dist train {words}")
    return 0


def _print_table(
    arguments: argparse.Namespace, plans: Sequence[Plan], refused: Sequence[Refused]
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
