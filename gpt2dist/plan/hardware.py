"""What a GPU can do at best, from the table beside this file; every row there names its source."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

PEAK_COLUMNS = {
    "fp32": "fp32_tflops",
    "tf32": "tf32_dense_tflops",
    "bf16": "bf16_dense_tflops",
    "fp16": "fp16_tensor_fp32acc_tflops",
}
"""Dense peaks with fp32 accumulation, as training uses them; never the 2:4-sparse figures."""

MAKER_WORDS = {"nvidia", "geforce", "tesla"}


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_gib: float
    "What the driver leaves of the nominal memory."
    watts: float
    "Board power limit."
    peak_tflops: dict[str, float]
    "By precision; one that the hardware lacks is absent."
    source: str


def find_gpu(device_name: str) -> Gpu | None:
    """The table's row for what torch.cuda.get_device_name() says; None when it has no such row.

    Only whole names match: a "4090 Laptop GPU", a MIG slice or an NVL part is another device.
    """
    return _table().get(_key(device_name))


def peak_tflops(device_name: str, precision: str) -> float | None:
    """Dense peak of one GPU in TFLOP/s; None when the GPU or its precision is unknown.

    `precision` is fp32 (plain cores), tf32, bf16 or fp16.
    """
    gpu = find_gpu(device_name)
    return None if gpu is None else gpu.peak_tflops.get(precision)


def _key(name: str) -> str:
    return " ".join(word for word in name.lower().split() if word not in MAKER_WORDS)


@cache
def _table() -> dict[str, Gpu]:
    table = {}
    with files("gpt2dist.plan").joinpath("gpus.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            gpu = Gpu(
                name=row["name"],
                memory_gib=float(row["mem_usable_gib"]),
                watts=float(row["tdp_w"]),
                peak_tflops={p: float(row[c]) for p, c in PEAK_COLUMNS.items() if row[c]},
                source=row["source"],
            )
            for name in (row["name"], *row["aliases"].split(";")):
                table[_key(name)] = gpu
    return table
