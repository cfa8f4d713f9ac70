"""The PNG's parts that can go wrong without an error: scales without numbers, texts over texts."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from gpt2dist.compare.read.run_record import AXES
from gpt2dist.compare.show.picture import FEWEST_TICKS, MOST_TICKS, Labels, log_ticks


@pytest.mark.parametrize("axis", AXES)
def test_a_log_scale_of_any_width_has_numbers_in_reach(axis):
    rng = random.Random(0)
    low_power, high_power = (-2.5, 2.0) if axis == "hours" else (-3.0, 21.0)
    for _ in range(300):
        low = 10 ** rng.uniform(low_power, high_power)
        high = low * 10 ** rng.uniform(0.8, 3)
        ticks = log_ticks(low, high, axis)
        assert FEWEST_TICKS <= len(ticks) <= MOST_TICKS
        assert low <= ticks[0] < ticks[-1] <= high
        assert ticks == sorted(set(ticks))


def test_texts_lie_neither_over_each_other_nor_outside():
    """By the extents that matplotlib gives them, not by those they were placed with."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rng = random.Random(1)
    figure = Figure(figsize=(10, 6), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xscale="log", xlim=(1, 1000), ylim=(2, 4))
    points = [(10 ** rng.uniform(0, 3), rng.uniform(2, 4)) for _ in range(60)]
    labels = Labels(axes, points)
    for number, point in enumerate(points):
        around = [(-6, -6), (6, 6), (6, -6)]
        labels.place(point, f"run-{number}-of-sweep", around, {"fontsize": 8})
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 20
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    view = axes.get_window_extent()
    assert all(view.x0 <= box.x0 and box.x1 <= view.x1 and box.y0 >= view.y0 for box in boxes)
