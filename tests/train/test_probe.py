"""What was measured on a machine replaces what was predicted, and is held against what comes."""

import json

import pytest

from tests.train.command import BATCH_TOKENS, TINY, TOTAL_STEPS, Command, rows_of, summary_of

PRICED = [*TINY, "cluster.usd_per_hour=3.6"]  # a thousandth of a dollar a second


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("probed")


@pytest.fixture(scope="module")
def plan(runs, shards):
    source = f"data.source={shards}"
    words = ["plan", "debug", "--probe", "--json", *PRICED, source, f"paths.runs={runs}"]
    command = Command(runs, *words).ends_with(0)
    assert "measuring 20 steps" in command.stderr
    return json.loads(command.stdout)


@pytest.fixture(scope="module")
def summary(runs, plan, shards):
    del plan  # measured first
    words = ["train", "debug", "--local", *PRICED, f"data.source={shards}", f"paths.runs={runs}"]
    Command(runs, *words, "--name", "run").ends_with(0)
    return summary_of(runs / "run")


def test_a_probe_plans_with_its_own_speed_and_memory(runs, plan):
    probe = json.loads((runs / "probes.json").read_text())[0]
    assert plan["measured"]
    assert plan["fits"]
    accumulated = BATCH_TOKENS // probe["tokens_per_micro_batch"]
    step_s = accumulated * probe["micro_batch_seconds"] + probe["optimizer_seconds"]
    assert plan["tokens_per_s"] == pytest.approx(BATCH_TOKENS / step_s)
    assert plan["hours_by_phase"]["train"] == pytest.approx(TOTAL_STEPS * step_s / 3600)
    assert plan["peak_gib"] == probe["peak_gib"]
    assert plan["usd"] == pytest.approx(plan["hours"] * 3.6)
    assert plan["hours_by_phase"]["setup"] == 0


def test_a_run_stores_predicted_against_actual(plan, summary):
    predicted, error = summary["predicted"], summary["prediction_error"]
    assert predicted["basis"].startswith("probe of ")
    assert predicted["tokens_per_s"] == pytest.approx(plan["tokens_per_s"])
    assert predicted["usd"] == pytest.approx(plan["usd"])
    assert error["tokens_per_s"] == pytest.approx(
        summary["tokens_per_s"] / predicted["tokens_per_s"] - 1
    )
    assert error["usd"] == pytest.approx(summary["usd"] / predicted["usd"] - 1)
    assert error["hours"] == pytest.approx(summary["seconds"] / 3600 / predicted["hours"] - 1)
    assert error["val_loss"] is None  # nobody predicts the loss of bytes


def test_a_second_probe_takes_the_first_one_s_place(runs, plan, summary):
    del plan, summary
    words = ["plan", "debug", "--probe", *TINY, f"paths.runs={runs}"]
    shown = Command(runs, *words).ends_with(0).stdout
    assert "measured here" in shown
    assert "money    unknown: this machine has no price; cluster.usd_per_hour=..." in shown
    assert "$0" not in shown
    assert len(json.loads((runs / "probes.json").read_text())) == 1


def test_an_unprobed_cpu_run_claims_no_prediction(tmp_path, shards):
    words = ["train", "debug", "--local", *TINY, f"data.source={shards}", f"paths.runs={tmp_path}"]
    Command(tmp_path, *words, "--name", "run", f"train.tokens={5 * BATCH_TOKENS}").ends_with(0)
    summary = summary_of(tmp_path / "run")
    assert rows_of(tmp_path / "run")
    assert set(summary["predicted"].values()) == {None}
    assert set(summary["prediction_error"].values()) == {None}


def test_dollars_set_no_length_where_there_is_no_price(tmp_path):
    words = ["plan", "debug", "--probe", "--usd", "5", *TINY, f"paths.runs={tmp_path}"]
    command = Command(tmp_path, *words).ends_with(2)
    assert "--usd 5 cannot be kept: this machine has no price" in command.stderr
    assert "measuring" not in command.stderr


def test_a_damaged_probe_file_is_named(tmp_path):
    (tmp_path / "probes.json").write_text("[{")
    words = ["plan", "debug", "--probe", *TINY, f"paths.runs={tmp_path}"]
    command = Command(tmp_path, *words).ends_with(2)
    assert "probes.json is damaged" in command.stderr
