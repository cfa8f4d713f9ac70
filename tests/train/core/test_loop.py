"""The loop with an engine whose losses are written down, and where runs may be placed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch

from gpt2dist.config.load import resolve
from gpt2dist.train.core.control import Control, single_process_group
from gpt2dist.train.core.engine import StepResult
from gpt2dist.train.core.loop import (
    INTERRUPTED,
    RUNNING,
    Diverged,
    Ending,
    Recorder,
    Surroundings,
    TrainState,
    run_loop,
)

CONTEXT, SEQUENCES = 8, 4
WORDS = ["model.layers=1", "model.heads=2", "model.width=8", f"model.context={CONTEXT}",
         f"train.batch_tokens={SEQUENCES * CONTEXT}", "optim.warmup_steps=2",
         "track.every_steps=5", "checkpoint.every_steps=10", "eval.every_steps=10",
         "eval.sample_every_steps=25"]  # fmt: skip


class Script:
    """An engine that answers with the given losses; one that is not finite skips its step."""

    device = torch.device("cpu")
    config = {"accumulation": 2}  # noqa: RUF012
    precision = "fp32"

    def __init__(self, losses: list[float]) -> None:
        self._losses = iter(losses)
        self._loss = next(self._losses)
        self.rates: list[float] = []

    def accumulate(self, tokens_BT, targets_BT, global_valid):
        assert global_valid == SEQUENCES * CONTEXT
        return torch.tensor(self._loss * targets_BT.numel())

    def step(self, rate):
        self.rates.append(rate)
        result = StepResult(math.isfinite(self._loss), abs(self._loss))
        self._loss = next(self._losses, math.nan)
        return result


class Diary(Recorder):
    """A recorder that remembers, and asks to stop before step `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.rows, self.notes, self.stop_at = [], [], stop_at

    def stop_reason(self, state, next_seconds):
        return (INTERRUPTED, "enough") if state.step == self.stop_at else (RUNNING, "")

    def row(self, row):
        self.rows.append(row)

    def note(self, text):
        self.notes.append(text)


def play(
    losses: list[float],
    diary: Diary,
    state: TrainState | None = None,
    saves: Iterator[bool] | None = None,
):
    """Runs the loop over the losses; returns its ending and what it saved, or tried to.

    `saves` says which saves work, None that all do; a step takes a second or two.
    """
    works = saves or itertools.repeat(True)
    config = resolve("debug", [*WORDS, f"train.tokens={40 * SEQUENCES * CONTEXT}"])
    micro = torch.zeros(SEQUENCES // 2, CONTEXT + 1, dtype=torch.int64)
    saved: list[TrainState] = []
    state = state or TrainState(0, 0, 0, "x", SEQUENCES)

    def save(state: TrainState) -> bool:
        saved.append(state)
        return next(works)

    with single_process_group("cpu"):
        around = Surroundings(
            Control(),
            diary,
            evaluate=lambda: 1.0,
            sample=lambda step: None,
            save=save,
            clock=itertools.count(0.0, 0.5).__next__,
        )
        engine = Script(losses[state.step :])
        ending = run_loop(engine, itertools.repeat(micro), state, config, around)  # type: ignore[arg-type]
    return ending, saved


FALLING = [5 - 0.05 * step for step in range(40)]


def test_a_rows_loss_is_the_mean_since_the_row_before():
    diary = Diary()
    ending, saved = play(FALLING, diary)
    assert ending.kind == "finished"
    assert [state.step for state in saved] == [10, 20, 30, 40]
    assert [row["step"] for row in diary.rows] == list(range(5, 41, 5))
    for row in diary.rows:
        since = FALLING[row["step"] - 5 : row["step"]]
        assert row["loss"] == pytest.approx(sum(since) / 5, rel=1e-6)
        assert ("val_loss" in row) == (row["step"] % 10 == 0)
    assert diary.notes == []


def test_a_stop_between_rows_is_invisible_in_them():
    whole, halves = Diary(), Diary(stop_at=13)
    play(FALLING, whole)
    ending, saved = play(FALLING, halves)
    assert (ending.kind, ending.reason, saved[-1].step) == ("interrupted", "enough", 13)
    halves.stop_at = None
    ending, _ = play(FALLING, halves, saved[-1])
    assert ending.state.step == 40
    keep = ("step", "tokens", "loss", "lr", "grad_norm", "skipped")
    assert [[row[key] for key in keep] for row in halves.rows] == [
        [row[key] for key in keep] for row in whole.rows
    ]


def test_a_refused_save_is_tried_again_soon_and_changes_no_row():
    whole, refused = Diary(), Diary()
    play(FALLING, whole)
    ending, saved = play(FALLING, refused, saves=iter([False, False, *[True] * 4]))
    tried = [state.step for state in saved]
    assert ending.kind == "finished"
    assert tried[0] == 10
    assert 10 < tried[1] < tried[2] < 20, "not at every step, and long before the next is due"
    assert tried[3:] == [20, 30, 40]
    keep = ("step", "tokens", "loss", "lr", "grad_norm", "skipped")
    assert [[row[key] for key in keep] for row in refused.rows] == [
        [row[key] for key in keep] for row in whole.rows
    ]


def test_a_run_that_is_done_is_saved_at_last_or_ends_as_the_recorder_says():
    class Waits(Diary):
        def unsaved(self, ending):
            self.notes.append(ending.kind)
            return None if len(self.notes) < 3 else Ending("failed", "no room", ending.state)

    refuses_last, diary = [True] * 3 + [False] * 3, Waits()
    ending, saved = play(FALLING, diary, saves=iter([*refuses_last, True]))
    assert (ending.kind, [state.step for state in saved[3:]]) == ("finished", [40] * 4)
    assert diary.notes == ["finished"] * 2
    diary = Waits()
    ending, _ = play(FALLING, diary, saves=iter([*refuses_last, False]))
    assert (ending.kind, ending.reason, ending.state.step) == ("failed", "no room", 40)


def test_a_spike_is_noted_once_with_its_step():
    losses = [*FALLING]
    losses[30] = 9.0
    diary = Diary()
    play(losses, diary)
    assert len(diary.notes) == 1
    assert diary.notes[0].startswith("loss spike at step 31: 9.000 after a median of ")


def test_skipped_steps_are_counted_and_left_out_of_the_mean():
    losses = [*FALLING]
    losses[11] = losses[12] = math.inf
    diary = Diary()
    ending, _ = play(losses, diary)
    assert (ending.state.step, ending.state.applied_steps) == (40, 38)
    assert sum("skipped: loss inf" in note for note in diary.notes) == 2
    row = next(row for row in diary.rows if row["step"] == 15)
    assert row["skipped"] == 2
    assert row["loss"] == pytest.approx((losses[10] + losses[13] + losses[14]) / 3, rel=1e-6)


def test_ten_skipped_steps_in_a_row_end_the_run_and_nine_do_not():
    broken = [*FALLING]
    broken[15:24] = [math.nan] * 9
    assert play(broken, Diary())[0].kind == "finished"
    broken[24] = math.nan
    with pytest.raises(Diverged, match="the last 10 steps had non-finite gradients"):
        play(broken, Diary())
