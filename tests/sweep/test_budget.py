"""A sweep's hard budget, with real trials: a second of the machine costs a dollar."""

from __future__ import annotations

import json
import time

import pytest
import yaml

from gpt2dist.config.load import resolve
from tests.sweep.sweeping import (
    USD_PER_SECOND,
    Tune,
    interval_usd,
    spent_usd,
    states,
    sweep_dir,
    trial_dirs,
    write_sweep,
)
from tests.train.command import rows_of

pytestmark = pytest.mark.slow

RATES = {"optim.peak_lr": {"grid": [1e-3, 3e-3, 1e-2]}}


def summary_of(file):
    return json.loads((sweep_dir(file) / "sweep.json").read_text())


def test_a_grid_ends_at_its_budget_and_goes_on_with_a_larger_one(tmp_path, shards):
    budget, steps = {"usd": 9.0}, 500
    file = write_sweep(tmp_path, shards, steps, space=RATES, budget=budget, at_once=2)
    tune = Tune(file).ends_with(0)
    assert spent_usd(file) <= 9.0 + interval_usd(file, 2), tune.said
    ended = states(file)
    assert set(ended.values()) <= {"budget", "finished"}, tune.said
    assert list(ended.values()).count("finished") < 3, tune.said
    summary = summary_of(file)
    assert summary["ended"] == "budget"
    assert summary["usd"] == pytest.approx(spent_usd(file))
    before = {path: (path / "metrics.jsonl").read_bytes() for path in trial_dirs(file)}

    refused = Tune(file).ends_with(2)
    assert "trials are over): --resume continues it, --fresh sets it aside" in refused.said
    more = Tune(file, resume=True, usd=500.0).ends_with(0)
    assert set(states(file).values()) == {"finished"}, more.said
    for number, path in enumerate(trial_dirs(file)):
        steps_seen = [row["step"] for row in rows_of(path)]
        assert steps_seen == list(range(5, steps + 1, 5))  # none is missing or there twice
        if ended.get(number) == "finished":
            assert (path / "metrics.jsonl").read_bytes() == before[path]
    best = summary_of(file)["best"]
    losses = {t["trial"]: t["val_loss"] for t in summary_of(file)["trials"]}
    assert best["trial"] == min(losses, key=losses.__getitem__)
    config = resolve(str(sweep_dir(file) / "best.yaml"))
    assert config.optim.peak_lr == best["values"]["optim.peak_lr"]
    assert (sweep_dir(file) / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_rented_machine_is_paid_from_boot_to_end_also_where_it_idles(tmp_path, shards):
    """One long trial where two could run: its own account knows half of the machine's price.

    Without the bill it would get half of $45 for 45 s, after 20 s of setup and the start of Ray.
    """
    rate = {"optim.peak_lr": {"grid": [1e-3]}}
    file = write_sweep(
        tmp_path, shards, 100_000, space=rate, budget={"usd": 45.0}, at_once=2, seeds=[1]
    )
    booted_at = time.time() - 20
    tune = Tune(file, {"GPT2DIST_BILLED_SINCE": f"{booted_at}"}).ends_with(0)
    assert states(file)[0] in ("budget", "interrupted"), tune.said
    bill = json.loads((sweep_dir(file) / "ledger.json").read_text())["attempts"]
    paid = sum(a["last_seen_at"] - a["started_at"] for a in bill) * USD_PER_SECOND
    assert 20 + 2 * spent_usd(file) < paid < 60.0, tune.said
    summary = summary_of(file)
    assert summary["ended"] == "budget"
    assert summary["usd"] == pytest.approx(paid)


def test_optuna_keeps_its_budget(tmp_path, shards):
    pytest.importorskip("optuna")
    space = {"optim.peak_lr": {"loguniform": [1e-5, 1e-1]}}
    file = write_sweep(
        tmp_path,
        shards,
        40,
        space=space,
        search={"kind": "optuna"},
        budget={"trials": 50, "usd": 16.0},
        at_once=2,
    )
    tune = Tune(file).ends_with(0)
    assert spent_usd(file) <= 16.0 + interval_usd(file, 2), tune.said
    ended = states(file)
    assert 1 <= len(ended) < 50
    finished = [number for number, state in ended.items() if state == "finished"]
    rates = {
        yaml.safe_load((p / "config.yaml").read_text())["optim"]["peak_lr"]
        for p in trial_dirs(file)
    }
    assert len(rates) == len(trial_dirs(file))
    if finished:
        summary = summary_of(file)
        losses = {t["trial"]: t["val_loss"] for t in summary["trials"] if t["state"] == "finished"}
        assert summary["best"]["trial"] == min(losses, key=losses.get)


def test_asha_keeps_its_budget_and_stops_the_worse_at_equal_tokens(tmp_path, shards):
    rates = {"optim.peak_lr": {"grid": [1e-2, 1e-6, 2e-6]}}
    steps, first = 160, 40 * 128
    file = write_sweep(
        tmp_path,
        shards,
        steps,
        space=rates,
        scheduler={"kind": "asha", "first": first, "factor": 4},
        budget={"usd": 18.0},
        at_once=1,
    )
    tune = Tune(file).ends_with(0)
    assert spent_usd(file) <= 18.0 + interval_usd(file, 1), tune.said
    assert set(states(file).values()) <= {"finished", "stopped", "budget"}, tune.said
    more = Tune(file, resume=True, usd=500.0).ends_with(0)
    # The first has nobody to be compared with; both others are far behind it after as many tokens.
    assert states(file) == {0: "finished", 1: "stopped", 2: "stopped"}, more.said
    for trial in summary_of(file)["trials"]:
        assert trial["tokens"] < steps * 128 or trial["state"] == "finished"
        assert trial["state"] == "finished" or f"asha at {first:,} tokens" in trial["reason"]
