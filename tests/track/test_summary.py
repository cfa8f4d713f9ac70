from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gpt2dist.config.load import identity, resolve
from gpt2dist.errors import BadInput
from gpt2dist.track.attempts import Attempt
from gpt2dist.track.ledger import Account
from gpt2dist.track.summary import RunEnd, read_summary, summarize, write_summary


def summary_of(rows, account=None):
    account = account or Account([Attempt("a", 0.0, 10.0, 1, 0.0, "own machine")])
    return summarize(
        resolve("debug"),
        rows,
        account,
        RunEnd("debug-1", "finished", "all steps done", "cpu", 2, "fp32"),
    )


ROWS = [
    {"step": 10, "tokens": 100, "loss": 4.0, "tokens_per_s": 10.0, "step_s": 3.0, "skipped": 0},
    {"step": 20, "tokens": 200, "loss": 3.0, "val_loss": 3.1, "tokens_per_s": 90.0, "step_s": 1.0},
    {"step": 30, "tokens": 300, "loss": 2.5, "val_loss": 3.4, "tokens_per_s": 30.0, "skipped": 2},
    {"step": 40, "tokens": 400, "loss": None, "tokens_per_s": None, "host_gib": 1.5},
]


def test_summary_takes_the_best_the_last_and_the_median():
    summary = summary_of(ROWS)
    assert summary["best_val_loss"] == 3.1
    assert summary["best_step"] == 20
    assert summary["final_val_loss"] == 3.4
    assert summary["final_loss"] == 2.5
    assert (summary["steps"], summary["tokens"], summary["total_steps"]) == (40, 400, 64)
    assert summary["tokens_per_s"] == 30.0
    assert summary["skipped_steps"] == 2
    assert summary["peak_host_gib"] == 1.5
    assert summary["identity"] == identity(resolve("debug"))


def test_what_nobody_measured_is_null():
    summary = summary_of([])
    unknown = ("final_val_loss", "best_step", "final_loss", "tokens_per_s", "mfu", "peak_gpu_gib")
    assert [summary[key] for key in unknown] == [None] * len(unknown)
    assert (summary["steps"], summary["tokens"], summary["data_wait_share"]) == (0, 0, None)


def test_waiting_for_data_is_a_share_of_all_step_time():
    rows = [{"step": 1, "data_wait_s": 1.0, "step_s": 2.0}, {"step": 2, "step_s": 9.0}]
    rows.append({"step": 3, "data_wait_s": 0.0, "step_s": 8.0})
    assert summary_of(rows)["data_wait_share"] == pytest.approx(0.1)


def test_the_price_is_that_of_all_attempts():
    account = Account(
        [
            Attempt("a", 0.0, 3600.0, 1, 2.0, "config"),
            Attempt("b", 9000.0, 9000.0 + 1800, 3, 2.0, "config"),
        ]
    )
    summary = summary_of(ROWS, account)
    assert summary["usd"] == pytest.approx(2.0 + 3.0)
    assert (summary["seconds"], summary["attempts"], summary["machines"]) == (5400, 2, 3)
    assert summary["usd_per_hour"] == pytest.approx(6.0)


@pytest.mark.parametrize(("dollars", "sources", "usd"), [
    (0.0, ["own machine"], None),
    (2.0, ["config", "own machine"], None),
    (0.0, ["config"], 0.0),
])  # fmt: skip
def test_dollars_are_unknown_where_any_attempt_had_no_price(dollars, sources, usd):
    account = Account(
        [Attempt(str(at), at, at + 1.0, 1, dollars, s) for at, s in enumerate(sources)]
    )
    summary = summary_of(ROWS, account)
    assert (summary["usd"], summary["usd_per_hour"]) == (usd, usd)


def test_summary_survives_the_disk(tmp_path):
    summary = summary_of(ROWS)
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_run_without_an_end_is_named(tmp_path):
    with pytest.raises(BadInput, match="no summary at"):
        read_summary(tmp_path)


def test_recording_costs_no_heavy_import():
    modules = "rows, ledger, budget, progress, summary, curve, mlflow_log, mlflow_uri"
    code = (
        f"from gpt2dist.track import {modules}\n"
        "from gpt2dist.track.versions import versions\n"
        "import sys\n"
        "assert versions()['torch'] and versions()['mlflow']\n"
        "heavy = {'mlflow', 'matplotlib', 'torch', 'ray', 'deepspeed', 'numpy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
