"""Counts as people write them."""

import pytest

from gpt2dist.human import human_count, parse_count


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
