"""What is slow goes on, what has stopped is ended: the rule, against days of invented runs."""

from __future__ import annotations

import pytest

from gpt2dist.launch.machine.stall import Patience, mark

LEAST = 1800.0


def ends_at(row_times, *, shard_times=(), until=200_000, patience=None):
    """When a run with rows and shards at these seconds is ended; None: never until the end."""
    patience = patience or Patience(LEAST, 0.0, (0, 0), (0, 0))
    rows = shards = 0
    for now in range(0, until, 15):
        rows = sum(at <= now for at in row_times)
        shards = sum(at <= now for at in shard_times)
        if patience.is_over(float(now), (rows, rows), (shards, shards)):
            return now
    return None


@pytest.mark.parametrize(
    ("rows", "shards", "limit_s"),
    [
        ([], [], LEAST),  # never began
        ([600], [], LEAST),  # the wait for the first row is no measure of a step
        ([600, 630, 660], [], LEAST),  # ten steps of 30 s are less than the least
        ([600, 1200, 2100], [], 9000),  # ten waits of 900 s
        ([600, 1200, 2100, 9000], [], 69_000),  # one was long and ended well
        ([], [900, 1800, 2700, 3600], LEAST),  # hours of preparing text, and then nothing
        ([4500], [900, 1800, 2700], LEAST),
    ],
)
def test_a_run_is_ended_when_ten_of_its_longest_waits_have_passed(rows, shards, limit_s):
    last = max([0, *rows, *shards])
    assert ends_at(rows, shard_times=shards) == pytest.approx(last + limit_s, abs=30)


def test_a_run_that_goes_on_is_left_alone_however_slow_it_is():
    assert ends_at(range(600, 200_000, 1700)) is None


def test_files_that_grow_or_are_replaced_are_a_sign_and_no_others(tmp_path):
    rows = tmp_path / "sweeps" / "lr" / "trial" / "metrics.jsonl"
    rows.parent.mkdir(parents=True)
    before = mark(tmp_path, "metrics.jsonl")
    rows.write_text("{}\n")
    after = mark(tmp_path, "metrics.jsonl")
    (rows.parent / "ledger.json").write_text("a heartbeat is no step")
    assert before != after == mark(tmp_path, "metrics.jsonl")
    assert mark(tmp_path / "not there", "*") == (0, 0)
