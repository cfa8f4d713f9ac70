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

DROPPED_WORDS = re.compile(r"nvidia|geforce|tesla|quadro|generation|[^a-z0-9]")
"""What people write around a GPU's name; spaces and dashes do not tell two GPUs apart."""

TIMES = r"\s*[x*\u00d7]\s*"
GPUS, NODES = (rf"(?P<{which}>[1-9][0-9]{{0,5}})" for which in ("gpus", "nodes"))
FORMS = (
    r"(?P<name>[^:]+)",
    rf"(?P<name>[^:]+?)(?:\s*:\s*|{TIMES}){GPUS}",
    rf"(?P<name>[^:]+?)(?:\s*:\s*|{TIMES}){GPUS}{TIMES}{NODES}",
    rf"{GPUS}{TIMES}(?P<name>[^:]+)",
    rf"{NODES}{TIMES}{GPUS}{TIMES}(?P<name>[^:]+)",
)
"""What `on=` takes. A reading counts only where its name is a GPU's, so "4x3090" has one."""

PCIE_GBS = {"3": 15.75, "4": 31.5, "5": 63.0}
"""One direction of 16 lanes, by PCI Express generation."""

NETWORK_GBIT = 100.0
"""Between machines, per machine, where nobody says otherwise. Assumed: what clouds give machines
of eight GPUs at least (AWS p4d 400, GCP a2-highgpu-8g 100)."""


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
    "The canonical name first, then SkyPilot's and other people's for this very card."
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
    generation: float
    "CUDA compute capability."
    families: tuple[str, ...] = ()
    "Names that it shares with its sister cards: A100-80GB is sold as SXM and as PCIe."

    @property
    def key(self) -> str:
        """The card's one name: `on=` takes it, plans and prices print it."""
        return self.sky_names[0]


@dataclass(frozen=True)
class Hardware:
    """One kind of node, `nodes` times."""

    gpu: Gpu
    gpus_per_node: int = 1
    nodes: int = 1
    family: str = ""
    "The shared name that was asked for (A100-80GB): any of its cards will do, `gpu` is the first."
    network_gbit: float = NETWORK_GBIT
    "What one machine sends to the others."

    @property
    def gpus(self) -> int:
        return self.gpus_per_node * self.nodes

    @property
    def name(self) -> str:
        """What was asked for: the family where one was, else the card."""
        return self.family or self.gpu.key

    def __str__(self) -> str:
        count = f":{self.gpus_per_node}" if self.gpus > 1 else ""
        return self.name + count + (f"x{self.nodes}" if self.nodes > 1 else "")


def parse_on(text: str) -> Hardware:
    """`A100`, `4x3090`, `H100x8`, `A100-80GB:8x2` or `2x8xH100` (two machines of eight).

    After a name the GPUs of a machine stand first, before it the machines. BadInput otherwise.
    """
    readings = _readings(text)
    if not readings:
        raise BadInput(_unreadable(text))
    if len(readings) > 1:
        forms = " or ".join(sorted(f"{name}:{gpus}x{nodes}" for name, gpus, nodes in readings))
        raise BadInput(f"on={text} can be read in several ways; write {forms}")
    ((name, gpus, nodes),) = readings
    gpu = gpu_named(name)
    shared = [family for family in gpu.families if squeezed_name(family) == squeezed_name(name)]
    return Hardware(gpu, gpus, nodes, family=shared[0] if shared else "")


def _readings(text: str) -> set[tuple[str, int, int]]:
    """Every way to read it as a known name, GPUs per machine and machines."""
    found = set()
    for form in FORMS:
        match = re.fullmatch(form, text.strip(), re.IGNORECASE)
        if match and squeezed_name(match["name"]) in _by_any_name():
            counts = {"gpus": "1", "nodes": "1", **match.groupdict()}
            found.add((match["name"].strip(), int(counts["gpus"]), int(counts["nodes"])))
    return found


def _unreadable(text: str) -> str:
    name = text.partition(":")[0]
    if squeezed_name(name) in _by_any_name():
        return (
            f"on={text}: write GPU, GPU:COUNT or GPU:COUNTxNODES with whole counts from 1, "
            "such as A100-80GB:8 or A100:8x2"
        )
    matches = [re.fullmatch(form, text.strip(), re.IGNORECASE) for form in FORMS]
    names = [match["name"].strip() for match in matches if match]
    likely = (n for n in names if not n.isdigit() and len(squeezed_name(n)) > 2)
    return _unknown(min(likely, key=len, default=text))


def gpu_named(name: str) -> Gpu:
    """The GPU that SkyPilot, this table or a person calls so, in any case and spacing.

    Of a family's cards (A100-80GB) the first; cards_named has all. BadInput where the name leaves
    open what it is.
    """
    return cards_named(name)[0]


def cards_named(name: str) -> tuple[Gpu, ...]:
    """The cards that a name may mean: one, or all of a family."""
    cards = _by_any_name().get(squeezed_name(name), ())
    if not cards:
        raise BadInput(_unknown(name))
    family = any(squeezed_name(name) == squeezed_name(shared) for shared in cards[0].families)
    if len(cards) > 1 and not family:
        raise BadInput(f"{name} may be several cards: {' or '.join(card.key for card in cards)}?")
    return cards


def _unknown(name: str) -> str:
    named = _by_any_name()
    near = get_close_matches(squeezed_name(name), named, n=6, cutoff=0.5)
    keys = list(dict.fromkeys(card.key for match in near for card in named[match]))[:4]
    known = " or ".join(keys) if keys else ", ".join(gpu.key for gpu in all_gpus())
    return f"unknown GPU {name!r}; did you mean {known}?"


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


def squeezed_name(name: str) -> str:
    """A GPU's name without case, spaces, dashes and its maker's words."""
    return DROPPED_WORDS.sub("", name.lower())


@cache
def _by_any_name() -> dict[str, tuple[Gpu, ...]]:
    """Squeezed names; a GeForce card (RTX x0y0) is also called without RTX ("4090")."""
    names: dict[str, list[Gpu]] = {}
    for name, gpu in _table().items():
        written = {squeezed_name(each) for each in (name, *gpu.sky_names, *gpu.families)}
        for each in written | {re.sub(r"^rtx(?=\d0[5-9]0)", "", each) for each in written}:
            if gpu not in names.setdefault(each, []):
                names[each].append(gpu)
    return {name: tuple(gpus) for name, gpus in names.items()}


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
        pcie_gbs=PCIE_GBS[row["pcie"][4]] / (2 if "x8" in row["pcie"] else 1),
        has_bf16=row["bf16_support"] == "yes",
        measured_tflops=float(measured) if measured else None,
        ceiling_like=row["ceiling_like"] or None,
        generation=float(row["compute_capability"]),
        families=tuple(filter(None, row["family"].split(";"))),
    )
