"""A limit of dollars holds whatever the work takes, on a clock that only the work moves."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from gpt2dist.config.load import resolve
from gpt2dist.track.attempts import Attempt, Clock
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import Ledger
from gpt2dist.train.core.control import Control, single_process_group
from gpt2dist.train.core.engine import StepResult
from gpt2dist.train.core.loop import (
    OUT_OF_BUDGET,
    RUNNING,
    Recorder,
    Surroundings,
    TrainState,
    run_loop,
)
from gpt2dist.train.core.pace import MARGIN

USD_PER_SECOND = 0.2
START, STEP, SAVE, EVALUATE, SAMPLE = 40.0, 1.0, 13.0, 5.0, 3.0
"Seconds at most; every piece of work takes between 1 / MARGIN of it and all of it."


class Work:
    """A machine: an engine, the loop's duties, and the only hand on the clock."""

    device = torch.device("cpu")
    config = {"accumulation": 1}  # noqa: RUF012
    precision = "fp32"

    def __init__(self, seed: int) -> None:
        self.now, self._random = 1e9, random.Random(seed)

    def takes(self, seconds: float) -> None:
        self.now += self._random.uniform(seconds / MARGIN, seconds)

    def accumulate(self, tokens_BT, targets_BT, global_valid):
        return torch.tensor(1.0)

    def step(self, rate):
        self.takes(STEP)
        return StepResult(True, 1.0)

    def evaluate(self) -> float:
        self.takes(EVALUATE)
        return 1.0


class Bill(Recorder):
    """A recorder that asks the real guard about the real ledger."""

    def __init__(self, guard: BudgetGuard) -> None:
        self._guard = guard

    def stop_reason(self, state, next_seconds):
        over = self._guard.reason(state.tokens, 1, next_seconds)
        return (OUT_OF_BUDGET, over) if over else (RUNNING, "")


@pytest.mark.parametrize("save_every", ["7", "1000", "null"])
@pytest.mark.parametrize("row_every", [1, 5])
def test_a_run_never_costs_more_than_its_limit(tmp_path, row_every, save_every):
    for seed in range(20):
        limit = random.Random(seed).uniform(20, 60)
        config = resolve("debug", [
            "model.layers=1", "model.heads=2", "model.width=8", "model.context=8",
            "train.batch_tokens=16", "train.tokens=1e6", "optim.warmup_steps=2",
            "eval.every_steps=9", "eval.tokens=128", "eval.sample_every_steps=18",
            f"track.every_steps={row_every}", f"checkpoint.every_steps={save_every}",
            f"budget.usd={limit}",
        ])  # fmt: skip
        work, saved = Work(seed), []
        attempt = Attempt.starting("a", work.now - START, (USD_PER_SECOND * 3600, "config"))
        path = tmp_path / f"{seed}.json"
        clock = Clock(lambda work=work: work.now, lambda work=work: work.now, "boot")
        ledger = Ledger.open(path, attempt, clock=clock)
        guard = BudgetGuard(config.budget, ledger)

        def save(state, work=work, saved=saved):
            work.takes(SAVE)
            saved.append(state.step)
            return True

        with single_process_group("cpu"):
            around = Surroundings(
                Control(),
                Bill(guard),
                evaluate=work.evaluate,
                sample=lambda _, work=work: work.takes(SAMPLE),
                save=save,
                clock=lambda work=work: work.now,
            )
            ending = run_loop(
                work,  # type: ignore[arg-type]
                itertools.repeat(torch.zeros(2, 9, dtype=torch.int64)),
                TrainState(0, 0, 0, "x", 2),
                config,
                around,
            )
        spent = ledger.spent_at(work.now).usd
        assert (ending.kind, saved[-1]) == ("budget", ending.state.step)
        unspent_at_most = MARGIN * (STEP + SAVE + EVALUATE + SAMPLE) * USD_PER_SECOND
        assert limit - unspent_at_most <= spent <= limit
