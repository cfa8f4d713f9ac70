"""The training loop: set the rate, accumulate, step, then do what is due.

It takes plain things (an engine, an iterator of batches, a recorder) and knows neither Ray nor
MLflow nor files.
"""
# B sequences of a micro-batch, T tokens of a context

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Protocol

import torch

from gpt2dist.config.schema import Config
from gpt2dist.errors import RunFailure
from gpt2dist.model.schedule import learning_rate
from gpt2dist.train.core.checkpoint import TrainState
from gpt2dist.train.core.control import Control
from gpt2dist.train.core.engine import Engine, StepResult
from gpt2dist.train.core.pace import Pace, is_due

SKIPS_IN_A_ROW = {"fp32": 10, "bf16": 10, "fp16": 40}
"Non-finite steps before the run gives up; fp16 needs some to find its loss scale."
SPIKE_NATS = 0.5
"A step this far above the median of the last 50 is reported as a spike."


class Diverged(RunFailure):
    """Loss or gradients stayed non-finite."""


class Recorder(Protocol):
    """What the loop tells the outside world; only rank 0's does anything."""

    def stop_reason(self, state: TrainState, next_seconds: float) -> tuple[int, str]: ...
    def row(self, row: dict[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Duties:
    """What the loop calls when it is due; collective on all ranks."""

    evaluate: Callable[[], float]
    "Validation loss, nats per token."
    sample: Callable[[int], None]
    save: Callable[[TrainState], None]


@dataclass(frozen=True)
class Ending:
    kind: str
    "finished, budget or interrupted"
    reason: str
    state: TrainState


RUNNING, INTERRUPTED, OUT_OF_BUDGET = 0, 1, 2


class Stopwatch:
    """Seconds since the last row, by what they were spent on."""

    def __init__(self) -> None:
        self.train = self.data_wait = 0.0
        self.steps = 0

    def restart(self) -> None:
        self.train = self.data_wait = 0.0
        self.steps = 0


def run_loop(
    engine: Engine,
    batches: Iterator[torch.Tensor],
    state: TrainState,
    config: Config,
    precision: str,
    control: Control,
    recorder: Recorder,
    duties: Duties,
    clock: Callable[[], float] = time.monotonic,
) -> Ending:
    """Train from `state` to the end, the budget or a stop request; saves before it returns.

    `batches` yields int64 [B, T + 1] micro-batches from the state's cursor on. Raises Diverged
    when non-finite steps persist.
    """
    total, watch, pace = config.total_steps, Stopwatch(), Pace(config)
    accumulation = engine.config["accumulation"]
    recent: deque[float] = deque(maxlen=50)
    last_save_step, last_save_time = state.step, clock()
    ending: Ending | None = None
    while ending is None and state.step < total:
        started = clock()
        micro_batches = [next(batches) for _ in range(accumulation)]
        data_wait = clock() - started
        code, reason = recorder.stop_reason(state, pace.until_saved(state.step + 1))
        valid = sum(int((micro[:, 1:] >= 0).sum()) for micro in micro_batches)
        minutes = config.checkpoint.every_minutes
        overdue = minutes is not None and clock() - last_save_time > 60 * minutes
        global_valid, code_sum, save_votes = control.total(valid, code, overdue)
        if code_sum != RUNNING:
            kind = "budget" if code_sum == OUT_OF_BUDGET else "interrupted"
            ending = Ending(kind, reason, state)
            break
        loss, result = _step(engine, micro_batches, int(global_valid), state, config, control)
        state = _advance(state, loss, int(global_valid), result, config)
        _watch_losses(state, loss, result, recent, precision, recorder)
        seconds = clock() - started
        watch.train += seconds
        watch.data_wait += data_wait
        watch.steps += 1
        pace.stepped(seconds)

        val_loss = None
        if state.step == total or is_due(state.step, config.eval.every_steps):
            began = clock()
            val_loss = duties.evaluate()
            pace.evaluated(clock() - began)
            state = _judge(state, val_loss)
        row_due = val_loss is not None or is_due(state.step, config.track.every_steps)
        if row_due or state.step == total:
            recorder.row(_row(state, result, config, watch, val_loss))
            state = replace(state, pending_loss_sum=0.0, pending_tokens=0)
            watch.restart()
        if state.step == total or is_due(state.step, config.eval.sample_every_steps):
            began = clock()
            duties.sample(state.step)
            pace.sampled(clock() - began)
        save_due = save_votes > 0 or is_due(state.step, config.checkpoint.every_steps)
        if save_due or state.step == total or pace.must_learn_save:
            began = clock()
            duties.save(state)
            last_save_step, last_save_time = state.step, clock()
            pace.saved(last_save_time - began)
    if ending is None:
        ending = Ending("finished", f"{total:,} steps done", state)
    if last_save_step != state.step:
        duties.save(state)
    return ending


def _step(
    engine: Engine,
    micro_batches: list[torch.Tensor],
    global_valid: int,
    state: TrainState,
    config: Config,
    control: Control,
) -> tuple[float, StepResult]:
    """One optimizer step; returns the mean loss over the step's targets on all ranks."""
    if config.model.dropout:
        # A function of step and rank instead of a state to save: resume is then exact for free.
        torch.manual_seed((config.train.seed * 1_000_003 + state.step) * 4099 + control.rank)
    loss_sum = torch.zeros((), device=engine.device, dtype=torch.float64)
    for micro_cpu in micro_batches:
        micro = micro_cpu.to(engine.device, non_blocking=True)
        loss_sum += engine.accumulate(micro[:, :-1], micro[:, 1:], global_valid)
    rate = learning_rate(state.step, config.optim, config.total_steps)
    result = engine.step(rate)
    return control.total(float(loss_sum))[0] / global_valid, result


def _advance(
    state: TrainState, loss: float, global_valid: int, result: StepResult, config: Config
) -> TrainState:
    counted = result.applied and math.isfinite(loss)
    return replace(
        state,
        step=state.step + 1,
        tokens=state.tokens + config.train.batch_tokens,
        applied_steps=state.applied_steps + result.applied,
        skipped_in_a_row=0 if result.applied else state.skipped_in_a_row + 1,
        pending_loss_sum=state.pending_loss_sum + (loss * global_valid if counted else 0.0),
        pending_tokens=state.pending_tokens + (global_valid if counted else 0),
        val_loss=None,
    )


def _watch_losses(
    state: TrainState,
    loss: float,
    result: StepResult,
    recent: deque[float],
    precision: str,
    recorder: Recorder,
) -> None:
    if not result.applied:
        recorder.note(
            f"step {state.step:,} skipped: loss {loss:.4g}, gradient not finite "
            f"({state.step - state.applied_steps:,} skipped so far)"
        )
        if state.skipped_in_a_row >= SKIPS_IN_A_ROW[precision]:
            raise Diverged(
                f"the last {state.skipped_in_a_row} steps had non-finite gradients; the run is "
                f"stopped at step {state.step:,} and its last checkpoint kept; "
                f"lower optim.peak_lr, lengthen optim.warmup_steps, or check the data"
            )
        return
    if len(recent) >= 20 and loss > median(recent) + SPIKE_NATS:
        recorder.note(
            f"loss spike at step {state.step:,}: {loss:.3f} after a median of {median(recent):.3f}"
        )
    recent.append(loss)


def _judge(state: TrainState, val_loss: float) -> TrainState:
    if state.best_val_loss is None or val_loss < state.best_val_loss:
        state = replace(state, best_val_loss=val_loss, best_step=state.step)
    return replace(state, val_loss=val_loss)


def _row(
    state: TrainState, result: StepResult, config: Config, watch: Stopwatch, val_loss: float | None
) -> dict[str, Any]:
    row = {
        "step": state.step,
        "tokens": state.tokens,
        "loss": state.pending_loss_sum / state.pending_tokens if state.pending_tokens else None,
        "grad_norm": result.grad_norm,
        "lr": learning_rate(state.step - 1, config.optim, config.total_steps),
        "skipped": state.step - state.applied_steps,
        "tokens_per_s": watch.steps * config.train.batch_tokens / watch.train,
        "step_s": watch.train / watch.steps,
        "data_wait_s": watch.data_wait / watch.steps,
    }
    if val_loss is not None:
        row["val_loss"] = val_loss
    return row
