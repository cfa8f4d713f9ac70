"""Costs against closed forms, a brute-force search and a simulated preempted job."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import pytest

from gpt2dist.plan.machine import costs
from gpt2dist.plan.machine.costs import (
    COMPILE_MINUTES,
    FAILURE_GPU_HOURS,
    IDLE_MINUTES,
    INSTALL_MINUTES,
    PROVISION_MINUTES,
    SPOT_HOURS_BETWEEN_PREEMPTIONS,
    daly_interval,
    expected_hours,
    job_cost,
    preparation_hours,
    spot_pays,
    wasted_share,
    young_interval,
)

JOB = {
    "train_hours": 6.0,
    "train_hours_low": 5.0,
    "train_hours_high": 8.0,
    "usd_per_hour": 12.0,
    "nodes": 2,
    "spot": False,
    "params": 10**9,
    "evals": 30,
    "eval_tokens": 10**7,
    "tokens_per_s": 1e6,
    "checkpoints": 18,
    "data_tokens_to_prepare": 0,
    "compiled": True,
    "world": 16,
}


def test_phases_are_their_closed_forms():
    cost = job_cost(**JOB)
    assert cost.setup_hours == (PROVISION_MINUTES + INSTALL_MINUTES + IDLE_MINUTES) / 60
    assert cost.compile_hours == COMPILE_MINUTES / 60
    assert cost.data_hours == 0
    assert cost.eval_hours == pytest.approx(30 * 1e7 / 3e6 / 3600)
    assert cost.checkpoint_hours == pytest.approx(18 * 16e9 / 500e6 / 3600)
    # 16 GPUs fail once in 3,169 hours: the loss of a job of hours is next to nothing.
    assert 0 < cost.lost_hours < 0.01


def test_the_phases_add_up_to_the_bill():
    cost = job_cost(**{**JOB, "spot": True})
    phases = (
        cost.setup_hours
        + cost.data_hours
        + cost.compile_hours
        + cost.train_hours
        + cost.eval_hours
        + cost.checkpoint_hours
        + cost.lost_hours
    )
    assert cost.hours == pytest.approx(phases)
    assert cost.usd == pytest.approx(phases * 2 * 12.0)
    assert cost.usd_low < cost.usd < cost.usd_high


def test_an_own_machine_is_neither_set_up_nor_waited_for():
    rented, own = job_cost(**JOB), job_cost(**JOB, rented=False)
    assert own.setup_hours == 0
    assert own.lost_hours < rented.lost_hours


def test_spot_loses_what_a_simulated_job_loses():
    """Two machines, 18 checkpoints, preempted at random; 20,000 jobs with a fixed seed."""
    job = {**JOB, "spot": True}
    cost = job_cost(**job)
    work = cost.train_hours + cost.eval_hours + cost.checkpoint_hours
    mean = 1 / (16 / FAILURE_GPU_HOURS + 2 / SPOT_HOURS_BETWEEN_PREEMPTIONS)
    restart = (PROVISION_MINUTES + INSTALL_MINUTES + COMPILE_MINUTES) / 60
    chance = random.Random(0)

    def one_job() -> float:
        hours, spans_left, must_restart = 0.0, 19, False
        until_failure = chance.expovariate(1 / mean)
        while spans_left:
            needed = restart if must_restart else work / 19
            if until_failure < needed:
                hours += until_failure
                until_failure = chance.expovariate(1 / mean)
                must_restart = True
            else:
                hours += needed
                until_failure -= needed
                spans_left -= not must_restart
                must_restart = False
        return hours

    lost = sum(one_job() for _ in range(20_000)) / 20_000 - work
    assert cost.lost_hours == pytest.approx(lost, rel=0.02)


def test_expected_hours_become_youngs_waste_for_rare_failures():
    save, mean, restart = 0.01, 500.0, 0.2
    interval = young_interval(save, mean)
    spans = 40
    work = spans * interval
    exact = expected_hours(work + spans * save, spans, mean, restart) / work - 1
    assert exact == pytest.approx(wasted_share(interval, save, mean, restart), rel=0.02)


def test_youngs_interval_wastes_least():
    save, mean, restart = 0.02, 3.0, 0.25
    best = young_interval(save, mean)
    assert best == math.sqrt(2 * 0.02 * 3.0)
    tried = [best * (0.2 + 0.01 * i) for i in range(400)]
    least = min(tried, key=lambda interval: wasted_share(interval, save, mean, restart))
    assert least == pytest.approx(best, rel=0.01)


def test_dalys_interval_is_nearer_the_exact_optimum_than_youngs():
    save, mean, work = 0.2, 2.0, 1000.0

    def hours(interval: float) -> float:
        spans = round(work / interval)
        return expected_hours(work + spans * save, spans, mean, 0.1)

    optimum = min((0.3 + 0.001 * i for i in range(2000)), key=hours)
    young, daly = young_interval(save, mean), daly_interval(save, mean)
    assert abs(daly - optimum) < abs(young - optimum)
    assert daly == young - save


def test_spot_pays_until_its_discount_is_wasted():
    wasted = wasted_share(0.5, 0.02, 3.0, 0.25)
    assert wasted == pytest.approx(0.02 / 0.5 + 0.5 / 3.0)
    assert spot_pays(0.79, 1.0, wasted)
    assert not spot_pays(0.80, 1.0, wasted)


def test_more_checkpoints_lose_less_and_more_machines_lose_more():
    spot = {**JOB, "spot": True, "params": 10**6}
    lost = [job_cost(**{**spot, "checkpoints": n}).lost_hours for n in (0, 1, 5, 20, 100)]
    assert lost == sorted(lost, reverse=True)
    assert job_cost(**{**spot, "nodes": 4}).lost_hours > job_cost(**spot).lost_hours


def test_a_span_that_no_machine_survives_never_ends():
    week_without_saving = {**JOB, "spot": True, "train_hours": 9000.0, "checkpoints": 0}
    assert job_cost(**week_without_saving).hours == math.inf


def test_preparing_takes_as_long_as_its_slower_half():
    # 10B tokens: 30 GB at 100 MB/s is 300 s; 40 vCPUs tokenize 80M tokens/s in 125 s.
    assert preparation_hours(10e9, vcpus=40) == pytest.approx(300 / 3600)
    assert preparation_hours(10e9, vcpus=4) == pytest.approx(10e9 / 8e6 / 3600)
    assert preparation_hours(0) == 0


def test_the_page_shows_every_constant_as_it_is():
    page = Path(__file__).parents[3].joinpath("docs", "planner-prices.md").read_text()
    shown = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]+) \|", page, flags=re.MULTILINE))
    constants = {name: value for name, value in vars(costs).items() if name.isupper()}
    assert set(shown) == set(constants) - {"SPOT_HOURS_RANGE", "HOPELESS"}
    for name, text in shown.items():
        assert float(text.replace(",", "")) == pytest.approx(constants[name], rel=1e-3)
