"""Reads the price files that SkyPilot keeps on this machine, without importing SkyPilot.

Layout and columns: SkyPilot 0.14, sky/catalog/common.py and gcp_catalog.py; schema v8. It keeps
CLOUD/vms.csv under ~/.sky/catalogs/v8, or under $SKY_RUNTIME_DIR in place of the home directory.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path

from gpt2dist.plan.machine.hardware import Gpu, all_gpus, squeezed_name

COLUMNS = ("InstanceType", "AcceleratorName", "AcceleratorCount", "Price", "SpotPrice", "Region")
GCP_COLUMNS = ("AvailabilityZone", "MemoryGiB", "vCPUs")

GCP_HOSTS = {
    "A100": "a2-highgpu-{}g",
    "A100-80GB": "a2-ultragpu-{}g",
    "H100": "a3-highgpu-{}g",
    "H200": "a3-ultragpu-{}g",
    "B200": "a4-highgpu-{}g",
}
"""GCP sells the GPUs and the machine that holds them apart; these types hold them."""

GCP_L4_HOSTS = {1: "g2-standard-4", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"}
GCP_N1_VCPUS = {"T4": {1: 4, 2: 8, 4: 48}, "V100": {1: 8, 2: 16, 4: 32, 8: 64}}
"""As SkyPilot pairs them: the cheapest n1 with so many vCPUs and 4 GiB for each."""

VAST_INSTANCE = re.compile(r"\d+x-(?P<gpu>.+)-\d+-\d+")
"""SkyPilot's Vast accelerators lose Ti, SUPER, SXM and PCIe; the instances keep them."""

MEMORY_SLACK = 0.15
"""How far a card's memory may be from the table's: a 4090 rebuilt with 48 GB is another card."""

LAMBDA_PCIE = ("gpu_1x_a100", "gpu_2x_a100", "gpu_4x_a100")
"""Lambda's API describes these as "A100 (40 GB PCIe)"; its other A100 types are SXM4."""


class UnusableCatalog(Exception):
    """A price file that is there and cannot be used; says which and why in one line."""


@dataclass(frozen=True)
class Listing:
    """A machine of known cards at one place and price."""

    instance: str
    gpu: str
    gpus: int
    card: str
    "Key of the card that it holds, as the accelerator, the instance's name or its GPU text tell."
    region: str
    spot: bool
    usd_per_hour: float
    host_gib: float | None
    vcpus: float | None


@dataclass(frozen=True)
class Catalog:
    listings: tuple[Listing, ...]
    "The cheapest zone of each region."
    date: str
    "When SkyPilot wrote the file."


def catalog_machines(provider: str) -> Catalog | None:
    """What SkyPilot's file says about one provider; None where this machine has no such file."""
    folder = Path(os.path.expanduser(os.environ.get("SKY_RUNTIME_DIR", "~")), ".sky", "catalogs")
    versions = [path for path in folder.glob("v*") if re.fullmatch(r"v\d+", path.name)]
    for version in sorted(versions, key=lambda path: -int(path.name[1:])):
        path = version / provider / "vms.csv"
        if path.is_file():
            return read_catalog(path, provider, path.stat().st_mtime_ns)
    return None


@cache
def read_catalog(path: Path, provider: str, modified_ns: int) -> Catalog:
    """One provider's vms.csv: the machines whose cards the hardware table knows."""
    names = {
        name
        for gpu in all_gpus()
        for name in (*gpu.sky_names, *gpu.families)
        if name in gpu.families or len(_cards(name)) == 1
    }
    hosts = "|(?:^|,)(?:a2|a3|a4|g2|n1)-" if provider == "gcp" else ""
    # Whole files run to tens of megabytes; csv sees only the lines that can matter.
    relevant = re.compile(rf",(?:{'|'.join(map(re.escape, sorted(names)))}),{hosts}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader([file.readline()]), [])
            needed = COLUMNS + (GCP_COLUMNS if provider == "gcp" else ())
            missing = [column for column in needed if column not in header]
            if missing:
                raise UnusableCatalog(f"{path} lacks the column {missing[0]}")
            lines = [line for line in file if relevant.search(line)]
            rows = [row for row in csv.DictReader(lines, header) if None not in row.values()]
            if provider == "gcp":
                rows = list(_with_hosts(rows))
            known = (row for row in rows if row["AcceleratorName"] in names)
            listings = _cheapest_zones(listing for row in known for listing in _listings(row))
    except (OSError, ValueError, csv.Error) as error:
        raise UnusableCatalog(f"{path} cannot be read ({error})") from None
    return Catalog(listings, date.fromtimestamp(modified_ns / 1e9).isoformat())


def _listings(row: Mapping[str, str]) -> Iterator[Listing]:
    """On demand and spot, as far as it is sold so; none for a share of a GPU or an unknown card."""
    gpu, instance = row["AcceleratorName"], row["InstanceType"]
    gpus = float(row["AcceleratorCount"])
    card = _card(gpu, instance, row.get("GpuInfo") or "", gpus)
    for spot, column in ((False, "Price"), (True, "SpotPrice")):
        usd_per_hour = _number(row[column])
        if usd_per_hour is not None and card and gpus.is_integer():
            yield Listing(
                instance=instance,
                gpu=gpu,
                gpus=int(gpus),
                card=card,
                region=row["Region"],
                spot=spot,
                usd_per_hour=usd_per_hour,
                host_gib=_number(row.get("MemoryGiB")),
                vcpus=_number(row.get("vCPUs")),
            )


def _number(text: str | None) -> float | None:
    """Empty and 0 both say "not sold so": Vast writes 0.00 for spot prices that it lacks."""
    number = float(text) if text else 0.0
    if not 0 <= number < math.inf:
        raise ValueError(f"{text} is no price, size or count")
    return number or None


def _card(gpu: str, instance: str, gpu_info: str, count: float) -> str:
    """One accelerator name covers several cards at some providers; '' for a card of no table."""
    market = VAST_INSTANCE.fullmatch(instance)
    if market:
        total_mib = re.search(r"'TotalGpuMemoryInMiB': (\d+)", gpu_info)
        gib = int(total_mib[1]) / count / 1024 if total_mib else None
        fitting = [
            card.key
            for card in _cards(market["gpu"])
            if gib is None or abs(gib / card.memory_gib - 1) < MEMORY_SLACK
        ]
        return fitting[0] if len(fitting) == 1 else ""
    if instance in LAMBDA_PCIE:
        return "A100-40GB-PCIe"
    keys = [card.key for card in _cards(gpu)]
    if "pcie" in f"{instance} {gpu_info}".lower():
        keys = [key for key in keys if "PCIe" in key] or keys
    return keys[0] if keys else ""


def _cards(name: str) -> tuple[Gpu, ...]:
    """All cards that the name may mean, also where only their memory tells them apart."""
    squeezed = squeezed_name(name)
    return tuple(
        gpu for gpu in all_gpus() if squeezed in map(squeezed_name, (*gpu.sky_names, *gpu.families))
    )


def _with_hosts(rows: Sequence[dict[str, str]]) -> Iterator[dict[str, str]]:
    """GCP's accelerator rows, each with the machine that must be rented around it."""
    hosts: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["InstanceType"] and row["Price"]:
            hosts.setdefault((row["Region"], row["AvailabilityZone"]), []).append(row)
    for row in rows:
        if row["InstanceType"] or not row["AcceleratorName"]:
            continue
        near = hosts.get((row["Region"], row["AvailabilityZone"]), [])
        host = _gcp_host(row["AcceleratorName"], int(float(row["AcceleratorCount"])), near)
        if host is not None:
            yield {
                **row,
                "InstanceType": host["InstanceType"],
                "MemoryGiB": host["MemoryGiB"],
                "vCPUs": host["vCPUs"],
                "Price": _sum(row["Price"], host["Price"]),
                "SpotPrice": _sum(row["SpotPrice"], host["SpotPrice"]),
            }


def _gcp_host(gpu: str, count: int, hosts: list[dict[str, str]]) -> dict[str, str] | None:
    if gpu in GCP_N1_VCPUS:
        vcpus = GCP_N1_VCPUS[gpu].get(count)
        fitting = [
            host
            for host in hosts
            if vcpus is not None
            and host["InstanceType"].startswith("n1-")
            and float(host["vCPUs"]) >= vcpus
            and float(host["MemoryGiB"]) >= 4 * vcpus
        ]
    else:
        name = GCP_L4_HOSTS.get(count) if gpu == "L4" else GCP_HOSTS.get(gpu, "").format(count)
        fitting = [host for host in hosts if host["InstanceType"] == name]
    return min(fitting, key=lambda host: float(host["Price"]), default=None)


def _sum(accelerator: str, host: str) -> str:
    """A price of both, or none where one is not sold so."""
    parts = _number(accelerator), _number(host)
    return "" if parts[0] is None or parts[1] is None else repr(parts[0] + parts[1])


def _cheapest_zones(listings: Iterable[Listing]) -> tuple[Listing, ...]:
    best: dict[tuple[str | int, ...], Listing] = {}
    for one in listings:
        key = (one.instance, one.gpu, one.gpus, one.card, one.region, one.spot)
        known = best.get(key, one)
        best[key] = replace(known, usd_per_hour=min(known.usd_per_hour, one.usd_per_hour))
    return tuple(best.values())
