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

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.errors import BadInput
from gpt2dist.plan.machine.catalog import Catalog, UnusableCatalog, catalog_machines
from gpt2dist.plan.machine.hardware import cards_named, gpu_named

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

PLAN_ONLY = {"colab": "mccormickml.com/2024/04/23/colab-gpus-features-and-pricing, 2026-03-10"}
"""Sold by the hour, but nothing to launch on; considered only where they are named. Their source.

Colab takes compute units, 100 for $9.99, and more or fewer for a GPU by the week.
"""

MULTI_NODE = frozenset({"lambda", "gcp", "aws"})
"""Where SkyPilot 0.14 joins several machines into one cluster."""

MARKETS = frozenset({"vast"})
"""Many hosts, each with a price. SkyPilot's catalog has the median of a machine kind's offers, and
of the hosts only those that ask no more (fetch_vast.py of SkyPilot 0.14.1): the cheapest, one
stranger's machine, is not in it."""


DISK_GIB = 256
"""Of a rented machine. Ten billion tokens are 20 GB of shards and 30 GB of downloads; a 1.5B
checkpoint is 19 GB."""

DISK_BILLED_BESIDE = frozenset({"runpod", "vast", "gcp", "aws"})
"""Where the machine's price is without its disk. Lambda's machines have theirs in the price."""

DISK_USD_PER_GIB_MONTH = 0.10
"""RunPod's container disk (docs.runpod.io/pods/storage/types, 2026-11), about that of GCP and AWS;
Vast's hosts ask what they like. In no plan's dollars."""


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
    "Where `gpu` alone does not tell this provider's card: a name for gpu_named."

    @property
    def planned_as(self) -> str:
        """The card whose speed and memory this machine has, by its one name."""
        return gpu_named(self.card or self.gpu).key

    @property
    def multi_node(self) -> bool:
        """Whether several such machines can be had as one cluster."""
        return self.provider in MULTI_NODE


def offers(
    gpu: str | None = None,
    gpus: int | None = None,
    *,
    spot: bool | None = None,
    provider: str | None = None,
    table: Path | None = None,
) -> tuple[Offer, ...]:
    """Machines for rent, cheapest first; None leaves a choice open.

    `gpu` is a card by any of its names, or a family (A100-80GB) for any of its cards. `table` is
    read instead of catalog and package table; it has the columns of prices.csv. Raises BadInput on
    an unknown GPU or provider.
    """
    places = (*PROVIDERS, *PLAN_ONLY)
    if provider is not None and provider not in places:
        near = get_close_matches(provider.lower(), places, n=1, cutoff=0.4)
        guess = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(places)
        raise BadInput(f"unknown provider {provider!r}; {guess}Prices are known of {known}")
    wanted = None if gpu is None else {card.key for card in cards_named(gpu)}
    found = [
        offer
        for offer in _offered(table)
        if (wanted is None or offer.planned_as in wanted)
        and (gpus is None or offer.gpus == gpus)
        and (spot is None or offer.spot == spot)
        and (offer.provider == provider if provider else offer.provider not in PLAN_ONLY)
    ]
    found.sort(key=lambda o: (o.usd_per_hour, o.provider, o.instance, o.region, o.spot))
    return tuple(found)


def why_no_offer(
    gpu: str, gpus: int, nodes: int = 1, *, spot: bool = False, provider: str | None = None
) -> str:
    """One line for where `offers` found nothing: who does not sell it, and what there is."""
    who = f"{provider} offers no" if provider else "no known provider offers a"
    several = f"{nodes} times" if nodes > 1 else ""
    line = f"{who} {'spot ' if spot else ''}machine with {gpus} x {gpu} {several}".rstrip()
    found = offers(gpu, spot=spot, provider=provider)
    if nodes > 1 and any(offer.gpus == gpus for offer in found):
        return f"{line}; SkyPilot joins machines at {', '.join(sorted(MULTI_NODE))} only"
    sizes = sorted({offer.gpus for offer in found if nodes == 1 or offer.multi_node})
    if sizes:
        line += f"; there are machines of {', '.join(map(str, sizes))}"
        most = sizes[-1]
        joined = any(offer.gpus == most and offer.multi_node for offer in found)
        if gpus > most and gpus % most == 0 and joined:
            line += f"; on={gpu}:{most}x{gpus * nodes // most} takes several"
    return line


def own_offer(cluster: ClusterConfig, gpu: str, gpus: int) -> Offer | None:
    """A machine of one's own at what the config says of it; None where that is no price."""
    price = cluster.own_usd_per_hour
    if price is None:
        return None
    return Offer(
        provider="own",
        instance="machine",
        gpu=gpu_named(gpu).key,
        gpus=gpus,
        region="here",
        spot=False,
        usd_per_hour=price[0],
        source=f"cluster's {price[1]}".replace("cluster's config", "cluster.usd_per_hour"),
        host_gib=None,
        vcpus=None,
    )


def _offered(table: Path | None) -> list[Offer]:
    if table is not None:
        return list(_read_table(table))
    found = [offer for offer in _package_table() if offer.provider in PLAN_ONLY]
    for provider in PROVIDERS:
        packaged = [offer for offer in _package_table() if offer.provider == provider]
        try:
            catalog = catalog_machines(provider)
        except UnusableCatalog as why:
            found += [replace(offer, source=f"{offer.source}; {why}") for offer in packaged]
        else:
            found += packaged if catalog is None else priced(provider, catalog)
    return found


def priced(provider: str, catalog: Catalog) -> list[Offer]:
    """The offers of a catalog; the card is named where the accelerator's name does not tell it."""
    source = f"SkyPilot catalog, file of {catalog.date}{_basis(provider)}"
    sold: dict[tuple[str, int], set[str]] = {}
    for listing in catalog.listings:
        sold.setdefault((listing.gpu, listing.gpus), set()).add(listing.card)
    found = []
    for listing in catalog.listings:
        told = sold[listing.gpu, listing.gpus] == {cards_named(listing.gpu)[0].key}
        named = replace(listing, card="" if told else listing.card)
        found.append(Offer(provider=provider, source=source, **vars(named)))
    return found


def _basis(provider: str) -> str:
    return ", the median of its hosts" if provider in MARKETS else ""


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
    return _parse(text, _package_source)


def _package_source(provider: str) -> str:
    if provider in PLAN_ONLY:
        return f"package table ({PLAN_ONLY[provider]})"
    commit = TABLE_COMMITS[provider]
    return f"package table of {TABLE_DATE} (skypilot-catalog commit {commit}){_basis(provider)}"


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
