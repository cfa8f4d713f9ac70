"""Against the definitions, by brute force."""

from __future__ import annotations

import json
import math
import random

import pytest

from gpt2dist.compare.read.run_folders import read_run
from gpt2dist.compare.read.run_record import AXES
from gpt2dist.compare.show.table import json_tree, text_lines
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


def test_a_run_that_goes_on_is_on_no_frontier(make):
    """It is the cheapest so far, and will be neither cheap nor done when it ends."""
    going = read_run(make("going", seconds=10.0, curve=((1, 2.0), (4, 1.0)), summary=False))
    ended = read_run(make("ended", "train.seed=2"))
    compared = compare_runs([going, ended])
    for axis in AXES:
        assert [compared.runs[index].name for index in compared.frontier[axis]] == ["ended"]
    assert "running or killed, on no frontier until they end: going" in compared.notes


def test_runs_without_a_number_for_a_loss_are_named_and_on_no_frontier(make):
    nan = make("nan", curve=((1, 5.0), (4, 4.0)), summary=False)
    rows = (nan / "metrics.jsonl").read_text().replace('"val_loss": 4.0', '"val_loss": NaN')
    assert "NaN" in rows
    (nan / "metrics.jsonl").write_text(rows)
    compared = compare_runs([read_run(nan), read_run(make("whole", "train.seed=2"))])
    assert [run.name for run in compared.runs] == ["whole", "nan"]
    assert compared.runs[1].final_val_loss is None
    assert "no finite validation loss, on no frontier: nan" in compared.notes
    json.dumps(json_tree(compared), allow_nan=False)


def test_a_frontier_in_dollars_says_how_many_it_leaves_out(make):
    runs = [read_run(make(name, usd_per_hour=None)) for name in ("a", "b")]
    lines = text_lines(compare_runs([*runs, read_run(make("c", "train.seed=2"))]), "usd")
    assert "  left out: 2 of 3 runs, dollars unknown" in lines
    runs = [read_run(make("d"))]
    assert not [line for line in text_lines(compare_runs(runs), "usd") if "left out" in line]


def test_a_trial_that_its_sweep_gave_up_was_not_interrupted(make):
    """Its folder says what the sweeper asked for; a signal's name is an interruption."""
    early = "the sweep: early, by asha at 1,000 tokens, validation loss 3.0000"
    found = read_run(make("early", ended="interrupted", reason=early))
    assert found.ended == "stopped early"
    assert read_run(make("signal", ended="interrupted", reason="SIGTERM")).ended == "interrupted"
    assert "  (stopped early)" in "\n".join(text_lines(compare_runs([found]), "usd"))


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
