"""Durations, counts, dollars and tables as people read them."""

import pytest

from gpt2dist.human import columns, human_count, human_duration, usd


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (200, "3m20s"),
        (3599.6, "1h00m"),
        (7500, "2h05m"),
        (86400 * 3 + 4 * 3600, "3d04h"),
    ],
)
def test_durations(seconds, text):
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7.25, "7.2"),
        (950, "950"),
        (999.6, "1.00k"),
        (5321, "5.32k"),
        (52_431, "52.4k"),
        (184_321, "184k"),
        (999_600, "1.00M"),
        (124_439_808, "124M"),
        (10e9, "10.0B"),
        (3e15, "3000T"),
    ],
)
def test_counts(count, text):
    assert human_count(count) == text


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (0, "$0.00"),
        (0.00421, "$0.0042"),
        (0.05, "$0.050"),
        (0.0999, "$0.10"),
        (1.236, "$1.24"),
        (1234.5, "$1,234.50"),
    ],
)
def test_dollars(dollars, text):
    assert usd(dollars) == text


def test_every_cell_ends_or_begins_where_its_column_does():
    rows = [["name", "loss", "why"], ["a", "10.5", "no reason"], ["longer", "9", ""]]
    lines = columns(rows, left=[0, -1])
    assert lines == ["name    loss  why", "a       10.5  no reason", "longer     9"]
    assert columns(rows[:2]) == ["name  loss        why", "   a  10.5  no reason"]
