"""Plans are priced from one arithmetic: what they say forwards, they say backwards."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.errors import BadInput
from gpt2dist.plan.describe import as_json, describe, phases, refusals, table
from gpt2dist.plan.goals import Goal, check_goal, plan_for
from gpt2dist.plan.machine.hardware import Hardware, all_gpus, gpu_named, parse_on
from gpt2dist.plan.planner import offer_for, plan_on, plan_run, tokens_to_prepare
from gpt2dist.plan.ranking import everywhere, on_one

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
            tokens = plan.micro_batch * plan.grad_accum * count * config.model.context
            assert tokens == config.train.batch_tokens
            assert plan.peak_gib <= gpu.memory_gib
            assert 0 < plan.mfu < 1
            assert plan.tokens_per_s_range[0] < plan.tokens_per_s < plan.tokens_per_s_range[1]


def test_dollars_are_hours_times_the_price_of_all_machines():
    plan = plan_on(SMALL, "A100:8x2")
    assert plan.usd_per_hour == 2 * plan.offer.usd_per_hour
    assert plan.usd == pytest.approx(plan.hours * plan.usd_per_hour)
    assert sum(phases(plan.cost).values()) == pytest.approx(plan.hours)
    assert plan.cost.train_hours == pytest.approx(plan.tokens / plan.tokens_per_s / 3600)


@pytest.mark.parametrize(("unit", "limit"), [("usd", 20.0), ("usd", 0.5), ("hours", 3.0)])
def test_the_longest_run_within_a_limit_cannot_take_one_step_more(unit, limit):
    hardware = parse_on("RTX4090")
    offer = offer_for(SMALL, hardware)

    def plan_of(config):
        return plan_run(config, hardware, offer)

    plan = plan_for(SMALL, Goal(**{unit: limit}), plan_of)
    longer = plan_for(SMALL, Goal(tokens=plan.tokens + SMALL.train.batch_tokens), plan_of)
    assert longer.steps == plan.steps + 1
    assert getattr(plan, unit) <= limit < getattr(longer, unit)


def test_the_run_to_a_loss_is_predicted_to_end_there():
    plan = plan_for(SMALL, Goal(loss=3.28), lambda config: plan_on(config, "H100"))
    assert plan.val_loss == pytest.approx(3.28, abs=1e-3)


def test_an_own_machine_costs_its_power_and_no_setup():
    config = resolve("gpt2-124m", ["cluster.watts=1500", "cluster.usd_per_kwh=0.3"])
    plan = plan_on(config, "RTX3090:4")
    assert plan.usd == pytest.approx(plan.hours * 1.5 * 0.3)
    assert plan.cost.setup_hours == 0
    assert plan.offer.provider == "own"


def test_a_plan_s_settings_lead_train_to_the_same_layout():
    """Through train's own solver, on a machine with those GPUs."""
    from gpt2dist.train.placement import Machine, solve

    for config, on in ((SMALL, "A100-80GB:8"), (XL, "RTX3090:4"), (SMALL, "T4:2")):
        plan = plan_on(config, on)
        settled = resolve(config.recipe, plan.settings())
        gpu = gpu_named(plan.gpu)
        machine = Machine(
            gpus=plan.gpus,
            gpu_names=(gpu.name,) * plan.gpus,
            gpu_free_gib=gpu.memory_gib,
            gpu_capability=(8, 0) if gpu.has_bf16 else (7, 5),
            cpu_cores=64,
            cpu_flags=frozenset(),
        )
        placement = solve(settled, machine)
        assert (placement.micro_batch, placement.accumulation) == (
            plan.micro_batch,
            plan.grad_accum,
        )
        assert (placement.workers, placement.precision) == (plan.gpus, plan.layout.precision)
        assert settled.zero.stage == plan.zero_stage


def test_one_gpu_has_nothing_to_shard():
    assert plan_on(XL, "A100-80GB").zero_stage == 0
    assert plan_on(XL, "A100-80GB:8").zero_stage == XL.zero.stage == 1


def test_a_model_that_does_not_fit_comes_with_what_makes_it_fit():
    plan = plan_on(XL, "RTX3090:4")
    assert not plan.fits
    assert plan.runs
    assert "cluster.mixed_precision=engine" in [measure.setting for measure in plan.measures]
    assert "does not fit as configured; it does with" in describe(plan)
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
    plans, _ = everywhere([SMALL], Goal())
    dollars = [plan.usd for plan in plans]
    assert dollars == sorted(dollars)
    assert len({(p.gpu, p.gpus, p.offer.provider, p.offer.spot) for p in plans}) == len(plans)
    quickest = min(plans, key=lambda plan: plan.hours)
    marked = [line for line in table(plans, 3).splitlines() if "*" in line]
    assert quickest.gpu in marked[0]


def test_all_sizes_on_one_card_name_those_that_cannot_be_had():
    plans, refused = on_one(SIZES, parse_on("RTX4070Ti"), Goal())
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
        ("T4", ["cluster.precision=bf16"], "cluster.precision=fp16 zero.stage=1"),
        ("A100", ["cluster.micro_batch=100"], "nearest: 64"),
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
        (Goal(usd=0.05), "cannot buy one step and one evaluation"),
        (Goal(loss=1.2), "no number of tokens"),
        (Goal(usd=-1), "must be a positive number"),
        (Goal(usd=5, hours=2), "give one"),
    ],
)
def test_goals_that_cannot_be_met_are_refused(goal, says):
    def ask():
        check_goal(goal)
        plan_for(SMALL, goal, lambda config: plan_on(config, "A100"))

    with pytest.raises(BadInput, match=says):
        ask()


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
