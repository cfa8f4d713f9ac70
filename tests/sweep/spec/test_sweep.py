"""Points of a space, and values as people write them."""

from __future__ import annotations

import pytest

from gpt2dist.sweep.spec.space import read_space
from gpt2dist.sweep.spec.sweep import draw_points, value_text


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ({"choice": [1, 2, 3]}, [1, 2, 3]),
        ({"int": [1, 3]}, [1, 2, 3]),
        ({"grid": [4]}, [4]),
    ],
)
def test_drawing_from_few_points_gives_each_once(spec, values):
    space = read_space({"model.layers": spec}, "here")
    assert sorted(p["model.layers"] for p in draw_points(space, 10, 0)) == values


def test_drawing_from_a_range_narrower_than_the_digits_shown_ends():
    """Four digits and both ends: 0.10002 and 0.10008 are 0.1000 and 0.1001, kept inside."""
    space = read_space({"optim.peak_lr": {"uniform": [0.10002, 0.10008]}}, "here")
    found = sorted(point["optim.peak_lr"] for point in draw_points(space, 10, 0))
    assert found == [0.10002, 0.10008]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6e-4, "6e-4"),
        (0.1, "0.1"),
        (3e-3, "3e-3"),
        (True, "true"),
        (12, "12"),
        (0.000123, "1.23e-4"),
    ],
)
def test_values_are_written_as_people_write_them(value, text):
    assert value_text(value) == text
