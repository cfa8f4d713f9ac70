"""The question people ask first: which GPT-2 trains on which GPU, how long, for how much?

    python benchmarks/feasibility.py            prints docs/feasibility.md
    python benchmarks/feasibility.py --write    writes it

All figures are `gpt2dist plan`'s, at the dated prices in the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

from gpt2dist.config.load import resolve
from gpt2dist.config.schema import ClusterConfig, Config
from gpt2dist.human import human_count, human_duration, usd
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.machine.hardware import Gpu, Hardware, gpu_named
from gpt2dist.plan.machine.prices import Offer, offers, own_offer
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.planner import plan_run

RECIPES = ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m")
GPUS = (
    "T4", "L4", "RTX4070Ti", "RTX4070TiSUPER", "RTX3090", "RTX4090",
    "A100-40GB-SXM", "A100-80GB-SXM", "A100-80GB-PCIe", "H100-SXM", "H200",
)  # fmt: skip
COUNTS = (1, 2, 4, 8)
USD_PER_KWH = 0.30
HOST_WATTS = 150.0
"""Of the machine around the GPUs; assumed."""

INTRODUCTION = f"""# What trains where, how long, for how much

Made by `python benchmarks/feasibility.py --write`; predictions, not measurements. How far they
are off on published runs: [memory](planner-memory.md), [speed](planner-throughput.md),
[loss](planner-loss.md). Prices are the package's table of 2026-11; `gpt2dist plan RECIPE
on=GPU:COUNT` gives one cell with all its parts, at today's prices where SkyPilot is installed.

- **memory**: of one GPU, at the micro-batch that training would take (in brackets), of what the
  driver leaves.
- **hours and dollars**: the whole recipe on 1, 2, 4, 8 GPUs of one machine, with setup, data
  preparation, evaluation and checkpoints, at the cheapest on-demand offer of that size. *Italic*:
  nobody in the table rents it; electricity at ${USD_PER_KWH:.2f}/kWh of the cards' power limits
  and {HOST_WATTS:.0f} W around them. Letters name what has to change in the recipe to make it fit.
- **-**: does not fit with anything that `gpt2dist train` offers."""

DOCUMENT = Path(__file__).parents[1] / "docs" / "feasibility.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/feasibility.md")
    if parser.parse_args().write:
        DOCUMENT.write_text(document())
    else:
        print(document(), end="")


def document() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    for recipe in RECIPES:
        config = resolve(recipe)
        yield ""
        yield (
            f"## {recipe}: {human_count(parameters(config.model))} parameters, "
            f"{human_count(config.train.tokens)} tokens"
        )
        yield ""
        yield from _table(config)


def _table(config: Config) -> Iterator[str]:
    yield "| GPU | memory GiB | " + " | ".join(f"{count} x" for count in COUNTS) + " |"
    yield "|---|---|" + "---|" * len(COUNTS)
    letters: dict[str, str] = {}
    for name in GPUS:
        gpu = gpu_named(name)
        cells = [_cell(config, gpu, count, letters) for count in COUNTS]
        yield f"| {name} | {_memory(config, gpu)} | " + " | ".join(cells) + " |"
    if letters:
        yield ""
        yield "; ".join(f"{letter}: {names}" for names, letter in letters.items()) + "."


def _memory(config: Config, gpu: Gpu) -> str:
    plan = plan_run(config, Hardware(gpu), None)
    if not plan.runs:
        return f"- of {gpu.memory_gib:.0f}"
    return f"{plan.peak_gib:.1f} of {gpu.memory_gib:.0f} ({plan.layout.micro_batch})"


def _cell(config: Config, gpu: Gpu, count: int, letters: dict[str, str]) -> str:
    offer = _cheapest(gpu, count)
    own = offer is None
    if offer is None:
        power = ClusterConfig(watts=count * gpu.watts + HOST_WATTS, usd_per_kwh=USD_PER_KWH)
        offer = own_offer(power, gpu.key, count)
    plan: Plan = plan_run(config, Hardware(gpu, count), offer)
    if not plan.runs or plan.hours is None or plan.usd is None:
        return "-"
    mark = ""
    if plan.measures:
        names = " + ".join(measure.name for measure in plan.measures)
        mark = " " + letters.setdefault(names, chr(ord("a") + len(letters)))
    price = f"*{usd(plan.usd)}*" if own else usd(plan.usd)
    return f"{human_duration(3600 * plan.hours)}, {price}{mark}"


def _cheapest(gpu: Gpu, count: int) -> Offer | None:
    """From the package's table: the page is the same whatever catalog a machine has."""
    with as_file(files("gpt2dist.plan.machine") / "prices.csv") as table:
        found = offers(gpu.key, count, spot=False, table=table)
    return found[0] if found else None


if __name__ == "__main__":
    main()
