"""Sweeps with real trials: they lose a trial and their driver, and keep their hard budget."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing

import psutil
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
    trial_dir,
    trial_dirs,
    write_sweep,
)
from tests.train.command import last_step, rows_of, wait_until

STEPS = 400
RATES = [1e-3, 2e-3, 4e-3, 8e-3]


def attempts(run_dir):
    return json.loads((run_dir / "ledger.json").read_text())["attempts"]


def running(file):
    """Folders of the trials that run, by the journal."""
    found = [trial_dir(file, n) for n, state in states(file).items() if state == "running"]
    return [run_dir for run_dir in found if run_dir is not None]


def mlflow_runs(file):
    with closing(sqlite3.connect(file.parent / "runs" / "mlflow.db")) as store:
        runs = dict(store.execute("select run_uuid, name from runs"))
        status = dict(store.execute("select name, status from runs"))
        rows = store.execute("select run_uuid, key, value from tags").fetchall()
        steps = store.execute(
            "select name, step from metrics join runs using (run_uuid) where key = 'loss'"
        ).fetchall()
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in rows:
        tags.setdefault(runs[run], {})[key] = value
    return runs, status, tags, steps


@pytest.mark.slow
def test_killed_trial_and_killed_driver_lose_and_repeat_nothing(tmp_path, shards):
    file = write_sweep(
        tmp_path,
        shards,
        STEPS,
        space={"optim.peak_lr": {"grid": RATES}},
        at_once=2,
        set={"track.mlflow": True, "checkpoint.every_steps": 50},
    )
    tune = Tune(file)
    wait_until(lambda: trial_dir(file, 0), tune.is_alive)
    hurt = trial_dir(file, 0)
    wait_until(lambda: last_step(hurt) >= 60, tune.is_alive)
    tune.trial_process(hurt).kill()
    # The sweep replaces the process, which goes on from its last checkpoint.
    wait_until(lambda: states(file).get(0) == "finished", tune.is_alive)
    assert [row["step"] for row in rows_of(hurt)] == list(range(5, STEPS + 1, 5))
    events = (hurt / "events.jsonl").read_text()
    assert "continuing from step-" in events

    wait_until(lambda: any(last_step(run) >= 60 for run in running(file)), tune.is_alive)
    tune.kill()
    # Nobody trains on without the driver: what was running saves and leaves.
    _, alive = psutil.wait_procs(tune.family, timeout=60)
    assert not alive
    before = states(file)
    for run_dir in running(file):  # not one step was lost
        newest = max((run_dir / "checkpoints").glob("step-*"), default=None)
        assert last_step(run_dir) <= (int(newest.name[5:]) if newest else 0)
    over = {n for n, state in before.items() if state == "finished"}
    assert 0 in over
    assert "running" in before.values()
    finished_rows = {n: (trial_dir(file, n) / "metrics.jsonl").read_bytes() for n in over}
    finished_accounts = {n: attempts(trial_dir(file, n)) for n in over}
    was_at = {run: last_step(run) for run in running(file)}

    changed = file.read_text().replace("batch_tokens: 128", "batch_tokens: 256")
    assert changed != file.read_text()
    original = file.read_text()
    file.write_text(changed)
    refused = Tune(file, resume=True).ends_with(2)
    assert "base.train.batch_tokens: 128 before, 256 now" in refused.said
    file.write_text(original)

    resumed = Tune(file, resume=True).ends_with(0)
    assert states(file) == dict.fromkeys(range(len(RATES)), "finished"), resumed.said
    for number in over:
        assert (trial_dir(file, number) / "metrics.jsonl").read_bytes() == finished_rows[number]
        assert attempts(trial_dir(file, number)) == finished_accounts[number]
    for run_dir in trial_dirs(file):
        assert [row["step"] for row in rows_of(run_dir)] == list(range(5, STEPS + 1, 5))
    for run, step in was_at.items():
        if 50 <= step < STEPS:  # at its end the journal only did not know it yet
            assert "continuing from step-" in (run / "events.jsonl").read_text()

    runs, status, tags, steps = mlflow_runs(file)
    names = {path.name for path in trial_dirs(file)}
    assert sorted(runs.values()) == sorted([*names, file.stem])  # one run each, and the parent
    assert set(status.values()) == {"FINISHED"}, resumed.said
    parent = next(run for run, name in runs.items() if name == file.stem)
    assert {tags[name]["mlflow.parentRunId"] for name in names} == {parent}
    assert sorted(steps) == sorted((n, s) for n in names for s in range(5, STEPS + 1, 5))
    best = json.loads((sweep_dir(file) / "sweep.json").read_text())["best"]["trial"]
    assert [name for name in names if tags[name]["best"] == "true"] == [best]
    assert tags[file.stem]["best_checkpoint"].endswith(f"{best}/checkpoints/step-{STEPS:08d}")

    again = Tune(file, resume=True).ends_with(0)
    assert "finished" in again.said
    assert {n: attempts(trial_dir(file, n)) for n in over} == finished_accounts


@pytest.mark.slow
def test_an_interrupted_sweep_saves_leaves_and_goes_on(tmp_path, shards):
    space = {"optim.peak_lr": {"grid": RATES[:1]}}
    file = write_sweep(tmp_path, shards, STEPS, space=space, seeds=[0, 1], at_once=2)
    tune = Tune(file)
    wait_until(lambda: trial_dir(file, 0), tune.is_alive)
    wait_until(lambda: last_step(trial_dir(file, 0)) >= 20, tune.is_alive)
    tune.process.terminate()
    tune.ends_with(128 + signal.SIGTERM)
    assert "interrupted" in states(file).values(), tune.said
    assert json.loads((sweep_dir(file) / "sweep.json").read_text())["ended"] == "interrupted"
    stopped_at = last_step(trial_dir(file, 0))
    assert stopped_at < STEPS
    resumed = Tune(file, resume=True).ends_with(0)
    assert set(states(file).values()) == {"finished"}, resumed.said
    best = json.loads((sweep_dir(file) / "sweep.json").read_text())["best"]
    losses = [rows_of(path)[-1]["val_loss"] for path in trial_dirs(file)]
    assert best["means"]["val_loss"] == sum(losses) / 2
    assert len(set(losses)) == 2  # the seeds differ


def summary_of(file):
    return json.loads((sweep_dir(file) / "sweep.json").read_text())


@pytest.mark.slow
def test_a_grid_ends_at_its_budget_and_goes_on_with_a_larger_one(tmp_path, shards):
    budget, steps = {"usd": 9.0}, 500
    file = write_sweep(
        tmp_path,
        shards,
        steps,
        space={"optim.peak_lr": {"grid": [1e-3, 3e-3, 1e-2]}},
        budget=budget,
        at_once=2,
    )
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
