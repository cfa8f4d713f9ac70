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
    Workload,
    expected_hours,
    preparation_hours,
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
    cost = Workload(**JOB).cost()
    assert cost.setup_hours == (PROVISION_MINUTES + INSTALL_MINUTES + IDLE_MINUTES) / 60
    assert cost.compile_hours == COMPILE_MINUTES / 60
    assert cost.data_hours == 0
    assert cost.eval_hours == pytest.approx(30 * 1e7 / 3e6 / 3600)
    assert cost.checkpoint_hours == pytest.approx(18 * 16e9 / 500e6 / 3600)
    # 16 GPUs fail once in 3,169 hours: the loss of a job of hours is next to nothing.
    assert 0 < cost.lost_hours < 0.01


def test_the_phases_add_up_to_the_bill():
    cost = Workload(**{**JOB, "spot": True}).cost()
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
    rented, own = Workload(**JOB).cost(), Workload(**JOB, rented=False).cost()
    assert own.setup_hours == 0
    assert own.lost_hours < rented.lost_hours


def test_spot_loses_what_a_simulated_job_loses():
    """Two machines, 18 checkpoints, preempted at random; 20,000 jobs with a fixed seed."""
    job = {**JOB, "spot": True}
    cost = Workload(**job).cost()
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
    interval = math.sqrt(2 * save * mean)  # Young (1974)
    spans = 40
    work = spans * interval
    exact = expected_hours(work + spans * save, spans, mean, restart) / work - 1
    assert exact == pytest.approx(save / interval + (interval / 2 + restart) / mean, rel=0.02)


def test_more_checkpoints_lose_less_and_more_machines_lose_more():
    spot = {**JOB, "spot": True, "params": 10**6}
    lost = [Workload(**{**spot, "checkpoints": n}).cost().lost_hours for n in (0, 1, 5, 20, 100)]
    assert lost == sorted(lost, reverse=True)
    assert Workload(**{**spot, "nodes": 4}).cost().lost_hours > Workload(**spot).cost().lost_hours


def test_a_span_that_no_machine_survives_never_ends():
    week_without_saving = {**JOB, "spot": True, "train_hours": 9000.0, "checkpoints": 0}
    assert Workload(**week_without_saving).cost().hours == math.inf


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
