"""Against the definitions, by brute force."""

from __future__ import annotations

import math
import random

import pytest

from gpt2dist.compare.read.run_folders import read_run
from gpt2dist.compare.stats.comparison import compare_runs
from gpt2dist.compare.stats.frontier import not_overtaken, pareto, reached_by, spent_to_reach


def is_beaten(point, points):
    return any(other[0] <= point[0] and other[1] <= point[1] and other != point for other in points)


@pytest.mark.parametrize("seed", range(200))
def test_pareto_set_is_what_brute_force_finds(seed):
    """Coordinates on a coarse grid, so that ties and equal points are common."""
    rng = random.Random(seed)
    points = [(rng.randint(1, 8), rng.randint(1, 8)) for _ in range(rng.randint(0, 25))]
    expected = {index for index, point in enumerate(points) if not is_beaten(point, points)}
    found = pareto(points)
    assert set(found) == expected
    assert len(found) == len(expected)
    spent = [points[index][0] for index in found]
    assert spent == sorted(spent)


@pytest.mark.parametrize("seed", range(100))
def test_ends_that_a_curve_overtook_are_what_brute_force_finds(seed):
    rng = random.Random(seed)

    def points(most):
        return [(rng.randint(1, 8), rng.randint(1, 8)) for _ in range(rng.randint(0, most))]

    ends, curves = points(20), [points(4) for _ in range(rng.randint(0, 4))]
    passed = [point for curve in curves for point in curve]
    expected = [i for i, (x, y) in enumerate(ends) if not any(a <= x and b <= y for a, b in passed)]
    assert not_overtaken(ends, curves) == expected


@pytest.mark.parametrize(("loss_when_stopped", "on_it"), [(4.0, False), (3.9, True)])
def test_a_stopped_run_is_no_bargain_where_a_finished_one_had_come_as_low(
    make, loss_when_stopped, on_it
):
    """Both cost $0.25 after four steps; the finished one was at 4.0 there and ended at 3.0."""
    finished = make("finished")
    stopped = make(
        "stopped",
        "optim.peak_lr=0.002",
        curve=((1, 5.0), (4, loss_when_stopped)),
        seconds=250.0,
        ended="budget",
    )
    compared = compare_runs([read_run(finished), read_run(stopped)])
    names = [compared.runs[index].name for index in compared.frontier["usd"]]
    assert names == (["stopped", "finished"] if on_it else ["finished"])


def test_runs_of_which_none_finished_still_have_a_frontier(make):
    runs = [
        read_run(make("low", ended="budget")),
        read_run(make("cheap", "train.seed=2", seconds=500.0, curve=((1, 5.0), (16, 3.5)),
                      ended="interrupted")),
    ]  # fmt: skip
    compared = compare_runs(runs)
    assert [compared.runs[index].name for index in compared.frontier["usd"]] == ["cheap", "low"]


def test_price_of_a_loss_lies_on_the_line_between_evaluations(make):
    """1000 s at $3.6/h is $1 over 16 steps; from step 4 to 16 the loss falls from 4 to 3."""
    run = read_run(make("one"))
    assert spent_to_reach(run.curve("usd"), 3.0) == pytest.approx(1.0)
    assert spent_to_reach(run.curve("usd"), 4.0) == pytest.approx(4 / 16)
    halfway = math.sqrt(4 / 16 * 1.0)  # the middle of a logarithm is the geometric mean
    assert spent_to_reach(run.curve("usd"), 3.5) == pytest.approx(halfway)
    assert spent_to_reach(run.curve("hours"), 3.5) == pytest.approx(halfway * 1000 / 3600)
    assert spent_to_reach(run.curve("tokens"), 3.5) == pytest.approx(8 * run.tokens / 16)
    assert spent_to_reach(run.curve("flops"), 3.5) == pytest.approx(run.flops / 2)


def test_a_loss_never_reached_has_no_price(make):
    run = read_run(make("one"))
    assert spent_to_reach(run.curve("usd"), 2.9) is None
    assert reached_by(run.curve("usd"), 2.9) is None


def test_a_loss_below_which_the_run_was_first_seen_has_an_upper_bound(make):
    run = read_run(make("one"))
    assert spent_to_reach(run.curve("usd"), 5.5) is None
    assert reached_by(run.curve("usd"), 5.5) == pytest.approx(1 / 16)


def test_a_curve_that_rises_again_counts_the_first_time(make):
    run = read_run(make("one", curve=((1, 5.0), (2, 3.0), (4, 4.0), (8, 2.0))))
    assert spent_to_reach(run.curve("usd"), 3.0) == pytest.approx(2 / 8)
