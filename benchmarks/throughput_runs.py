"""Published training runs as Work: benchmarks/published_throughput.csv, each row with its source.

`source` is who published a row (one weight each in the fit), `where` the file or page.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.machine.hardware import Hardware, gpu_named
from gpt2dist.plan.speed.roofline import Work
from gpt2dist.plan.speed.throughput import CLOCK_EXPONENT, step_work

TABLE = Path(__file__).with_name("published_throughput.csv")

UNALIGNED_HEAD = 2.0
"""A vocabulary that is no multiple of 8 and not padded slows the head's products: nanoGPT's step of
124M got 25 % faster by padding 50257 to 50304 (A. Karpathy, February 2023); the head is 0.3 of it.
gpt2dist pads."""

MATURE = 2025.5
"""Since then compiled runs count as of today; torch.compile came at the end of 2022."""

RELIABLE = ("A", "A-", "B+")
"""Raw logs and authors' own tables."""


@dataclass(frozen=True)
class Published:
    rows: list[dict[str, str]]
    work: Work
    "One array element per row."
    seconds: np.ndarray
    age: np.ndarray
    "Years of torch.compile's progress that a run did not have."

    def only(self, mask: np.ndarray) -> Published:
        work = Work(**{f.name: getattr(self.work, f.name)[mask] for f in fields(Work)})
        rows = [row for row, kept in zip(self.rows, mask) if kept]
        return Published(rows, work, self.seconds[mask], self.age[mask])

    @property
    def sources(self) -> list[str]:
        return [row["source"] for row in self.rows]


def read_rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def published(rows: list[dict[str, str]]) -> Published:
    works, seconds = zip(*map(work_of, rows))
    arrays = {f.name: np.array([getattr(w, f.name) for w in works], float) for f in fields(Work)}
    return Published(rows, Work(**arrays), np.array(seconds), np.array(list(map(age_of, rows))))


def age_of(row: dict[str, str]) -> float:
    """Years before MATURE of a compiled run, by its date (YYYY or YYYY-MM); else 0."""
    year, _, month = row["date"].partition("-")
    passed = (float(month) - 0.5) / 12 if month else 0.5
    return max(0.0, MATURE - float(year) - passed) if row["kernels"] == "compiled" else 0.0


def work_of(row: dict[str, str]) -> tuple[Work, float]:
    """A published row as Work, and the seconds of one of its steps."""
    model = ModelConfig(
        **{k: int(row[k]) for k in ("layers", "heads", "width", "context", "vocab")}
    )
    gpu, nodes = gpu_named(row["gpu"]), int(row["nodes"])
    network_gbit = 8 * float(row["internode_gbs"] or 12.5)
    hardware = Hardware(gpu, int(row["gpus"]) // nodes, nodes, network_gbit=network_gbit)
    layout = Layout(
        gpus_per_node=hardware.gpus_per_node,
        nodes=nodes,
        micro_batch=int(row["micro_batch"]),
        accumulation=max(1, round(float(row["accumulation"]))),
        precision=row["precision"],
        mixed_precision=row["mixed_precision"],
        kernels=row["kernels"],
        zero_stage=int(row["zero_stage"]),
        recompute=row["recompute"] == "yes",
        fused_attention=row["attention"] != "stored",
        offload=row["offload"],
    )
    attention_flops = 12 * model.layers * model.width * model.context
    matmul_weights = (float(row["flops_per_token"]) - attention_flops) / 6
    block_weights = (matmul_weights - model.vocab * model.width) / model.layers
    work = step_work(model, hardware, layout, block_weights)
    work = replace(work, overlaps=float(row["overlap"] == "yes"))
    if row["attention"] == "flash 1":
        flops = work.attention_flops + work.attention_v1_flops
        work = replace(work, attention_flops=0, attention_v1_flops=flops)
    if row["watts"]:
        slower = (float(row["watts"]) / gpu.watts) ** CLOCK_EXPONENT
        work = replace(work, flops_per_s=work.flops_per_s * slower)
    micro_tokens = layout.micro_batch * model.context
    if model.vocab % 8:
        head_flops = 6 * micro_tokens * model.vocab * model.width
        work = replace(work, matmul_flops=work.matmul_flops + (UNALIGNED_HEAD - 1) * head_flops)
    tokens = micro_tokens * layout.accumulation * hardware.gpus
    return work, tokens / float(row["tokens_per_s"])


def even(sources: list[str]) -> np.ndarray:
    """Weights under which every source counts the same."""
    counts = Counter(sources)
    return np.array([1 / counts[source] for source in sources])
