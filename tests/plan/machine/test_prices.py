"""Offers from the package's dated table and from files laid out as SkyPilot lays out its own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.plan.machine import prices
from gpt2dist.plan.machine.hardware import gpu_named
from gpt2dist.plan.machine.prices import PROVIDERS, offers, own_machine

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


def test_every_offer_can_be_planned_and_says_where_its_price_comes_from():
    for offer in offers():
        assert gpu_named(offer.planned_as)
        assert "package table of 2026-11 (skypilot-catalog commit " in offer.source
        assert offer.usd_per_hour > 0


def test_providers_own_names_and_other_cards_are_found():
    assert {"H100", "H100-SXM"} == {o.gpu for o in offers("H100")}
    pcie = offers("H100-PCIE", spot=False)
    assert {o.instance for o in pcie} == {"gpu_1x_h100_pcie", "1x-H100_NVL-32-65536"}
    assert {o.gpu for o in pcie} == {"H100"}  # what SkyPilot must be asked for
    (super_card,) = offers("RTX 4070 Ti SUPER")
    assert (super_card.gpu, super_card.planned_as) == ("RTX4070", "RTX4070TiSUPER")


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


def test_an_own_machine_costs_its_electricity():
    machine = own_machine("3090", 4, watts=1600, usd_per_kwh=0.30)
    assert machine.usd_per_hour == pytest.approx(0.48)
    assert (machine.provider, machine.gpu, machine.gpus) == ("own", "RTX3090", 4)


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
    assert [o.usd_per_hour for o in found] == [15.92]
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


def test_every_row_of_the_table_is_an_offer_or_a_gpu_the_planner_lacks():
    path = Path(prices.__file__).with_name("prices.csv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 81
    offered = {(o.provider, o.instance, o.region) for o in offers()}
    missing = {r["gpu"] for r in rows if (r["provider"], r["instance"], r["region"]) not in offered}
    assert missing == {"A10", "GH200", "RTX6000"}


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
