from __future__ import annotations

import io
import os
import re

import pytest

from gpt2dist.track.progress import Progress

ROW = {
    "step": 50,
    "loss": 3.51234,
    "tokens_per_s": 184_321.0,
    "mfu": 0.4123,
    "usd": 1.2345,
    "grad_norm": 0.9,
}


class Clock:
    """Seconds set by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def screen(text: str) -> list[str]:
    """The lines a terminal shows after `text`, trailing blanks cut."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            clean = part.replace("\x1b[K", "")
            shown = clean if "\x1b[K" in part else clean + shown[len(clean) :]
        lines.append(shown.rstrip())
    return lines


def live(columns=100):
    stream, clock = io.StringIO(), Clock()
    bar = Progress(100, stream=stream, live=True, columns=columns, clock=clock)
    return bar, stream, clock


def test_the_line_says_how_far_how_good_how_fast_and_how_much():
    bar, stream, clock = live(columns=120)
    bar.tick(0)
    clock.at += 300
    bar.row({**ROW, "val_loss": 3.6})
    line = screen(stream.getvalue())[-1]
    assert line.startswith("━━━━━━━━━━━━────────────  50%  50/100  loss 3.5123  val 3.6")
    assert line.endswith("184k tok/s  MFU 41.2%  5m00s left  $1.23")


@pytest.mark.parametrize("columns", [4, 12, 20, 33, 47, 60, 80, 200])
def test_the_line_fits_any_terminal(columns):
    bar, stream, clock = live(columns)
    bar.tick(0)
    clock.at += 1000
    bar.row({**ROW, "val_loss": 3.6})
    assert all(len(line) < columns for line in screen(stream.getvalue()))


def test_a_narrow_terminal_keeps_progress_and_loss():
    bar, stream, clock = live(columns=40)
    bar.tick(0)
    clock.at += 1000
    bar.row(ROW)
    line = screen(stream.getvalue())[-1]
    assert "50%" in line
    assert "loss 3.5123" in line


def test_the_line_is_redrawn_at_most_ten_times_a_second():
    bar, stream, clock = live()
    for step in range(101):
        bar.tick(step, loss=1.0)
        clock.at += 0.01
    assert stream.getvalue().count("\r") <= 12


def test_notes_stay_above_the_line():
    bar, stream, _ = live()
    bar.tick(1, loss=2.0)
    bar.note("checkpoint at step 1")
    bar.tick(2)
    bar.close()
    shown = screen(stream.getvalue())
    assert shown[0] == "checkpoint at step 1"
    assert "2/100" in shown[1]
    assert shown[2:] == [""]


def test_what_nobody_measured_is_not_shown():
    bar, stream, _ = live()
    bar.row({"step": 1, "loss": 2.0, "mfu": None, "usd": 0.0, "tokens_per_s": None})
    assert not re.search(r"MFU|\$|tok/s|None|left", stream.getvalue())


def test_time_left_leaves_out_what_the_first_step_cost():
    bar, stream, clock = live()
    clock.at = 500  # compilation
    bar.tick(60, loss=1.0)
    clock.at += 30
    bar.tick(70, loss=1.0)
    assert "1m30s left" in screen(stream.getvalue())[-1]


def test_without_a_terminal_lines_are_rare_and_evaluations_never_lost():
    stream, clock = io.StringIO(), Clock()
    bar = Progress(100, stream=stream, clock=clock)
    for step in range(1, 101):
        bar.tick(step, loss=9.0)
        bar.row({**ROW, "step": step, "val_loss": 3.25 if step % 25 == 0 else None})
        clock.at += 0.5
    bar.close()
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert [line.split()[1] for line in lines if "val 3.2500" in line] == [
        "25/100",
        "50/100",
        "75/100",
        "100/100",
    ]
    assert len(lines) <= 50 / 5 + 4
    assert lines[0].startswith("step 1/100  loss 3.5123  184k tok/s")


def test_an_old_terminal_gets_plain_characters():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    bar = Progress(2, stream=stream, live=True, columns=60)
    bar.tick(1, loss=1.0)
    stream.seek(0)
    assert "############------------" in stream.read()


def test_a_reader_that_goes_away_does_not_stop_the_run():
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", buffering=1)
    bar = Progress(100, stream=stream, live=True, columns=80)
    for step in range(10):
        bar.row({"step": step, "loss": 1.0, "val_loss": 1.0})
    bar.close()
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_real_terminal_is_recognised():
    main, side = os.openpty()
    with os.fdopen(side, "w") as stream:
        bar = Progress(10, stream=stream)
        bar.tick(5, loss=1.5)
        assert "\r" in os.read(main, 4096).decode()
    os.close(main)
