"""What trials and sweeps will cost, and which budgets are refused before anything starts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.machine.hardware import parse_on
from gpt2dist.plan.placement import Machine
from gpt2dist.plan.planner import offers_for, plan_on
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.sweep.cost.estimate import (
    Estimate,
    MachineShare,
    Pricing,
    SweepEstimate,
    expected_seconds,
    pricing_here,
    pricing_on,
)
from gpt2dist.sweep.spec.sweep_file import load_sweep
from gpt2dist.sweep.trial.trial import planned_trials
from tests.sweep.sweeping import sweep_of

CPU = Machine(0, "", None, False, 2, False)
PRICED = MachineShare(1.0, 1, 2.0, "config")


def share_here(sweep, gpus_per_machine):
    return pricing_here(sweep, CPU, gpus_per_machine).share


def test_trials_that_share_a_machine_share_its_price(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2DIST_USD_PER_HOUR", "8")
    two = share_here(sweep_of(tmp_path, at_once=2), 0)
    assert (two.usd_per_hour, two.part, two.machines) == (4.0, 0.5, 1)
    eight = share_here(sweep_of(tmp_path, at_once=8, resources={"gpus": 1}), 8)
    assert eight.usd_per_hour == 1.0
    alone = share_here(sweep_of(tmp_path, at_once=1, resources={"gpus": 2}), 8)
    assert alone.usd_per_hour == 8.0  # the other six GPUs are paid for all the same
    nodes = share_here(sweep_of(tmp_path, at_once=2, resources={"gpus": 16}), 8)
    assert (nodes.part, nodes.machines) == (1.0, 2)
    # An hour of both trials at once is an hour of the machine.
    assert two.cost(3600).times(2) == Amounts(8.0, 1.0, 0.0)


def test_a_trial_costs_what_its_siblings_took_per_flop(tmp_path):
    small, large = (
        planned_trials(sweep_of(tmp_path, set={"model.layers": layers}))[0].config
        for layers in (2, 4)
    )
    # 64 steps of a second each, after eleven seconds for the start.
    tokens = small.total_tokens
    paces = [(11.0, 64 / (tokens * flops_per_token(small.model)))]
    unknown = Estimate(tokens)
    assert expected_seconds(small, tokens, paces, unknown) == pytest.approx(11 + 64)
    assert expected_seconds(small, tokens / 2, paces, unknown) == pytest.approx(11 + 32)
    # Twice the layers cost more, not twice: the head.
    assert 11 + 64 < expected_seconds(large, tokens, paces, unknown) < 11 + 128
    assert expected_seconds(small, tokens, [], Estimate(tokens, hours=0.5)) == 1800
    assert expected_seconds(small, tokens, [], unknown) is None


def test_a_whole_gpu_trial_is_priced_like_the_run_that_it_is(tmp_path):
    sweep = sweep_of(tmp_path, base="gpt2-124m", resources={"gpus": 1})
    config = planned_trials(sweep)[0].config
    alone = plan_on(config, "A100-80GB:1")
    pricing = pricing_on(sweep, "A100-80GB:1")
    found = pricing.estimate(config)
    assert found.hours + found.once_hours == pytest.approx(alone.hours)
    assert pricing.share.usd_per_hour == alone.usd_per_hour
    # Four at once on a machine of four cost what they would cost alone, each a quarter of it.
    together = pricing_on(replace(sweep, at_once=4), "RTX3090:4")
    offer = offers_for(sweep.config, parse_on("RTX3090:4"))[0]
    assert together.share.usd_per_hour == pytest.approx(offer.usd_per_hour / 4)
    one = pricing_on(sweep, "RTX3090:1").estimate(config)
    assert together.estimate(config).hours == pytest.approx(one.hours, rel=0.1)
    with pytest.raises(BadInput, match=r"resources\.gpus=2 is more than the 1 GPUs of A100-80GB:1"):
        pricing_on(sweep_of(tmp_path, resources={"gpus": 2}), "A100-80GB:1")


def test_shipped_sweeps_are_valid_and_priced_for_their_hardware():
    files = sorted((Path(__file__).parents[3] / "tune").glob("*.yaml"))
    assert len(files) >= 6
    for file in files:
        sweep = load_sweep(str(file))
        configs = [trial.config for trial in planned_trials(sweep)]
        if sweep.hardware is not None:
            pricing = pricing_on(sweep, sweep.hardware)
            hours = math.fsum(pricing.estimate(config).hours for config in configs)
            assert 0 < pricing.share.cost(hours * 3600).usd <= sweep.budget.usd


def affordable(sweep, usd_per_trial, share=PRICED):
    configs = [trial.config for trial in planned_trials(sweep)]
    hours = usd_per_trial / 2.0 if usd_per_trial else None
    pricing = Pricing(share, lambda config: Estimate(config.total_tokens, hours))
    return SweepEstimate.of(sweep, configs, pricing).budget_notes(sweep)


def test_what_cannot_fit_is_refused_before_it_starts(tmp_path):
    with pytest.raises(BadInput, match=r"the sweep needs \$8\.00 for 4 trials of up to \$2\.00"):
        affordable(sweep_of(tmp_path, budget={"usd": 7}), 2.0)
    with pytest.raises(BadInput, match=r"budget\.usd=\$1\.00 is below one trial, which needs \$2"):
        affordable(sweep_of(tmp_path, budget={"usd": 1}), 2.0)
    with pytest.raises(BadInput, match=r"budget\.tokens=600k is below one|needs 2\.10M"):
        affordable(sweep_of(tmp_path, budget={"tokens": 600_000}), 2.0)
    with pytest.raises(BadInput, match=r"budget\.hours=3\.00 h"):
        affordable(sweep_of(tmp_path, budget={"hours": 3}), 2.0)
    assert affordable(sweep_of(tmp_path, budget={"usd": 8}), 2.0) == []


def test_early_stopping_counts_only_what_it_cannot_save(tmp_path):
    # ASHA with factor 2 from 1/4 on: all to 1/4, half to 1/2, a quarter to the end: half of all.
    asha = {"kind": "asha", "first": 131_072, "factor": 2}
    notes = affordable(sweep_of(tmp_path, budget={"usd": 4}, scheduler=asha), 2.0)
    assert notes == [
        "without early stopping the sweep would need $8.00; it ends at budget.usd=$4.00"
    ]
    with pytest.raises(BadInput, match=r"needs \$4\.00 at least, even with early stopping"):
        affordable(sweep_of(tmp_path, budget={"usd": 3.9}, scheduler=asha), 2.0)


def test_unknown_dollars_are_said_and_a_dollar_budget_needs_a_price(tmp_path):
    free = MachineShare(1.0, 1, 0.0, "own machine")
    assert affordable(sweep_of(tmp_path), None, free) == [
        "dollars are unknown: no price of this machine (own machine)"
    ]
    with pytest.raises(BadInput, match=r"budget\.usd=5 cannot be kept: this machine has no price"):
        affordable(sweep_of(tmp_path, budget={"usd": 5}), None, free)
    with pytest.raises(BadInput, match="by usd cannot be kept: this machine has no price"):
        affordable(sweep_of(tmp_path, objective=["val_loss", "usd"]), None, free)
    said = MachineShare(1.0, 1, 0.0, "config")
    assert affordable(sweep_of(tmp_path, objective=["val_loss", "usd"]), None, said) == []
    assert said.seconds(Amounts(usd=5.0, hours=2.0), Amounts(hours=1.0)) == 3600
    (note,) = affordable(sweep_of(tmp_path, budget={"usd": 5}), None)
    assert note.startswith("planned dollars are unknown: no probe of this model")
