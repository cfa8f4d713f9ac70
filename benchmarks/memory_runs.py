"""Published runs whose memory the formulas have to explain; the table names each one's source."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.layout import Layout

Kind = Literal["activations", "device", "reserved", "allocated", "largest", "used"]
"""What was published. activations: of the activations alone; device: used on the card, with all
contexts; reserved, allocated: by PyTorch's allocator; largest: micro-batch that fits where the next
one does not; used: micro-batch of a run tuned by hand, a lower bound."""


@dataclass(frozen=True)
class PublishedRun:
    id: str
    source: str
    framework: str
    gpu: str
    usable_gib: float | None
    model: ModelConfig
    params: int
    layout: Layout
    kind: Kind
    published_gib: float | None
    "None for a largest micro-batch."
    fits: int | None
    "Largest micro-batch known to fit; one more does not when kind is largest."
    note: str


@cache
def published_runs() -> tuple[PublishedRun, ...]:
    with Path(__file__).with_name("published_memory.csv").open(encoding="utf-8") as file:
        return tuple(_run(row) for row in csv.DictReader(file))


def _run(row: dict[str, str]) -> PublishedRun:
    def number(name: str) -> int:
        return int(row[name])

    model = ModelConfig(
        layers=number("layers"),
        heads=number("heads"),
        width=number("width"),
        context=number("context"),
        vocab=number("vocab"),
    )
    layout = Layout(
        gpus_per_node=number("gpus"),
        micro_batch=int(row["micro_batch"] or 1),
        zero_stage=number("zero_stage"),
        recompute=row["recompute"] == "1",
        loss_chunk_tokens=None,
    )
    return PublishedRun(
        id=row["id"],
        source=row["source"],
        framework=row["framework"],
        gpu=row["gpu"],
        usable_gib=float(row["usable_gib"]) if row["usable_gib"] else None,
        model=model,
        params=number("params"),
        layout=layout,
        kind=row["kind"],  # type: ignore[arg-type]
        published_gib=float(row["published_gib"]) if row["published_gib"] else None,
        fits=int(row["fits"]) if row["fits"] else None,
        note=row["note"],
    )
