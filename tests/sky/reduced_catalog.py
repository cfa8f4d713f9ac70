"""A small SkyPilot catalog (schema v8) from the package's price table: no test downloads one.

Layout and columns: SkyPilot 0.14.1, sky/catalog/. Files without a .meta/*.md5 beside them count as
the user's own, and are never replaced.
"""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = {
    "lambda": "InstanceType AcceleratorName AcceleratorCount vCPUs MemoryGiB Price Region GpuInfo "
    "SpotPrice",
    "runpod": "InstanceType AcceleratorName AcceleratorCount vCPUs MemoryGiB Region SpotPrice "
    "Price AvailabilityZone GpuInfo",
    "vast": "InstanceType AcceleratorName AcceleratorCount vCPUs MemoryGiB GpuInfo Price "
    "SpotPrice Region",
    "gcp": "InstanceType vCPUs MemoryGiB AcceleratorName AcceleratorCount GpuInfo Region "
    "AvailabilityZone Price SpotPrice",
    "aws": "InstanceType AcceleratorName AcceleratorCount vCPUs MemoryGiB GpuInfo Price SpotPrice "
    "Region AvailabilityZone Arch",
}
REGION = {"lambda": "us-east-1", "runpod": "US", "gcp": "us-central1", "aws": "us-east-1"}
ZONE = {"runpod": "US-CA-1", "gcp": "us-central1-a", "aws": "use1-az6"}
NOT_NEEDED = {
    name: COLUMNS["aws"].split()
    for name in (
        *("azure", "ibm", "scp", "paperspace", "primeintellect", "do", "oci", "hyperbolic"),
        *("fluidstack", "shadeform", "seeweb", "yotta", "cudo", "mithril", "verda", "nebius"),
    )
}
CPU_MACHINES = (
    ("aws", "m6i.8xlarge", 32, 128, 1.536),
    ("gcp", "n2-standard-32", 32, 128, 1.5537),
)
"""On demand in us-east-1 and us-central1, list prices."""


def write_catalog(home: Path, price_table: Path) -> None:
    """Below `home`, with one row for each machine of the table."""
    folder = home / ".sky" / "catalogs" / "v8"
    machines: dict[str, list[dict[str, object]]] = {provider: [] for provider in COLUMNS}
    accelerators: dict[str, set[str]] = {}
    memory: dict[str, int] = {}
    with price_table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["provider"] not in machines:  # colab: no SkyPilot there
                continue
            machines[row["provider"]] += _rows(row)
            accelerators.setdefault(row["gpu"], set()).add(row["provider"])
            memory[row["gpu"]] = 80
    for provider, name, vcpus, gib, price in CPU_MACHINES:
        machines[provider].append(
            {
                "InstanceType": name,
                "vCPUs": vcpus,
                "MemoryGiB": gib,
                "Price": price,
                "Region": REGION[provider],
                "AvailabilityZone": ZONE[provider],
                "Arch": "x86_64",
            }
        )
    for provider, words in COLUMNS.items():
        _write(folder / provider / "vms.csv", words.split(), machines[provider])
    for provider, columns in NOT_NEEDED.items():
        _write(folder / provider / "vms.csv", columns, [])
    names = {"gcp": "GCP", "aws": "AWS", "runpod": "RunPod", "vast": "Vast", "lambda": "Lambda"}
    _write(
        folder / "common" / "accelerators.csv",
        ["AcceleratorName", "Clouds"],
        [
            {"AcceleratorName": gpu, "Clouds": str([names[each] for each in sorted(providers)])}
            for gpu, providers in accelerators.items()
        ],
    )
    _write(
        folder / "common" / "metadata.csv",
        ["GPU", "MemoryGB", "Manufacturer"],
        [{"GPU": gpu, "MemoryGB": gib, "Manufacturer": "nvidia"} for gpu, gib in memory.items()],
    )
    for provider in ("aws", "gcp", "azure", "kubernetes"):
        columns = ["Tag", "Region", "OS", "OSVersion", "ImageId", "CreationDate", "BaseImageId"]
        _write(folder / provider / "images.csv", columns, [])


def _rows(row: dict[str, str]) -> list[dict[str, object]]:
    """One machine; at GCP two rows, as GPUs are sold apart from the machines around them."""
    provider = row["provider"]
    info = {"Gpus": [{"Name": row["gpu"], "Count": int(row["gpus"])}], "TotalGpuMemoryInMiB": 1}
    whole: dict[str, object] = {
        "InstanceType": row["instance"],
        "AcceleratorName": row["gpu"],
        "AcceleratorCount": float(row["gpus"]),
        "vCPUs": row["vcpus"],
        "MemoryGiB": row["host_gib"],
        "Price": row["usd_per_hour"],
        "SpotPrice": row["usd_per_hour_spot"],
        "Region": REGION.get(provider, row["region"]),
        "AvailabilityZone": ZONE.get(provider, ""),
        "GpuInfo": str(info),
        "Arch": "x86_64",
    }
    if provider != "gcp":
        return [whole]
    gpu = {**whole, "InstanceType": "", "vCPUs": "", "MemoryGiB": ""}
    host = {
        **whole,
        "AcceleratorName": "",
        "AcceleratorCount": "",
        "GpuInfo": "",
        "Price": 0,  # the table has the sum of both, here with the GPU
        "SpotPrice": 0 if row["usd_per_hour_spot"] else "",
    }
    return [gpu, host]


def _write(path: Path, columns: list[str], rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
