"""What published losses on a text add to the law, dataset by dataset.

`python benchmarks/loss_accuracy.py --write` fits them on the table of published losses.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SMALLEST_PARAMS, LARGEST_PARAMS = 50e6, 7e9
FEWEST_TOKENS_PER_PARAM, MOST_TOKENS_PER_PARAM = 9.9, 1100.0
"""Where published finals lie close to the law: 79M to 6.9B parameters, 10 to 1,050 tokens each."""


@dataclass(frozen=True)
class Offset:
    """What a dataset's losses add to the law."""

    nats: float
    sigma: float
    "Standard error of a new run inside the published range."
    far_sigma: float
    "The same outside it."
    runs: int
    groups: int
    tokenizer: str
    smallest_params: float
    largest_params: float


def far_from_published(params: float, tokens: float) -> str | None:
    """Why no published run is near, or None; `tokens` with repeats discounted."""
    if params < SMALLEST_PARAMS:
        return f"{params / 1e6:,.0f}M parameters, published runs have 79M or more"
    if params > LARGEST_PARAMS:
        return f"{params / 1e9:,.1f}B parameters, published runs have 6.9B or fewer"
    ratio = tokens / params
    if ratio < FEWEST_TOKENS_PER_PARAM:
        return f"{ratio:,.1f} tokens per parameter, published runs have 10 or more"
    if ratio > MOST_TOKENS_PER_PARAM:
        return f"{ratio:,.0f} tokens per parameter, published runs have 1,050 or fewer"
    return None


@cache
def dataset_offsets() -> dict[str, Offset]:
    """By the name of the text."""
    table = files("gpt2dist.plan.loss").joinpath("dataset_offsets.csv").read_text(encoding="utf-8")
    return {
        row["dataset"]: Offset(
            nats=float(row["nats"]),
            sigma=float(row["sigma"]),
            far_sigma=float(row["far_sigma"]),
            runs=int(row["runs"]),
            groups=int(row["groups"]),
            tokenizer=row["tokenizer"],
            smallest_params=float(row["smallest_params"]),
            largest_params=float(row["largest_params"]),
        )
        for row in csv.DictReader(table.splitlines())
    }
