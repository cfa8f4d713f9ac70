"""Makes gpt2dist/plan/machine/prices.csv from SkyPilot's price files.

    git clone https://github.com/skypilot-org/skypilot-catalog
    python benchmarks/price_table.py skypilot-catalog            prints the table
    python benchmarks/price_table.py skypilot-catalog --write    writes it

A clone is read at the commits of prices.TABLE_COMMITS; a folder with PROVIDER/vms.csv, such as
~/.sky/catalogs/v8, as it lies there. Only cards of gpus.csv, 1, 2, 4 and 8 of them, the cheapest
machine of each at each provider; GCP and AWS in one region.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from gpt2dist.plan.machine.catalog import Catalog, read_catalog
from gpt2dist.plan.machine.prices import MARKETS, PROVIDERS, TABLE_COMMITS, Offer, priced

GPU_COUNTS = (1, 2, 4, 8)
REGION = {"gcp": "us-central1", "aws": "us-east-1"}
COLUMNS = (
    *("provider", "instance", "gpu", "card", "gpus", "region", "vcpus", "host_gib"),
    *("usd_per_hour", "usd_per_hour_spot", "doubt", "spot_doubt"),
)

COLAB_UNIT_USD = 9.99 / 100
COLAB_UNITS_PER_HOUR = {
    "T4": 1.19,
    "L4": 1.71,
    "A100-40GB-SXM": 5.40,
    "A100-80GB-SXM": 7.52,
    "RTXPRO6000": 8.71,
}
"""Seen 2026-03-10, mccormickml.com/2024/04/23/colab-gpus-features-and-pricing; $9.99 for 100 units:
techcrunch.com/2022/09/29/google-colaboratory-launches-a-pay-as-you-go-option-premium-gpu-access."""

Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogs", type=Path)
    parser.add_argument("--write", action="store_true", help="write the package's prices.csv")
    arguments = parser.parse_args()
    text = table(arguments.catalogs)
    if arguments.write:
        Path(str(files("gpt2dist.plan.machine") / "prices.csv")).write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def table(catalogs: Path) -> str:
    """The text of prices.csv."""
    rows = [row for provider in PROVIDERS for row in _rows(provider, _catalog(catalogs, provider))]
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, *_colab()])
    return out.getvalue()


def _catalog(catalogs: Path, provider: str) -> Catalog:
    plain = catalogs / provider / "vms.csv"
    if plain.is_file():
        return read_catalog(plain, provider, plain.stat().st_mtime_ns)
    blob = f"{TABLE_COMMITS[provider]}:catalogs/v8/{provider}/vms.csv"
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(["git", "-C", catalogs, "show", blob], check=True, stdout=file)
        return read_catalog(Path(file.name), provider, 0)


def _rows(provider: str, catalog: Catalog) -> Iterator[Row]:
    """One row for each machine that is the cheapest with its card and count, spot beside it."""
    kinds: dict[tuple[str, int], dict[str, list[Offer]]] = {}
    for offer in priced(provider, catalog):
        if offer.gpus in GPU_COUNTS and offer.region == REGION.get(provider, offer.region):
            machines = kinds.setdefault((offer.planned_as, offer.gpus), {})
            machines.setdefault(offer.instance, []).append(offer)
    rows = [
        row
        for machines in kinds.values()
        for row in _cheapest(_row(found) for found in machines.values())
    ]
    for row in rows:
        _doubt(row, rows)
    yield from rows


def _row(found: list[Offer]) -> Row:
    """One machine wherever it is rented, at its lowest prices."""
    first = found[0]
    regions = list(dict.fromkeys(offer.region for offer in found))
    return {
        **{name: getattr(first, name) for name in ("provider", "instance", "gpu", "card", "gpus")},
        "region": regions[0] if len(regions) == 1 else f"{len(regions)} regions",
        "vcpus": "" if first.vcpus is None else f"{first.vcpus:g}",
        "host_gib": "" if first.host_gib is None else f"{first.host_gib:g}",
        "usd_per_hour": _lowest(offer.usd_per_hour for offer in found if not offer.spot),
        "usd_per_hour_spot": _lowest(offer.usd_per_hour for offer in found if offer.spot),
    }


def _lowest(prices: Iterable[float]) -> float | str:
    return min((round(price, 6) for price in prices), default="")


def _cheapest(rows: Iterable[Row]) -> list[Row]:
    rows = list(rows)
    lowest = {
        kind: min((float(str(row[kind])) for row in rows if row[kind] != ""), default=None)
        for kind in ("usd_per_hour", "usd_per_hour_spot")
    }
    return [row for row in rows if any(row[kind] == lowest[kind] for kind in lowest)]


def _doubt(row: Row, rows: list[Row]) -> None:
    """What looks wrong in the catalog itself; plans print it beside the price."""
    if row["usd_per_hour_spot"] == row["usd_per_hour"]:
        row["spot_doubt"] = "as much as on demand in this snapshot"
    if row["provider"] in MARKETS and not str(row["region"]).endswith(" regions"):
        row["doubt"] = "offered in one region only"
    smaller = [r for r in rows if (r["gpu"], r["gpus"]) == ("A100", row["gpus"])]
    if row["gpu"] == "A100-80GB" and any(
        float(str(row["usd_per_hour"])) < float(str(r["usd_per_hour"])) for r in smaller
    ):
        row["doubt"] = "cheaper than the 40 GB card"


def _colab() -> Iterator[Row]:
    for gpu, units in COLAB_UNITS_PER_HOUR.items():
        yield {
            "provider": "colab",
            "instance": f"{units:g} compute units",
            "gpu": gpu,
            "gpus": 1,
            "usd_per_hour": round(units * COLAB_UNIT_USD, 4),
        }


if __name__ == "__main__":
    main()
