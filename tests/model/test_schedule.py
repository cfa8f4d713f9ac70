"""Closed forms of the schedule."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from gpt2dist.config.schema import OptimConfig
from gpt2dist.model.schedule import learning_rate

OPTIM = OptimConfig(peak_lr=1.0, final_lr_fraction=0.1, warmup_steps=10, decay_fraction=0.2)
STEPS = 110


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_every_schedule_warms_up_linearly_and_ends_at_its_final_rate(schedule):
    optim = replace(OPTIM, schedule=schedule)
    rates = [learning_rate(step, optim, STEPS) for step in range(STEPS)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[9:]))


def test_cosine_and_linear_are_halfway_down_in_the_middle():
    for schedule in ("cosine", "linear"):
        assert learning_rate(59, replace(OPTIM, schedule=schedule), STEPS) == pytest.approx(0.55)
    quarter = learning_rate(34, replace(OPTIM, schedule="cosine"), STEPS)
    assert quarter == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))


def test_wsd_holds_the_peak_and_falls_over_the_last_fifth():
    rates = [learning_rate(s, replace(OPTIM, schedule="wsd"), STEPS) for s in range(STEPS)]
    assert rates[10:88] == [1.0] * 78
    assert rates[88:] == pytest.approx([1 - 0.9 * k / 22 for k in range(1, 23)])


def test_schedules_survive_odd_lengths():
    assert learning_rate(0, replace(OPTIM, warmup_steps=0), 1) == pytest.approx(0.1)
    assert learning_rate(4, OPTIM, 5) == pytest.approx(0.5)
    assert learning_rate(500, OPTIM, STEPS) == pytest.approx(0.1)
