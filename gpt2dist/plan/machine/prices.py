"""What machines cost to rent: SkyPilot's catalog where it is on this machine, else a dated table.

Prices are asked, not quoted: a provider may have none of these machines free, or charge more by
the time it is rented.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path

from gpt2dist.errors import BadInput
from gpt2dist.plan.machine.catalog import Catalog, UnusableCatalog, catalog_machines
from gpt2dist.plan.machine.hardware import gpu_named

TABLE_DATE = "2026-11"
TABLE_COMMITS = {
    "lambda": "0f40703",
    "runpod": "01acdfd",
    "vast": "01b8cdd",
    "gcp": "006059e",
    "aws": "00148f2",
}
"""Commits of skypilot-org/skypilot-catalog that the package's table was read from."""

PROVIDERS = tuple(TABLE_COMMITS)
"""SkyPilot's names of the providers that gpt2dist knows how to rent from."""


@dataclass(frozen=True)
class Offer:
    """One kind of machine at one provider and place, on demand or spot."""

    provider: str
    instance: str
    gpu: str
    "The provider's name of it, as SkyPilot takes it: A100-80GB, H100-SXM, ..."
    gpus: int
    "Per machine."
    region: str
    spot: bool
    usd_per_hour: float
    "Of one machine."
    source: str
    host_gib: float | None
    vcpus: float | None
    card: str = ""
    "Where the instance holds another card than `gpu` usually means: a name for gpu_named."

    @property
    def planned_as(self) -> str:
        """The GPU whose speed and memory this machine has."""
        return self.card or self.gpu


def offers(
    gpu: str | None = None,
    gpus: int | None = None,
    *,
    spot: bool | None = None,
    provider: str | None = None,
    table: Path | None = None,
) -> tuple[Offer, ...]:
    """Machines for rent, cheapest first; None leaves a choice open.

    `gpu` takes any of its names and finds a provider's variants of it (A100-80GB-SXM for
    A100-80GB). `table` is read instead of catalog and package table; it has the columns of
    prices.csv. Raises BadInput on an unknown GPU or provider.
    """
    if provider is not None and provider not in PROVIDERS:
        near = get_close_matches(provider.lower(), PROVIDERS, n=1, cutoff=0.4)
        guess = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(PROVIDERS)
        raise BadInput(f"unknown provider {provider!r}; {guess}Prices are known of {known}")
    wanted = None if gpu is None else gpu_named(gpu).key
    found = []
    for offer in _offered(table):
        names = _table_names(offer.gpu, offer.card)
        if (
            names
            and (wanted is None or wanted in names)
            and (gpus is None or offer.gpus == gpus)
            and (spot is None or offer.spot == spot)
            and (provider is None or offer.provider == provider)
        ):
            found.append(offer)
    found.sort(key=lambda o: (o.usd_per_hour, o.provider, o.instance, o.region, o.spot))
    return tuple(found)


def own_machine(gpu: str, gpus: int, watts: float, usd_per_kwh: float) -> Offer:
    """A machine that costs its electricity; `watts` of the whole machine under load."""
    return Offer(
        provider="own",
        instance="machine",
        gpu=gpu_named(gpu).key,
        gpus=gpus,
        region="",
        spot=False,
        usd_per_hour=watts / 1000 * usd_per_kwh,
        source=f"{watts:g} W at ${usd_per_kwh:g} per kWh",
        host_gib=None,
        vcpus=None,
    )


def _offered(table: Path | None) -> list[Offer]:
    if table is not None:
        return list(_read_table(table))
    found: list[Offer] = []
    for provider in PROVIDERS:
        packaged = [offer for offer in _package_table() if offer.provider == provider]
        try:
            catalog = catalog_machines(provider)
        except UnusableCatalog as why:
            found += [replace(offer, source=f"{offer.source}; {why}") for offer in packaged]
        else:
            found += packaged if catalog is None else _priced(provider, catalog)
    return found


def _priced(provider: str, catalog: Catalog) -> list[Offer]:
    source = f"SkyPilot catalog, file of {catalog.date}"
    return [
        Offer(
            provider=provider,
            instance=machine.instance,
            gpu=machine.gpu,
            gpus=machine.gpus,
            region=machine.region,
            spot=spot,
            usd_per_hour=usd_per_hour,
            source=source,
            host_gib=machine.host_gib,
            vcpus=machine.vcpus,
            card=machine.card,
        )
        for machine in catalog.machines
        for spot, usd_per_hour in (
            (False, machine.usd_per_hour),
            (True, machine.usd_per_hour_spot),
        )
        if usd_per_hour is not None
    ]


def _read_table(path: Path) -> tuple[Offer, ...]:
    try:
        return _parse(path.read_text(encoding="utf-8"), lambda _: f"price table {path.name}")
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"price table {path} cannot be read ({type(error).__name__}: {error}); "
            "it needs the columns of gpt2dist/plan/machine/prices.csv"
        ) from None


@cache
def _package_table() -> tuple[Offer, ...]:
    text = files("gpt2dist.plan.machine").joinpath("prices.csv").read_text(encoding="utf-8")
    return _parse(
        text,
        lambda provider: (
            f"package table of {TABLE_DATE} (skypilot-catalog commit {TABLE_COMMITS[provider]})"
        ),
    )


def _parse(text: str, source_of: Callable[[str], str]) -> tuple[Offer, ...]:
    found = []
    for row in csv.DictReader(text.splitlines()):
        for spot, price in ((False, row["usd_per_hour"]), (True, row["usd_per_hour_spot"])):
            doubts = [row["doubt"], row["spot_doubt"] if spot else ""]
            doubt = "".join(f"; doubtful: {text}" for text in doubts if text)
            if price:
                found.append(
                    Offer(
                        provider=row["provider"],
                        instance=row["instance"],
                        gpu=row["gpu"],
                        gpus=int(row["gpus"]),
                        region=row["region"],
                        spot=spot,
                        usd_per_hour=float(price),
                        source=source_of(row["provider"]) + doubt,
                        host_gib=float(row["host_gib"]) if row["host_gib"] else None,
                        vcpus=float(row["vcpus"]) if row["vcpus"] else None,
                        card=row["card"],
                    )
                )
    return tuple(found)


@cache
def _table_names(gpu: str, card: str) -> frozenset[str]:
    """Keys of the hardware table under which a machine is found; none for a GPU it lacks."""
    keys = set()
    for name in filter(None, (gpu, card)):
        try:
            keys.add(gpu_named(name).key)
        except BadInput:
            continue
    return frozenset(keys)
