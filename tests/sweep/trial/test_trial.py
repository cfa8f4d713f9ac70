"""What a trial differs in, what it is called, what its folder says."""

from __future__ import annotations

import itertools
import json

import pytest

from gpt2dist.config.load import identity, resolve
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.sweep.trial.trial import Trial, TrialRecord, planned_trials
from tests.sweep.spec.test_sweep_file import load
from tests.sweep.sweeping import sweep_of


def test_a_grid_is_the_product_of_its_lists_times_the_seeds(tmp_path):
    sweep = load(tmp_path, seeds=[3, 5])
    trials = planned_trials(sweep)
    wanted = [
        (rate, dropout, seed)
        for rate, dropout in itertools.product([3e-4, 1e-3], [0.0, 0.1, 0.2])
        for seed in (3, 5)
    ]
    found = [(t.config.optim.peak_lr, t.config.model.dropout, t.config.train.seed) for t in trials]
    assert found == wanted
    assert len({trial.name for trial in trials}) == len(trials) == 2 * len(sweep.points)


def test_linked_values_move_together(tmp_path):
    space = {"model.width, model.heads": {"grid": [[64, 2], [128, 4]]}}
    trials = planned_trials(load(tmp_path, space=space))
    assert [(t.config.model.width, t.config.model.heads) for t in trials] == [(64, 2), (128, 4)]


def test_a_trial_differs_from_the_base_in_its_values_only(tmp_path):
    sweep = load(tmp_path)
    values = {"optim.peak_lr": 1e-3, "model.dropout": 0.1}
    config = Trial(sweep, 0, 0, values, 7).config
    wanted = resolve("debug", ["optim.peak_lr=1e-3", "model.dropout=0.1", "train.seed=7"])
    assert config == wanted


def test_a_point_that_cannot_run_is_named_before_anything_starts(tmp_path):
    sweep = load(tmp_path, space={"model.width": {"grid": [128, 130]}})
    with pytest.raises(BadInput, match=r"the point model\.width=130 cannot run: .*multiple of"):
        planned_trials(sweep)


def test_optuna_is_not_told_points_that_cannot_run(tmp_path):
    space = {"model.width": {"int": [100, 200]}}
    sweep = load(tmp_path, space=space, search={"kind": "optuna"}, budget={"trials": 40})
    assert all(trial.config.model.width % 4 == 0 for trial in planned_trials(sweep))
    assert len(sweep.points) == 40


def test_trials_are_named_after_what_is_swept(tmp_path):
    sweep = load(tmp_path, seeds=[0, 1])
    trial = Trial(sweep, 12, 3, {"optim.peak_lr": 3e-4, "model.dropout": 0.1}, 1)
    assert trial.name == "012-peak_lr-3e-4-dropout-0.1-seed-1"


def test_identity_of_a_trial_ignores_where_it_runs(tmp_path):
    here = planned_trials(sweep_of(tmp_path))[0].config
    there = planned_trials(sweep_of(tmp_path, set={"cluster.micro_batch": 1}))[0].config
    assert identity(here) == identity(there)
    assert identity(here) == identity(resolve("debug", ["optim.peak_lr=1e-3"]))


def test_a_trial_tells_its_start_and_its_pace_and_forgets_rolled_back_rows(tmp_path):
    trial = planned_trials(sweep_of(tmp_path))[0]
    record = TrialRecord(trial, tmp_path)
    assert record.pace is None
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"step": s, "tokens": s * 8192, "seconds": 10.0 + s, "val_loss": 5.0}
        for s in (1, 11, 6, 16)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record.refresh()
    start, seconds_per_flop = record.pace
    assert start == 11
    assert seconds_per_flop * 8192 * flops_per_token(trial.config.model) == pytest.approx(1)
    assert [row["step"] for row in record.evaluations] == [1, 6, 16]
    assert record.tokens == 16 * 8192
