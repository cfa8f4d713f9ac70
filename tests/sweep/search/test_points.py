"""What is proposed, and that Optuna learns from it."""

from __future__ import annotations

import math

import pytest

from gpt2dist.sweep.search.points import proposals_of
from tests.sweep.sweeping import sweep_of


def optuna_sweep(folder, **tree):
    pytest.importorskip("optuna")
    space = {"optim.peak_lr": {"loguniform": [1e-5, 1e-1]}, "model.layers": {"choice": [1, 2, 4]}}
    more = {"search": {"kind": "optuna", "seed": 1}, "budget": {"trials": 40}}
    return sweep_of(folder, space=space, **more, **tree)


def bowl(values) -> float:
    """Lowest, 2, at a rate of 1e-3 with four layers."""
    return 2 + (math.log10(values["optim.peak_lr"]) + 3) ** 2 + (4 - values["model.layers"]) / 4


def test_tpe_comes_closer_than_its_own_first_draws(tmp_path):
    points = proposals_of(optuna_sweep(tmp_path), [])
    found = []
    while (values := points.next()) is not None:
        points.tell(values, [bowl(values)], None)
        found.append(bowl(values))
    assert len(found) == 40
    assert min(found) < 2.1
    assert sorted(found[20:])[10] < sorted(found[:10])[5]


def test_a_resumed_search_knows_what_was_found_and_repeats_nothing(tmp_path):
    sweep = optuna_sweep(tmp_path)
    first = proposals_of(sweep, [])
    known = [first.next() for _ in range(12)]
    second = proposals_of(sweep, known)
    for values in known[:-1]:
        second.tell(values, [bowl(values)], None)
    second.tell(known[-1], None, (1000, 9.9))
    more = []
    while (values := second.next()) is not None:
        second.tell(values, [bowl(values)], None)
        more.append(values)
    assert len(more) == 40 - 12
    assert not any(values in known for values in more)
    assert min(map(bowl, more)) < min(map(bowl, known))


def test_two_objectives_are_searched_together(tmp_path):
    points = proposals_of(optuna_sweep(tmp_path, objective=["val_loss", "usd"]), [])
    seen = []
    while (values := points.next()) is not None:
        points.tell(values, [bowl(values), float(values["model.layers"])], None)
        seen.append(values["model.layers"])
    assert {1, 4} <= set(seen)  # both ends of the front


@pytest.mark.parametrize("kind", ["random", "optuna"])
def test_a_space_of_few_points_ends_when_all_were_proposed(kind, tmp_path):
    if kind == "optuna":
        pytest.importorskip("optuna")
    more = {"search": {"kind": kind}, "budget": {"trials": 4}}
    proposals = proposals_of(
        sweep_of(tmp_path, space={"model.layers": {"int": [1, 3]}}, **more), []
    )
    found = [proposals.next() for _ in range(4)]
    assert found.pop() is None
    assert sorted(point["model.layers"] for point in found) == [1, 2, 3]
