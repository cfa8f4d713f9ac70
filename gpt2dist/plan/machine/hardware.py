"""What a GPU can do at best, from the table beside this file; every row there names its source."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from gpt2dist.errors import BadInput

PEAK_COLUMNS = {
    "fp32": "fp32_tflops",
    "tf32": "tf32_dense_tflops",
    "bf16": "bf16_dense_tflops",
    "fp16": "fp16_tensor_fp32acc_tflops",
}
"""Dense peaks with fp32 accumulation, as training uses them; never the 2:4-sparse figures."""

MAKER_WORDS = {"nvidia", "geforce", "tesla"}

DROPPED_WORDS = re.compile(r"nvidia|geforce|tesla|quadro|[^a-z0-9]")
"""What people write around a GPU's name; spaces and dashes do not tell two GPUs apart."""

PCIE_GBS = {"3": 15.75, "4": 31.5, "5": 63.0}
"""One direction of 16 lanes, by PCI Express generation."""


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
    sky_names: tuple[str, ...]
    "SkyPilot's names and their provider variants, the canonical one first."
    bandwidth_gbs: float
    nvlink_gbs: float | None
    "Both directions, where NVLink joins all GPUs of a node; bridges between pairs do not count."
    pcie_gbs: float
    "One direction."
    has_bf16: bool
    measured_tflops: float | None
    "Best matrix product that was measured, in 16 bits."
    ceiling_like: str | None
    "Without a measurement: the measured GPU of the table whose chip is the nearest relative."
    data_center: bool
    "Not a GeForce card."
    generation: float
    "CUDA compute capability."

    @property
    def key(self) -> str:
        """The name that `on=` takes and that plans print."""
        return self.sky_names[0]


@dataclass(frozen=True)
class Hardware:
    """One kind of node, `nodes` times."""

    gpu: Gpu
    gpus_per_node: int = 1
    nodes: int = 1

    @property
    def gpus(self) -> int:
        return self.gpus_per_node * self.nodes

    def __str__(self) -> str:
        count = f":{self.gpus_per_node}" if self.gpus > 1 else ""
        return self.gpu.key + count + (f"x{self.nodes}" if self.nodes > 1 else "")


def parse_on(text: str) -> Hardware:
    """`A100`, `RTX3090:4`, or `A100:8x2` for 8 GPUs on each of 2 nodes. BadInput otherwise."""
    name, colon, counts = text.strip().partition(":")
    per_node, _, nodes = counts.strip().partition("x")
    if not colon:
        per_node = nodes = "1"
    elif "x" not in counts:
        nodes = "1"
    if not all(re.fullmatch(r"[1-9][0-9]{0,5}", count) for count in (per_node, nodes)):
        raise BadInput(
            f"on={text}: write GPU, GPU:COUNT or GPU:COUNTxNODES with whole counts from 1, "
            "such as A100-80GB:8 or A100:8x2"
        )
    return Hardware(gpu_named(name), int(per_node), int(nodes))


def gpu_named(name: str) -> Gpu:
    """The GPU that SkyPilot, this table or a person calls so, in any case and spacing."""
    named = _by_any_name()
    gpu = named.get(_squeezed(name))
    if gpu is None:
        near = get_close_matches(_squeezed(name), named, n=6, cutoff=0.5)
        keys = list(dict.fromkeys(named[match].key for match in near))[:3]
        known = " or ".join(keys) if keys else ", ".join(gpu.key for gpu in all_gpus())
        raise BadInput(f"unknown GPU {name!r}; did you mean {known}?")
    return gpu


def all_gpus() -> tuple[Gpu, ...]:
    """Every GPU of the table, in its order."""
    return tuple({gpu.name: gpu for gpu in _table().values()}.values())


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


def _squeezed(name: str) -> str:
    return DROPPED_WORDS.sub("", name.lower())


@cache
def _by_any_name() -> dict[str, Gpu]:
    """Squeezed names; SkyPilot's win, then the table's own, then both without RTX ("4090")."""
    names: dict[str, Gpu] = {}
    for gpu in all_gpus():
        names.update((_squeezed(name), gpu) for name in gpu.sky_names)
    for name, gpu in _table().items():
        names.setdefault(_squeezed(name), gpu)
    for name, gpu in list(names.items()):
        names.setdefault(name.removeprefix("rtx"), gpu)
    return names


@cache
def _table() -> dict[str, Gpu]:
    table = {}
    with files("gpt2dist.plan.machine").joinpath("gpus.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            gpu = _gpu_of(row)
            for name in (row["name"], *row["aliases"].split(";")):
                table[_key(name)] = gpu
    return table


def _gpu_of(row: dict[str, str]) -> Gpu:
    measured = row["measured_matmul_bf16_or_fp16_tflops"]
    return Gpu(
        name=row["name"],
        memory_gib=float(row["mem_usable_gib"]),
        watts=float(row["tdp_w"]),
        peak_tflops={p: float(row[c]) for p, c in PEAK_COLUMNS.items() if row[c]},
        source=row["source"],
        sky_names=tuple(row["sky_names"].split(";")),
        bandwidth_gbs=float(row["mem_bw_gbs"]),
        nvlink_gbs=float(row["nvlink_bidir_gbs"]) if row["nvlink_span"] == "node" else None,
        pcie_gbs=PCIE_GBS[row["pcie"].removeprefix("PCIe")[0]],
        has_bf16=row["bf16_support"] == "yes",
        measured_tflops=float(measured) if measured else None,
        ceiling_like=row["ceiling_like"] or None,
        data_center="GeForce" not in row["aliases"],
        generation=float(row["compute_capability"]),
    )
