"""Offers from the package's dated table and from files laid out as SkyPilot lays out its own."""

from __future__ import annotations

import csv
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.config.schema import ClusterConfig
from gpt2dist.errors import BadInput
from gpt2dist.plan.machine import prices
from gpt2dist.plan.machine.hardware import all_gpus, gpu_named, parse_on
from gpt2dist.plan.machine.prices import (
    MULTI_NODE,
    PLAN_ONLY,
    PROVIDERS,
    offers,
    own_offer,
    why_no_offer,
)
from gpt2dist.plan.planner import offers_for, plan_on

TABLE = Path(prices.__file__).with_name("prices.csv")

HEADER = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice"
)
GCP_HEADER = (
    "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,"
    "Region,AvailabilityZone,Price,SpotPrice"
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home directory without SkyPilot."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SKY_RUNTIME_DIR", raising=False)
    return tmp_path


def write_catalog(home: Path, provider: str, *lines: str, version: str = "v8") -> Path:
    path = home / ".sky" / "catalogs" / version / provider / "vms.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.utime(path, (1_795_000_000, 1_795_000_000))  # 2026-11-18
    return path


def test_the_table_holds_the_prices_of_the_snapshot():
    """Figures of skypilot-catalog at lambda 0f40703, runpod 01acdfd, aws 00148f2."""

    def price(provider: str, gpu: str, gpus: int, spot: bool = False) -> float:
        return offers(gpu, gpus, spot=spot, provider=provider)[0].usd_per_hour

    assert price("lambda", "A100-80GB", 8) == 22.32
    assert price("lambda", "H100", 8) == 31.92
    assert price("runpod", "RTX4090", 4) == 2.96
    assert price("aws", "A100", 8) == 21.957642
    assert price("aws", "A100", 8, spot=True) == 7.8799
    assert price("vast", "RTX3090", 4) == 0.67


def test_offers_are_cheapest_first_and_as_asked():
    for asked in (offers(), offers("H100"), offers("A100-80GB", 8), offers(gpus=4, spot=True)):
        assert asked
        assert [o.usd_per_hour for o in asked] == sorted(o.usd_per_hour for o in asked)
    assert {o.gpus for o in offers("A100", 8)} == {8}
    assert {o.spot for o in offers(spot=False)} == {False}
    assert {o.provider for o in offers(provider="gcp")} == {"gcp"}
    assert {o.provider for o in offers()} == set(PROVIDERS)
    assert offers("RTX4070Ti") == ()  # known, and nobody in the table rents it


def test_the_cheapest_offer_of_a_card_is_the_cheapest_row_of_the_table():
    """Every card, count and kind, against the file read without any of the package's code."""
    with TABLE.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["provider"] != "colab"]
    sold = {(row["card"] or row["gpu"], row["gpus"]) for row in rows}
    for name, count in sold:
        key = gpu_named(name).key
        for column, spot in (("usd_per_hour", False), ("usd_per_hour_spot", True)):
            same = [
                float(row[column])
                for row in rows
                if row["gpus"] == count
                and row[column]
                and gpu_named(row["card"] or row["gpu"]).key == key
            ]
            found = offers(key, int(count), spot=spot)
            assert [offer.usd_per_hour for offer in found] == sorted(same)
            assert {offer.planned_as for offer in found} <= {key}


def test_a_card_costs_the_same_whatever_it_is_called():
    config = resolve("gpt2-124m")
    for card, spellings in {
        "A100-80GB-SXM": ("A100-80GB-SXM", "a100 80gb sxm", "A100-SXM4-80GB", "1xA100-80GB-SXM"),
        "A100-80GB-PCIe": ("A100-80GB-PCIe", "A100-PCIE-80GB", "NVIDIA A100 80GB PCIe"),
        "RTX4090": ("RTX4090", "4090", "GeForce RTX 4090", "4090x1"),
    }.items():
        plans = [plan_on(config, spelling) for spelling in spellings]
        assert {plan.gpu for plan in plans} == {card}
        assert len({plan.usd for plan in plans}) == 1
    # The family's name takes its cheapest card and says which that is.
    generic, pcie, sxm = (plan_on(config, f"A100-80GB{form}") for form in ("", "-PCIe", "-SXM"))
    assert (generic.gpu, generic.usd) == (pcie.gpu, pcie.usd)
    assert sxm.usd_per_hour == 1.59
    assert sxm.usd_per_hour > generic.usd_per_hour == 0.87


def test_several_machines_are_offered_only_where_they_can_be_joined():
    config = resolve("gpt2-124m")
    for name in ("A100", "H100"):
        found = offers_for(config, parse_on(f"{name}:8x2"))
        assert {offer.provider for offer in found} <= MULTI_NODE
        able = [o for o in offers(name, 8, spot=False) if o.provider in MULTI_NODE]
        assert {offer.planned_as for offer in found} == {offer.planned_as for offer in able}
    assert offers_for(config, parse_on("RTX4090:4x2")) == [None]
    why = why_no_offer("RTX4090", 4, 2)
    assert why == (
        "no known provider offers a machine with 4 x RTX4090 2 times; "
        "SkyPilot joins machines at aws, gcp, lambda only"
    )


def test_colab_is_planned_where_it_is_named_and_never_else():
    assert not any(offer.provider in PLAN_ONLY for offer in offers())
    (t4,) = offers("T4", provider="colab")
    assert t4.usd_per_hour == pytest.approx(1.19 * 9.99 / 100, abs=1e-4)
    assert "mccormickml.com" in t4.source


def test_a_market_says_that_its_price_is_a_median():
    assert all("the median of its hosts" in o.source for o in offers(provider="vast"))
    assert not any("median" in o.source for o in offers() if o.provider != "vast")


def test_every_offer_can_be_planned_and_says_where_its_price_comes_from():
    for offer in offers():
        assert gpu_named(offer.planned_as).key == offer.planned_as
        assert "package table of 2026-11 (skypilot-catalog commit " in offer.source
        assert offer.usd_per_hour > 0


def test_providers_own_names_and_other_cards_are_found():
    assert {"H100", "H100-SXM"} == {o.gpu for o in offers("H100")}
    assert {"H100", "H100-NVL"} == {o.gpu for o in offers("H100 NVL")}
    pcie = {o.provider: o for o in offers("H100-PCIe", 1, spot=False)}
    assert pcie["lambda"].gpu == pcie["runpod"].gpu == "H100"  # what SkyPilot must be asked for
    assert pcie["lambda"].instance == "gpu_1x_h100_pcie"
    (super_card,) = offers("RTX 4070 Ti SUPER")
    assert (super_card.gpu, super_card.planned_as) == ("RTX4070", "RTX4070TiSUPER")
    # At Lambda one name and count is two cards: both are told, so that launch can ask for one.
    both = {o.instance: o.card for o in offers("A100", 1, provider="lambda")}
    assert both == {"gpu_1x_a100_sxm4": "A100-40GB-SXM", "gpu_1x_a100": "A100-40GB-PCIe"}


def test_doubtful_prices_say_so():
    doubted = {(o.provider, o.gpu, o.spot) for o in offers() if "doubtful" in o.source}
    assert ("gcp", "A100-80GB", False) in doubted
    assert ("runpod", "L4", True) in doubted
    assert ("runpod", "L4", False) not in doubted
    assert not any(o.spot for o in offers(provider="vast"))  # the snapshot lacks them


def test_an_unknown_provider_or_gpu_is_named_with_its_nearest():
    with pytest.raises(BadInput, match="'lamda'; did you mean lambda"):
        offers(provider="lamda")
    with pytest.raises(BadInput, match="A100-80GB"):
        offers("A100-80G")


@pytest.mark.parametrize(
    ("cluster", "usd_per_hour", "source"),
    [
        (ClusterConfig(watts=1600, usd_per_kwh=0.30), 1.6 * 0.30, "cluster's power"),
        (ClusterConfig(purchase_usd=7000, lifetime_hours=20_000), 0.35, "cluster's purchase"),
        (
            ClusterConfig(watts=1600, usd_per_kwh=0.30, purchase_usd=7000, lifetime_hours=20_000),
            1.6 * 0.30 + 0.35,
            "cluster's power and purchase",
        ),
        (ClusterConfig(usd_per_hour=2, watts=1600, usd_per_kwh=0.30), 2, "cluster.usd_per_hour"),
    ],
)
def test_an_own_machine_costs_its_power_and_its_purchase(cluster, usd_per_hour, source):
    machine = own_offer(cluster, "3090", 4)
    assert machine.usd_per_hour == pytest.approx(usd_per_hour)
    assert (machine.provider, machine.gpu, machine.gpus) == ("own", "RTX3090", 4)
    assert machine.source == source
    assert own_offer(ClusterConfig(watts=1600), "3090", 4) is None


def test_skypilots_catalog_wins_over_the_table(home):
    write_catalog(
        home,
        "lambda",
        HEADER,
        "gpu_8x_a100,A100,8.0,124.0,1800.0,9.99,us-east-1,{},",
        "gpu_8x_a100,A100,8.0,124.0,1800.0,9.99,us-west-1,{},",
        "cpu_4x_general,,,4.0,16.0,0.2,us-east-1,,",
        "gpu_1x_gaudi,Gaudi,1.0,4.0,16.0,0.2,us-east-1,{},",
    )
    first, second = offers(provider="lambda")
    assert (first.usd_per_hour, first.gpus, first.vcpus, first.host_gib) == (9.99, 8, 124, 1800)
    assert (first.region, second.region) == ("us-east-1", "us-west-1")
    assert first.source == "SkyPilot catalog, file of 2026-11-18"
    assert "package table" in offers(provider="aws")[0].source  # no file of it here


def test_vasts_instances_tell_the_card_that_skypilots_names_hide(home):
    """SkyPilot's fetch_vast.py drops Ti, S, SXM4 and PCIE from the accelerator's name."""
    row = "{n}x-{name}-32-65536,{gpu},{n},32,64.0,1.00,EU,\"{{'TotalGpuMemoryInMiB': {mib}}}\",0.00"
    write_catalog(
        home,
        "vast",
        HEADER,
        row.format(n=1, name="A100_PCIE", gpu="A100", mib=40960),
        row.format(n=2, name="A100_SXM4", gpu="A100", mib=2 * 81920),
        row.format(n=4, name="RTX_3090_Ti", gpu="RTX3090", mib=4 * 24564),
        row.format(n=5, name="RTX_4090", gpu="RTX4090", mib=5 * 49140),  # rebuilt with 48 GB
        row.format(n=6, name="RTX_4070S", gpu="RTX4070", mib=6 * 12282),
        row.format(n=8, name="H100_NVL", gpu="H100", mib=8 * 95830),
    )
    assert {(o.gpus, o.planned_as) for o in offers(provider="vast")} == {
        (1, "A100-40GB-PCIe"),
        (2, "A100-80GB-SXM"),
        (4, "RTX3090Ti"),
        (8, "H100-NVL"),
    }


def test_zones_are_one_offer_at_their_cheapest_and_zero_is_no_spot_price(home):
    write_catalog(
        home,
        "vast",
        HEADER,
        'x,RTX4090,1,32,64.0,0.50,"Texas, US, NA","{\'Gpus\': []}",0.00',
        'x,RTX4090,1,32,64.0,0.40,"Texas, US, NA","{\'Gpus\': []}",0.00',
        'x,RTX4090,0.5,32,64.0,0.10,"Texas, US, NA","{\'Gpus\': []}",0.00',
    )
    (offer,) = offers("RTX4090", provider="vast")
    assert (offer.usd_per_hour, offer.region, offer.spot) == (0.40, "Texas, US, NA", False)


def test_gcp_is_charged_for_the_gpu_and_the_machine_around_it(home):
    write_catalog(
        home,
        "gcp",
        GCP_HEADER,
        "a2-highgpu-8g,96.0,680.0,,,,us-central1,us-central1-a,5.91582,2.958",
        "a2-highgpu-8g,96.0,680.0,,,,us-east1,us-east1-a,5.0,2.0",
        ",,,A100,8,{},us-central1,us-central1-a,23.47126,11.4728",
        "n1-standard-4,4.0,15.0,,,,us-central1,us-central1-a,0.19,0.04",
        "n1-highmem-4,4.0,26.0,,,,us-central1,us-central1-a,0.2368,0.05",
        "n1-highmem-8,8.0,52.0,,,,us-central1,us-central1-a,0.4736,0.1",
        ",,,T4,1,{},us-central1,us-central1-a,0.35,",
    )
    on_demand, spot = (offers("A100", provider="gcp", spot=s)[0] for s in (False, True))
    # The sums that the package's table holds for the same snapshot.
    assert on_demand.usd_per_hour == pytest.approx(29.3871, abs=1e-4)
    assert spot.usd_per_hour == pytest.approx(14.4308, abs=1e-4)
    (t4,) = offers("T4", provider="gcp")
    assert (t4.instance, t4.spot) == ("n1-highmem-4", False)
    assert t4.usd_per_hour == pytest.approx(0.5868)


def test_the_newest_schema_is_read_and_the_runtime_folder_wins(home, tmp_path, monkeypatch):
    row = "gpu_1x_a10g,A10G,1,4,16,{},r,,"
    write_catalog(home, "aws", HEADER, row.format("1.0"), version="v9")
    write_catalog(home, "aws", HEADER, row.format("2.0"), version="v10")
    write_catalog(home, "aws", HEADER, row.format("1.5"), version="v1")
    assert offers(provider="aws")[0].usd_per_hour == 2.0
    elsewhere = tmp_path / "runtime"
    write_catalog(elsewhere, "aws", HEADER, row.format("3.0"))
    monkeypatch.setenv("SKY_RUNTIME_DIR", str(elsewhere))
    assert offers(provider="aws")[0].usd_per_hour == 3.0


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["<html>429 Too Many Requests</html>"], "lacks the column InstanceType"),
        ([""], "lacks the column InstanceType"),
        ([HEADER, "x,A100,8,124,1800,cheap,us-east-1,{},"], "could not convert"),
        ([HEADER, "x,A100,8,124,1800,-3,us-east-1,{},"], "is no price"),
    ],
)
def test_a_garbled_catalog_is_replaced_by_the_table_and_says_so(home, lines, why):
    path = write_catalog(home, "lambda", *lines)
    found = offers("A100", 8, provider="lambda")
    assert [o.usd_per_hour for o in found if not o.spot] == [15.92]
    assert "package table of 2026-11" in found[0].source
    assert f"{path} " in found[0].source
    assert why in found[0].source


def test_a_catalog_that_is_no_text_is_replaced_by_the_table(home):
    path = write_catalog(home, "aws", HEADER)
    path.write_bytes(path.read_bytes() + b"\xff\xfe,A100,")
    assert "cannot be read" in offers(provider="aws")[0].source


def test_a_table_of_ones_own(tmp_path):
    table = tmp_path / "mine.csv"
    columns = (
        "provider,instance,gpu,card,gpus,region,vcpus,host_gib,"
        "usd_per_hour,usd_per_hour_spot,doubt,spot_doubt"
    )
    table.write_text(f"{columns}\nbobs-shed,box,RTX3090,,4,shed,,,0.8,,,\n")
    (offer,) = offers("3090", table=table)
    assert (offer.provider, offer.usd_per_hour) == ("bobs-shed", 0.8)
    assert offer.source == "price table mine.csv"
    table.write_text("provider,instance\nbobs-shed,box\n")
    with pytest.raises(BadInput, match=r"mine\.csv"):
        offers(table=table)


def test_every_row_of_the_table_is_an_offer_of_a_known_card():
    rows = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 163
    found = [o for place in (None, *PLAN_ONLY) for o in offers(provider=place)]
    offered = {(o.provider, o.instance, o.region, o.spot) for o in found}
    for row in rows:
        for column, spot in (("usd_per_hour", False), ("usd_per_hour_spot", True)):
            place = (row["provider"], row["instance"], row["region"], spot)
            assert (place in offered) == bool(row[column])
    assert {gpu.key for gpu in all_gpus()} >= {o.planned_as for o in found}


def test_the_table_is_made_from_skypilots_files(tmp_path):
    """benchmarks/price_table.py on a small catalog, against a table written by hand."""
    for provider, *lines in (
        (
            "lambda",
            HEADER,
            "gpu_1x_a100,A100,1.0,30.0,200.0,1.99,us-east-1,{},",
            "gpu_1x_a100,A100,1.0,30.0,200.0,1.89,us-west-1,{},",
            "gpu_1x_a100_sxm4,A100,1.0,30.0,200.0,1.99,us-east-1,{},",
            "gpu_1x_gaudi,Gaudi,1.0,4.0,16.0,0.2,us-east-1,{},",
        ),
        (
            "runpod",
            HEADER,
            "1x_L40S_SECURE,L40S,1.0,12.0,62.0,0.99,US,{},0.99",
            "3x_L40S_SECURE,L40S,3.0,36.0,186.0,2.97,US,{},2.97",
        ),
        ("vast", HEADER, '1x-A40-32-65536,A40,1,32,64.0,0.67,"Australia, AU, OC",{},0.00'),
        ("gcp", GCP_HEADER),
        (
            "aws",
            HEADER,
            "g5.xlarge,A10G,1.0,4.0,16.0,1.006,us-east-1,{},0.4507",
            "g5.xlarge,A10G,1.0,4.0,16.0,1.006,us-east-1,{},0.4246",
            "g5.xlarge,A10G,1.0,4.0,16.0,0.9,eu-north-1,{},0.1",
            "g5.2xlarge,A10G,1.0,8.0,32.0,1.212,us-east-1,{},0.6",
        ),
    ):
        (tmp_path / provider).mkdir()
        (tmp_path / provider / "vms.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    script = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "price_table.py"))
    rows = [row for row in script["table"](tmp_path).splitlines() if not row.startswith("colab")]
    assert rows == [
        "provider,instance,gpu,card,gpus,region,vcpus,host_gib,usd_per_hour,usd_per_hour_spot,"
        "doubt,spot_doubt",
        "lambda,gpu_1x_a100,A100,A100-40GB-PCIe,1,2 regions,30,200,1.89,,,",
        "lambda,gpu_1x_a100_sxm4,A100,A100-40GB-SXM,1,us-east-1,30,200,1.99,,,",
        "runpod,1x_L40S_SECURE,L40S,,1,US,12,62,0.99,0.99,,as much as on demand in this snapshot",
        'vast,1x-A40-32-65536,A40,,1,"Australia, AU, OC",32,64,0.67,,offered in one region only,',
        "aws,g5.xlarge,A10G,,1,us-east-1,4,16,1.006,0.4246,,",
    ]


def test_pricing_imports_no_heavy_package(home):
    write_catalog(home, "aws", HEADER, "p4d,A100,8,96,1152,22,us-east-1,{},7")
    code = (
        "import json, sys, gpt2dist.plan.machine.prices as p; p.offers();"
        "import gpt2dist.plan.loss.predict as l;"
        "l.predict_loss(10**8, 1e10, 'hf:HuggingFaceFW/fineweb');"
        "print(json.dumps(sorted({'numpy', 'torch', 'ray', 'sky', 'pandas'} & set(sys.modules))))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads(printed.stdout) == []
