"""Durations, counts, dollars and tables as people read them."""

import pytest

from gpt2dist.human import columns, finite_number, human_count, human_duration, parse_count, usd


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


@pytest.mark.parametrize(
    ("written", "count"),
    [("7", 7), ("-5", -5), ("10B", 10**10), ("1.5t", 15 * 10**11), ("6e18", 6 * 10**18),
     ("0.5k", 500), ("1_000", 1000), ("12,345,678", 12345678), (" 3M ", 3 * 10**6)],
)  # fmt: skip
def test_a_count_is_read_as_it_is_written(written, count):
    assert parse_count(written) == count


@pytest.mark.parametrize("count", [950, 5_320, 184_000, 1_240_000, 10_000_000_000, 3 * 10**12])
def test_what_is_shown_can_be_typed(count):
    assert parse_count(human_count(count)) == count


@pytest.mark.parametrize(
    "written",
    ["", "B", "1.5", "2.0001k", "1e-3", "10BB", "1,5M", "12,34", "inf", "nan", "1e999999"],
)
def test_what_is_no_whole_count_is_refused(written):
    with pytest.raises(ValueError, match="is no "):
        parse_count(written)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.39", 1.39), ("-2", -2.0), ("1e3", 1000.0), ("inf", None), ("nan", None), ("", None),
     ("cheap", None)],
)  # fmt: skip
def test_a_number_is_finite_or_none(text, number):
    assert finite_number(text) == number
