"""Published results on the text that the compared runs learned, to hold them against."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.arithmetic import flops_per_token, parameters
from gpt2dist.plan.loss.predict import published_text
from gpt2dist.plan.machine.prices import offers

Row = dict[str, str]

GPT2_SHAPES = tuple(
    ModelConfig(layers=layers, width=width, heads=heads)
    for layers, width, heads in ((12, 768, 12), (24, 1024, 16), (36, 1280, 20), (48, 1600, 25))
)
"124M, 355M, 774M, 1558M. FLOPs of published models of another shape are unknown."


@dataclass(frozen=True)
class Reference:
    """A released checkpoint's loss (a level), or a published run with what it took (a point)."""

    kind: Literal["level", "point"]
    label: str
    "Empty for points in the middle of a series."
    series: str
    "Points of one series are joined by a line; empty: stands alone."
    loss: float
    spent: Mapping[str, float | None]
    "By axis: usd, hours, tokens, flops."
    source: str


def references_for(source: str, tokenizer: str) -> list[Reference]:
    """References on the same text in GPT-2's tokens; else none."""
    name, _ = published_text(source)
    if name is None or tokenizer != "gpt2":
        return []
    return [
        _reference(extra, row)
        for extra, row in _table()
        if row["evaluated_on"].startswith(f"{name} ") and row["tokenizer"] == "GPT-2"
    ]


def _reference(extra: Row, row: Row) -> Reference:
    tokens = float(row["tokens"]) if row["tokens"] else None
    hours = float(extra["hours"]) if extra["hours"] else None
    source = row["source"]
    dollars = None
    if hours is not None:
        price, basis = _price(extra["gpu"], int(extra["gpus"]))
        dollars = hours * price
        source += (
            f"; {hours:.3g} h on {extra['gpus']} x {extra['gpu']} ({extra['hours_source']}), "
            f"dollars at ${price:.2f}/h ({basis})"
        )
    per_token = _flops_per_token(int(float(row["params"])))
    flops = None if tokens is None or per_token is None else per_token * tokens
    spent = {"usd": dollars, "hours": hours, "tokens": tokens, "flops": flops}
    kind: Literal["level", "point"] = "level" if row["kind"] == "checkpoint eval" else "point"
    return Reference(kind, extra["label"], extra["series"], float(row["loss"]), spent, source)


def _flops_per_token(params: int) -> float | None:
    for shape in GPT2_SHAPES:
        if parameters(shape) == params:
            return float(flops_per_token(shape))
    return None


@cache
def _price(gpu: str, gpus: int) -> tuple[float, str]:
    """Of the cheapest such machine on demand, today's catalog or the package's dated table."""
    cheapest = offers(gpu, gpus, spot=False)[0]
    return cheapest.usd_per_hour, f"{cheapest.provider}, {cheapest.source}"


@cache
def _table() -> tuple[tuple[Row, Row], ...]:
    """Rows of references.csv, each with the row of the published losses that it adds to."""
    losses = {row["id"]: row for row in _rows("gpt2dist.plan.loss", "published_losses.csv")}
    extras = _rows("gpt2dist.compare.read", "references.csv")
    return tuple((extra, losses[extra["id"]]) for extra in extras)


def _rows(package: str, name: str) -> list[Row]:
    with files(package).joinpath(name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
