"""What the space of a sweep file means."""

from __future__ import annotations

from gpt2dist.sweep.spec.space import read_space
from gpt2dist.sweep.spec.sweep import draw_points


def test_drawn_points_stay_inside_and_depend_on_the_seed_alone():
    space = read_space(
        {
            "optim.peak_lr": {"loguniform": [1e-5, 1e-1]},
            "optim.weight_decay": {"uniform": [0, 0.5]},
            "model.layers": {"int": [1, 4]},
            "optim.schedule": {"choice": ["cosine", "wsd"]},
        },
        "here",
    )
    points = draw_points(space, 400, seed=1)
    assert points == draw_points(space, 400, seed=1) != draw_points(space, 400, seed=2)
    rates = sorted(point["optim.peak_lr"] for point in points)
    assert rates[0] >= 1e-5
    assert rates[-1] <= 1e-1
    # Log-uniform over four decades: half the draws lie below the geometric middle.
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / 400 < 0.6
    assert {point["model.layers"] for point in points} == {1, 2, 3, 4}
    assert 0.2 < sum(p["optim.weight_decay"] for p in points) / 400 < 0.3
    assert {point["optim.schedule"] for point in points} == {"cosine", "wsd"}
