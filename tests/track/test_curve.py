from __future__ import annotations

import math

import pytest

from gpt2dist.track.curve import draw_curve, smooth

PNG = b"\x89PNG\r\n\x1a\n"


def row(step: int, **values):
    return {"step": step, "tokens": step * 1000, "loss": 8 / math.sqrt(step), **values}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(1)],
        [row(1, val_loss=3.0, lr=0.0, usd=0.0, seconds=0.0)],
        [row(1, loss=None), row(2, loss=None, val_loss=None)],
        [row(1, loss=None, val_loss=2.0), row(2, loss=None, val_loss=3.0)],
        [row(step, lr=1e-3, usd=step / 100, seconds=step * 1.0) for step in range(1, 40)],
        [row(5, val_loss=2.0, usd=1.0, seconds=1.0), row(5, val_loss=2.0, usd=1.0, seconds=1.0)],
        [row(s, val_loss=3.0 + s, lr=6e-4, usd=0.0, seconds=s * 1e4) for s in range(1, 3000)],
    ],
    ids=["none", "one", "one-full", "nulls", "val-only", "priced", "same-tokens", "many"],
)
def test_any_rows_make_one_whole_picture(tmp_path, rows):
    path = tmp_path / "curve.png"
    draw_curve(rows, path, "a run")
    assert path.read_bytes().startswith(PNG)
    assert path.read_bytes().rstrip().endswith(b"IEND\xaeB`\x82")
    assert [entry.name for entry in tmp_path.iterdir()] == ["curve.png"]


def test_smoothing_keeps_level_and_length_and_forgets_a_spike():
    assert smooth([2.0] * 50, 9) == [2.0] * 50
    spiked = [2.0] * 25 + [100.0] + [2.0] * 25
    assert smooth(spiked, 9) == [2.0] * 51
    assert smooth([1.0, 5.0], 0) == [1.0, 5.0]
    assert smooth([], 9) == []


def test_smoothing_does_not_lag_behind_a_steep_start():
    line = [100.0 - at for at in range(100)]
    assert smooth(line, 21)[:90] == pytest.approx(line[:90])
