"""Plans are priced from one arithmetic: what they say forwards, they say backwards."""

import json
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt2dist.config.load import resolve
from gpt2dist.errors import BadInput
from gpt2dist.model.gpt2 import GPT2, Cache
from gpt2dist.plan.describe import as_json, describe, phases, refusals, table
from gpt2dist.plan.goals import Basis, Goal
from gpt2dist.plan.machine.hardware import Hardware, all_gpus, parse_on
from gpt2dist.plan.planner import offers_for, plan_on, plan_run, tokens_to_prepare
from gpt2dist.plan.ranking import everywhere, rank

SMALL, XL = resolve("gpt2-124m"), resolve("gpt2-1558m")
SIZES = [resolve(name) for name in ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m")]
REPOSITORY = Path(__file__).parents[2]

PROMISED = {
    "params", "flops_per_token", "tokens", "gpu", "gpus", "nodes", "fits", "peak_gib", "memory",
    "micro_batch", "grad_accum", "zero_stage", "measures", "tokens_per_s", "tokens_per_s_range",
    "mfu", "hours", "usd", "usd_range", "usd_per_hour", "offer", "val_loss", "val_loss_range",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _the_package_s_prices(monkeypatch, tmp_path):
    """Whatever catalog SkyPilot keeps in the home of who runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SKY_RUNTIME_DIR", raising=False)


@pytest.mark.parametrize("config", SIZES, ids=lambda config: config.recipe)
def test_every_plan_shares_the_batch_exactly_and_stays_within_the_memory(config):
    for gpu in all_gpus():
        for count in (1, 2, 4, 8):
            plan = plan_run(config, Hardware(gpu, count), None)
            if not plan.runs:
                assert plan.throughput is None or plan.measures
                continue
            sequences = plan.layout.micro_batch * plan.layout.accumulation * count
            assert sequences * config.model.context == config.train.batch_tokens
            assert plan.peak_gib <= gpu.memory_gib
            assert 0 < plan.throughput.mfu < 1
            assert plan.throughput.low < plan.tokens_per_s < plan.throughput.high


def test_dollars_are_hours_times_the_price_of_all_machines():
    plan = plan_on(SMALL, "A100:8x2")
    assert plan.usd_per_hour == 2 * plan.offer.usd_per_hour
    assert plan.usd == pytest.approx(plan.hours * plan.usd_per_hour)
    assert sum(phases(plan.cost).values()) == pytest.approx(plan.hours)
    assert plan.cost.train_hours == pytest.approx(plan.tokens / plan.tokens_per_s / 3600)


@pytest.mark.parametrize(("unit", "limit"), [("usd", 20.0), ("usd", 0.5), ("hours", 3.0)])
def test_the_longest_run_within_a_limit_cannot_take_one_step_more(unit, limit):
    hardware = parse_on("RTX4090")
    offer = offers_for(SMALL, hardware)[0]
    plan = plan_run(SMALL, hardware, offer, Basis(Goal(**{unit: limit})))
    more = Goal(tokens=plan.tokens + SMALL.train.batch_tokens)
    longer = plan_run(SMALL, hardware, offer, Basis(more))
    assert longer.steps == plan.steps + 1
    assert getattr(plan, unit) <= limit < getattr(longer, unit)


def test_the_run_to_a_loss_is_predicted_to_end_there():
    plan = plan_on(SMALL, "H100", basis=Basis(Goal(loss=3.28)))
    assert plan.val_loss == pytest.approx(3.28, abs=1e-3)


def test_compute_and_epochs_set_the_length_by_their_definitions():
    plan = plan_on(SMALL, "H100", basis=Basis(Goal(flops=1e20)))
    assert 6 * plan.params * plan.tokens == pytest.approx(1e20, rel=1e-3)
    small_text = Basis(Goal(epochs=3), dataset_tokens=50e6)
    plan = plan_on(SMALL, "H100", basis=small_text)
    assert plan.tokens == pytest.approx(150e6, rel=2e-3)
    fresh = plan_on(SMALL, "H100", basis=Basis(Goal(tokens=plan.tokens)))
    assert plan.val_loss > fresh.val_loss, "text that is read again teaches less"
    sample = plan_on(SMALL, "H100", basis=Basis(Goal(epochs=2)))
    assert sample.tokens == pytest.approx(20e9, rel=1e-3), "sample-10BT says its size"
    with pytest.raises(BadInput, match="--dataset-tokens"):
        plan_on(resolve("gpt2-124m", ["data.source=my.txt"]), "H100", basis=Basis(Goal(epochs=2)))


def test_runs_side_by_side_fill_the_gpu_and_one_more_does_not_fit():
    for on in ("RTX3090", "A100-80GB", "RTX4070Ti"):
        plan = plan_on(SMALL, on)
        one = plan_on(resolve("gpt2-124m", ["cluster.micro_batch=1"]), on).peak_gib
        assert plan.runs_at_once * one <= plan.gpu_memory_gib < (plan.runs_at_once + 2) * one


def test_a_model_that_writes_holds_its_weights_and_a_cache():
    """Against the tensors that `sample` itself makes of them."""
    config = resolve("debug")
    plan = plan_on(config, "H100")
    weights = sum(p.numel() * p.element_size() for p in GPT2(config.model).parameters())
    assert plan.generation.weights_gib == pytest.approx(weights / 2**30)
    cache = Cache(config.model, 1, device=torch.device("cpu"), dtype=torch.bfloat16)
    kept = cache.keys_LBHSK.nbytes + cache.values_LBHSK.nbytes
    assert plan.generation.cache_gib == pytest.approx(kept / 2**30)


def test_an_own_machine_costs_its_power_and_no_setup():
    config = resolve("gpt2-124m", ["cluster.watts=1500", "cluster.usd_per_kwh=0.3"])
    plan = plan_on(config, "RTX3090:4")
    assert plan.usd == pytest.approx(plan.hours * 1.5 * 0.3)
    assert plan.cost.setup_hours == 0
    assert plan.offer.provider == "own"


def test_a_model_that_does_not_fit_comes_with_what_makes_it_fit():
    plan = plan_on(XL, "RTX3090:4")
    assert not plan.fits
    assert plan.runs
    assert "cluster.mixed_precision=engine" in [measure.setting for measure in plan.measures]
    assert "does not fit as configured (22.2 GiB); it does with" in describe(plan)
    hopeless = plan_on(XL, "RTX4070Ti")
    assert not hopeless.runs


def test_every_promised_field_is_there_and_is_json():
    for on in ("A100-80GB:8", "RTX4070Ti"):
        fields = as_json(plan_on(XL, on))
        assert fields.keys() >= PROMISED
        json.dumps(fields, allow_nan=False)
    assert {"provider", "instance", "region", "spot"} <= as_json(plan_on(XL, "H100:8"))[
        "offer"
    ].keys()


def test_every_offer_is_ranked_by_dollars_and_the_quickest_is_marked():
    plans, _ = rank([SMALL], everywhere())
    dollars = [plan.usd for plan in plans]
    assert dollars == sorted(dollars)
    assert len({(p.gpu, p.gpus, p.offer.provider, p.offer.spot) for p in plans}) == len(plans)
    quickest = min(plans, key=lambda plan: plan.hours)
    marked = [line for line in table(plans, 3).splitlines() if "*" in line]
    assert quickest.gpu in marked[0]


def test_all_sizes_on_one_card_name_those_that_cannot_be_had():
    hardware = parse_on("RTX4070Ti")
    plans, refused = rank(SIZES, [(hardware, offers_for(SMALL, hardware))])
    assert [plan.recipe for plan in plans] == ["gpt2-124m", "gpt2-355m"]
    assert {r.recipe for r in refused} == {"gpt2-774m", "gpt2-1558m"}
    assert "8-bit Adam" in refusals(refused)


def test_prepared_shards_cost_no_preparation():
    assert tokens_to_prepare(SMALL) == 10e9
    prepared = replace(SMALL, paths=replace(SMALL.paths, dataset="shards"))
    assert tokens_to_prepare(prepared) == 0
    on = parse_on("A100")
    assert plan_run(prepared, on, None).cost.data_hours == 0
    assert plan_run(SMALL, on, None).cost.data_hours > 0
    assert plan_run(SMALL, on, None, Basis(data_ready=True)).cost.data_hours == 0


def test_a_part_of_the_documents_is_prepared_sooner():
    part = resolve("gpt2-124m", ["data.max_documents=100000"])
    assert tokens_to_prepare(part) == pytest.approx(1e8, rel=0.1)


def test_a_micro_batch_that_is_too_large_comes_with_one_that_fits():
    plan = plan_on(resolve("gpt2-124m", ["cluster.micro_batch=64"]), "RTX4090")
    assert not plan.fits
    assert plan.wanted_gib > plan.gpu_memory_gib > plan.peak_gib
    assert [measure.setting for measure in plan.measures] == ["cluster.micro_batch=32"]
    assert "fits with the measures below" in describe(plan)


@pytest.mark.parametrize("unit", ["usd", "hours", "tokens"])
def test_a_budget_that_ends_the_run_early_is_said(unit):
    takes = getattr(plan_on(SMALL, "A100:8"), unit)
    for share, said in ((0.5, True), (1.5, False)):
        limited = resolve("gpt2-124m", [f"budget.{unit}={int(share * takes)}"])
        assert ("ends the run before its end" in describe(plan_on(limited, "A100:8"))) == said


def test_the_loss_of_bytes_or_unknown_text_is_not_guessed():
    assert plan_on(resolve("debug"), "A100").val_loss is None
    words = ["data.tokenizer=bytes", "model.vocab=257"]
    assert plan_on(resolve("gpt2-124m", words), "A100").val_loss is None


@pytest.mark.parametrize(
    ("on", "words", "says"),
    [
        ("X100", [], "did you mean"),
        ("A100:0", [], "on=A100:0"),
        ("A100:3", [], "nearest: 522,240 or 525,312"),
        ("T4", ["cluster.precision=bf16"], "use fp16 or fp32"),
        ("A100", ["cluster.micro_batch=100"], "nearest: 64"),
        ("A100:8", ["cluster.workers=4"], "has 8: leave one of them out"),
        ("A100", ["cluster.device=cpu"], "names GPUs: leave one"),
    ],
)
def test_what_cannot_be_planned_is_one_line(on, words, says):
    with pytest.raises(BadInput) as error:
        plan_on(resolve("gpt2-124m", words), on)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("on", "gpus"), [("4090", 1), ("3xA6000", 3), ("5x3090", 5), ("H100:16", 16)]
)
def test_ones_own_machine_is_planned_whoever_rents_such(on, gpus):
    config = resolve("gpt2-124m", ["train.batch_tokens=491520"])
    own = resolve("gpt2-124m", ["train.batch_tokens=491520", "cluster.usd_per_hour=0.5"])
    plan, priced = plan_on(config, on), plan_on(own, on)
    assert (plan.gpus, plan.cost.train_hours) == (gpus, priced.cost.train_hours)
    assert (plan.offer is None) == (plan.usd is None) == (gpus > 1)
    assert priced.usd_per_hour == 0.5


@pytest.mark.parametrize(
    ("on", "asked", "says"),
    [
        ("H100:16", {"provider": "lambda"}, "machines of 1, 8; on=H100:8x2 takes several"),
        ("A6000:3", {"provider": "lambda"}, "machines of 1, 2, 4"),
        ("A100:8x2", {"provider": "runpod"}, "runpod offers no machine with 8 x A100 2 times"),
        ("RTX4090:4x2", {"spot": True}, "SkyPilot joins machines at aws, gcp, lambda only"),
    ],
)
def test_what_a_provider_does_not_have_is_one_line(on, asked, says):
    with pytest.raises(BadInput) as error:
        plan_on(SMALL, on, **asked)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_several_machines_are_planned_where_they_can_be_had():
    assert plan_on(SMALL, "H100:8x2").offer.provider in ("lambda", "gcp", "aws")


def test_a_slow_network_between_machines_costs_time():
    slow = resolve("gpt2-124m", ["cluster.network_gbit=10"])
    same = resolve("gpt2-124m", ["cluster.network_gbit=100"])
    assert plan_on(same, "A100:8x2").tokens_per_s == plan_on(SMALL, "A100:8x2").tokens_per_s
    assert plan_on(slow, "A100:8x2").tokens_per_s < 0.8 * plan_on(SMALL, "A100:8x2").tokens_per_s
    assert plan_on(slow, "A100:8").tokens_per_s == plan_on(SMALL, "A100:8").tokens_per_s


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        ({"usd": 0.05}, "cannot buy one step and one evaluation"),
        ({"loss": 1.2}, "no number of tokens"),
        ({"usd": -1}, "must be a positive number"),
        ({"usd": 5, "hours": 2}, "give one"),
        ({"tokens": 1000}, "1.00k tokens is less than one step of 524,288 tokens"),
        ({"tokens": 1e15}, "1000T tokens is more than 52.4T"),
    ],
)
def test_goals_that_cannot_be_met_are_refused(goal, says):
    with pytest.raises(BadInput, match=says):
        plan_on(SMALL, "A100", basis=Basis(Goal(**goal)))


@pytest.mark.parametrize(
    "goal",
    [{}, {"tokens": 3e9}, {"usd": 7.5}, {"hours": 9.0}, {"loss": 3.3}],
    ids=lambda goal: "".join(goal) or "whole",
)
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["model.layers=6", "model.context=512", "data.source=hf:HuggingFaceFW/fineweb:sample-10BT"],
        [
            "train.batch_tokens=262144",
            "optim.peak_lr=3e-4",
            "budget.hours=30",
            "eval.every_steps=null",
        ],
        [
            "cluster.recompute=true",
            "cluster.compile=false",
            "zero.stage=2",
            "cluster.precision=fp16",
        ],
        ["data.text_field=the 'text'", "cluster.micro_batch=8", "paths.runs=my runs"],
    ],
    ids=["recipe", "model", "batch", "cluster", "names"],
)
@pytest.mark.parametrize("on", ["A100-80GB:8", "RTX3090:4", "T4:2", "H100"])
@pytest.mark.parametrize("recipe", ["gpt2-124m", "gpt2-1558m"])
def test_the_printed_train_line_is_the_plan(recipe, on, words, goal):
    """Read back as a shell and `train` read it, it gives the same plan, figure for figure."""
    hardware = parse_on(on)
    offer = offers_for(SMALL, hardware)[0]
    if recipe == "gpt2-1558m" and "loss" in goal:
        goal = {"loss": 2.6}
    try:
        plan = plan_run(resolve(recipe, words), hardware, offer, Basis(Goal(**goal)))
    except BadInput:
        out_of_reach = recipe == "gpt2-1558m" or "loss" in goal or (offer is None and "usd" in goal)
        assert out_of_reach
        return
    if not plan.runs:
        return
    line = shlex.split(shlex.join(plan.settings()))
    again = plan_run(resolve(recipe, line), hardware, offer)
    assert again.settings() == plan.settings()
    shown = as_json(plan) | {"fits": True, "measures": []}  # they are settings by then
    assert as_json(again) == shown


def test_planning_imports_nothing_heavy():
    program = (
        "import sys; from gpt2dist.cli.main import main; "
        "code = main(['plan', 'gpt2-124m', 'on=A100-80GB:8']); "
        "heavy = {'torch', 'ray', 'deepspeed', 'mlflow', 'sky', 'pandas', 'matplotlib'}; "
        "sys.exit(code or len(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "money" in done.stdout


def test_the_feasibility_page_is_what_the_planner_says():
    script = runpy.run_path(str(REPOSITORY / "benchmarks" / "feasibility.py"))
    assert (REPOSITORY / "docs" / "feasibility.md").read_text() == script["document"]()
