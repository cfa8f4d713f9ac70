"""Every file in sky/: what it promises, by our planner; that it can be launched, by SkyPilot."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import sky_tasks
import yaml

from gpt2dist.config.load import resolve, run_name
from gpt2dist.launch.allowance import Allowance, Reserve, amount_at
from gpt2dist.launch.providers import PROVIDERS
from gpt2dist.plan.machine.costs import IDLE_MINUTES
from gpt2dist.plan.machine.hardware import Hardware, gpu_named
from gpt2dist.plan.placement import machine_of, place

ROOT = Path(__file__).resolve().parents[2]
PRICES = ROOT / "gpt2dist" / "plan" / "machine" / "prices.csv"
FILES = sorted((ROOT / "sky").glob("*.yaml"))
PLAN = re.compile(
    r"# plan: (?P<gpus>\d+) x (?P<gpu>\S+)(?P<spot> spot)? at (?P<provider>\w+)"
    r"(?: on (?P<nodes>\d+) machines)?, (?P<hours>[\d.]+) h, \$(?P<usd>[\d.]+) "
    r"\((?P<low>[\d.]+) to (?P<high>[\d.]+)\), \$(?P<usd_per_hour>[\d.]+)/h, package table of .+"
)
SKY_PYTHON = os.environ.get("GPT2DIST_SKYPILOT_PYTHON", str(ROOT / ".venv-sky/bin/python"))
with_skypilot = pytest.mark.skipif(
    not Path(SKY_PYTHON).exists(),
    reason="SkyPilot's requirements exclude ours; `make sky` gives it .venv-sky",
)


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def machines(task: dict) -> list[dict]:
    resources = dict(task["resources"])
    return [{**resources, **choice} for choice in resources.pop("any_of", [{}])]


def provider(machine: dict) -> str:
    return machine["infra"].partition("/")[0]


def plans(path: Path) -> list[dict]:
    return [
        match.groupdict() for match in map(PLAN.fullmatch, path.read_text().splitlines()) if match
    ]


def ask(*paths: Path) -> dict:
    """What SkyPilot says, in a process of the Python that has it."""
    envs = [
        word for env in ("BUCKET_NAME=gpt2dist-test", "TARGET=s3://b/x") for word in ("--env", env)
    ]
    words = [SKY_PYTHON, str(Path(__file__).with_name("ask_skypilot.py")), str(PRICES)]
    done = subprocess.run(
        [*words, *map(str, paths), *envs], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def answers():
    return ask(*FILES)


def test_the_folder_holds_what_the_table_says_and_no_python():
    written = {path.name: path.read_text() for path in FILES}
    assert written == sky_tasks.files(), "run `python benchmarks/sky_tasks.py sky`"
    assert {path.suffix for path in (ROOT / "sky").iterdir()} == {".yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_machine_exists_at_its_provider_below_the_price_limit(path):
    with PRICES.open(newline="") as file:
        table = list(csv.DictReader(file))
    for machine in machines(load(path)):
        if "accelerators" not in machine:
            continue
        gpu, _, count = machine["accelerators"].partition(":")
        column = "usd_per_hour_spot" if machine.get("use_spot") else "usd_per_hour"
        prices = [
            float(row[column])
            for row in table
            if (row["provider"], row["gpu"], row["gpus"]) == (provider(machine), gpu, count)
            and row[column]
        ]
        assert prices, f"{provider(machine)} has no {machine['accelerators']}"
        assert min(prices) <= machine["max_hourly_cost"] <= 1.2 * max(prices)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_task_gives_its_machines_back_and_charges_their_highest_price(path):
    task = load(path)
    envs = task["envs"]
    assert task["resources"]["autostop"] == {"idle_minutes": 5, "down": True, "wait_for": "jobs"}
    for machine in machines(task):
        name = provider(machine)
        price = amount_at("USD_PER_HOUR", envs["USD_PER_HOUR"], name)
        assert price == pytest.approx(machine["max_hourly_cost"])
        budget = amount_at("BUDGET_USD", envs["BUDGET_USD"], name)
        assert Allowance(budget, price * task["num_nodes"], 0.0).deadline_s > 1800
        assert task["num_nodes"] == 1 or PROVIDERS[name].multi_node
        assert "file_mounts" not in task or PROVIDERS[name].mounts_buckets


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_task_runs_scripts_that_exist_and_holds_no_secret(path):
    task = load(path)
    scripts = re.findall(r"[\w/]+\.sh", task["setup"] + task["run"])
    assert {"gpt2dist/launch/machine/setup.sh", "gpt2dist/launch/machine/rented.sh"} <= set(scripts)
    assert all((ROOT / script).is_file() for script in scripts)
    assert path.stem == "prepare_data" or "cluster/ray_cluster.sh" in scripts
    assert "HF_TOKEN" in task["secrets"]
    assert set(task["secrets"].values()) == {""}


@pytest.mark.parametrize("name", sky_tasks.TRAININGS)
def test_a_training_is_a_config_and_goes_on_by_its_own_name(name):
    envs = load(ROOT / "sky" / f"{name}.yaml")["envs"]
    config = resolve(envs["RECIPE"], shlex.split(envs["OVERRIDES"]))
    assert envs["RUN"] == run_name(config)


@pytest.mark.parametrize("name", sky_tasks.TRAININGS)
def test_the_dollars_on_top_are_the_planners(name):
    path = ROOT / "sky" / f"{name}.yaml"
    promised, planned = plans(path), sky_tasks.plans(sky_tasks.TRAININGS[name])
    assert len(promised) == len(planned) == len(machines(load(path)))
    for line, plan in zip(promised, planned):
        assert line["provider"] == plan.offer.provider
        assert int(line["gpus"]) == plan.gpus
        assert float(line["hours"]) == pytest.approx(plan.hours, abs=0.05)
        assert float(line["usd"]) == pytest.approx(plan.usd, abs=0.005)
        assert float(line["usd_per_hour"]) == pytest.approx(plan.usd_per_hour, abs=0.005)
        assert float(line["low"]) <= float(line["usd"]) <= float(line["high"])


@pytest.mark.parametrize("name", sky_tasks.TRAININGS)
def test_what_is_rented_trains_what_was_planned_and_its_budget_lasts(name):
    """On each provider's card, as training places it there; at the ceiling of its price."""
    envs = load(ROOT / "sky" / f"{name}.yaml")["envs"]
    config = resolve(envs["RECIPE"], shlex.split(envs["OVERRIDES"]))
    reserve = Reserve(float(envs["GRACE_S"]), float(envs["UPLOAD_S"]))
    for plan in sky_tasks.plans(sky_tasks.TRAININGS[name]):
        hardware = Hardware(gpu_named(plan.gpu), plan.gpus // plan.nodes, plan.nodes)
        assert place(config, machine_of(hardware), gpus=plan.gpus).layout == plan.layout
        provider = plan.offer.provider
        price = amount_at("USD_PER_HOUR", envs["USD_PER_HOUR"], provider) * plan.nodes
        budget = amount_at("BUDGET_USD", envs["BUDGET_USD"], provider)
        high_usd = plan.usd_range[1] / plan.usd_per_hour * price
        idle_usd = price * IDLE_MINUTES / 60
        assert Allowance(budget, price, 0.0, reserve).run_usd >= 0.99 * high_usd - idle_usd


@with_skypilot
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_skypilot_accepts_the_file_and_every_machine_in_it(path, answers):
    answer = answers["tasks"][str(path)]
    assert "error" not in answer, answer["error"]
    task = load(path)
    for machine, got in zip(machines(task), answer["choices"], strict=True):
        assert got["provider"] == provider(machine)
        if "accelerators" in machine:
            gpu, _, count = machine["accelerators"].partition(":")
            assert got["accelerators"] == {gpu: int(count)}
        assert (got["nodes"], got["autodown"]) == (task["num_nodes"], True)
        assert got["spot"] == machine.get("use_spot", False)
    cheapest = min(got["usd_per_hour"] for got in answer["choices"])
    assert answer["best"]["usd_per_hour"] == pytest.approx(cheapest)


@with_skypilot
@pytest.mark.parametrize("name", sky_tasks.TRAININGS)
def test_skypilot_charges_per_hour_what_the_plan_says(name, answers):
    path = ROOT / "sky" / f"{name}.yaml"
    got = answers["tasks"][str(path)]["choices"]
    for line, machine in zip(plans(path), got, strict=True):
        hourly = machine["usd_per_hour"] * machine["nodes"]
        assert hourly == pytest.approx(float(line["usd_per_hour"]), abs=0.01)


@with_skypilot
def test_our_table_of_capabilities_is_skypilots(answers):
    ours = {
        name: {
            feature
            for feature, has in (
                ("MULTI_NODE", each.multi_node),
                ("STORAGE_MOUNTING", each.mounts_buckets),
                ("SPOT_INSTANCE", each.spot),
            )
            if has
        }
        for name, each in PROVIDERS.items()
    }
    assert ours == {name: set(able) for name, able in answers["capabilities"].items()}


BAD = {
    "a GPU of another name": "resources: {infra: runpod, accelerators: 'A100-40GB:1'}",
    "a GPU that the provider lacks": "resources: {infra: lambda, accelerators: 'RTX3090:4'}",
    "a misspelt key": "resources: {infra: lambda, acelerators: 'A100:1'}",
    "a secret without a value": "resources: {infra: lambda, accelerators: 'A100:1'}\n"
    "secrets: {HF_TOKEN: null}",
    "stopping at Lambda": "resources: {infra: lambda, accelerators: 'A100:1', autostop: 30}",
    "two nodes at RunPod": "num_nodes: 2\nresources: {infra: runpod, accelerators: 'A100-80GB:8'}",
    "a mounted bucket at Vast": "resources: {infra: vast, accelerators: 'A100:1'}\n"
    "file_mounts: {/b: {source: 's3://some-bucket', mode: MOUNT}}",
    "spot at Lambda": "resources: {infra: lambda, accelerators: 'A100:1', use_spot: true}",
    "dearer than the limit": "resources: {infra: lambda, accelerators: 'A100:1', "
    "max_hourly_cost: 1.5}",
    "no bucket for spot": None,
}


@with_skypilot
def test_bad_files_are_caught(tmp_path):
    paths = {}
    for number, (what, text) in enumerate(BAD.items()):
        path = tmp_path / f"{number}.yaml"
        if text is None:
            text = (ROOT / "sky" / "spot_a100_124m.yaml").read_text()
            text = text.replace("BUCKET_NAME", "NEVER_GIVEN")
        else:
            text += "\nrun: echo hi\n"
        path.write_text(text)
        paths[what] = path
    answers = ask(*paths.values())["tasks"]
    let_through = [what for what, path in paths.items() if "error" not in answers[str(path)]]
    assert let_through == []
