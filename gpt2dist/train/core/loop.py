"""The training loop: set the rate, accumulate, step, then do what is due.

It takes plain things (an engine, an iterator of batches, a recorder) and knows neither Ray nor
MLflow nor files.
"""
# B sequences of a micro-batch, T tokens of a context

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch

from gpt2dist.config.schema import Config
from gpt2dist.errors import RunFailure
from gpt2dist.model.schedule import learning_rate
from gpt2dist.train.core.control import Control
from gpt2dist.train.core.engine import Engine, StepResult
from gpt2dist.train.core.pace import Pace, is_due

SKIPS_IN_A_ROW = {"fp32": 10, "bf16": 10, "fp16": 40}
"Non-finite steps before the run gives up; fp16 needs some to find its loss scale."
SPIKE_NATS = 0.5
"A step this far above the median of the last 50 is reported as a spike."


class Diverged(RunFailure):
    """Loss or gradients stayed non-finite."""


RUNNING, INTERRUPTED, OUT_OF_BUDGET, FAILED = 0, 1, 2, 3
"What a recorder answers when it is asked whether the run goes on."
KINDS = {INTERRUPTED: "interrupted", OUT_OF_BUDGET: "budget", FAILED: "failed"}


@dataclass(frozen=True)
class TrainState:
    """Everything beside weights and moments that a resumed run needs."""

    step: int
    "Optimizer steps done; also the data cursor: windows read = step x batch sequences."
    applied_steps: int
    "Steps that were not skipped for a non-finite gradient; AdamW's own count."
    tokens: int
    identity: str
    batch_sequences: int
    skipped_in_a_row: int = 0
    pending_loss_sum: float = 0.0
    "Summed loss of the steps since the last row, over `pending_tokens` targets."
    pending_tokens: int = 0
    best_val_loss: float | None = None
    best_step: int | None = None
    val_loss: float | None = None
    "Validation loss at exactly this step, if it was evaluated."
    loss_scale: float | None = None
    seconds: float = 0.0
    usd: float = 0.0
    rows: int | None = None
    "In metrics.jsonl up to this step; early versions did not write it."
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    kind: str
    "finished, budget, interrupted or failed"
    reason: str
    state: TrainState


class Recorder:
    """What the loop and its rank tell the outside world: nothing, on every rank but 0."""

    def stop_reason(self, state: TrainState, next_seconds: float) -> tuple[int, str]:
        return RUNNING, ""

    def row(self, row: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...

    def sample(self, step: int, text: str) -> None: ...

    def vouch(self, state: TrainState) -> TrainState:
        """The state as a checkpoint may claim it: with its costs, its rows on the disk."""
        return state

    def saved(self, state: TrainState, refused: str | None) -> None:
        """What was vouched for is a checkpoint, or was refused."""

    def unsaved(self, ending: Ending) -> Ending | None:
        """What an ending comes to whose checkpoint was refused; None: try again."""

    def finish(self, ending: Ending) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    """What the loop calls beside the engine; collective on all ranks, but for the recorder."""

    control: Control
    recorder: Recorder
    evaluate: Callable[[], float]
    "Validation loss, nats per token."
    sample: Callable[[int], None]
    save: Callable[[TrainState], bool]
    "False: not now; to be tried again later."
    clock: Callable[[], float] = time.monotonic


class Stopwatch:
    """Seconds since the last row, by what they were spent on."""

    def __init__(self) -> None:
        self.train = self.data_wait = 0.0
        self.steps = 0


def run_loop(
    engine: Engine,
    batches: Iterator[torch.Tensor],
    state: TrainState,
    config: Config,
    around: Surroundings,
) -> Ending:
    """Train from `state` to the end, the budget or a stop request; saves before it returns.

    `batches` yields int64 [B, T + 1] micro-batches from the state's cursor on. Raises Diverged
    when non-finite steps persist.
    """
    control, recorder, clock = around.control, around.recorder, around.clock
    total, watch, pace = config.total_steps, Stopwatch(), Pace(config)
    accumulation = engine.config["accumulation"]
    losses = LossWatch(recorder, SKIPS_IN_A_ROW[engine.precision])
    last_save_step, save_by = state.step, clock() + pace.save_every_seconds
    ending: Ending | None = None
    while ending is None and state.step < total:
        started = clock()
        micro_batches = [next(batches) for _ in range(accumulation)]
        data_wait = clock() - started
        code, reason = recorder.stop_reason(state, pace.until_saved(state.step + 1))
        valid = sum(int((micro[:, 1:] >= 0).sum()) for micro in micro_batches)
        global_valid, code_sum, save_votes = control.total(valid, code, clock() > save_by)
        if code_sum != RUNNING:
            ending = Ending(KINDS[int(code_sum)], reason, state)
            break
        rate = learning_rate(state.step, config.optim, total)
        if config.model.dropout:
            _seed_dropout(config.train.seed, state.step, control.rank)
        loss_sum, result = _step(engine, micro_batches, int(global_valid), rate)
        loss = control.total(loss_sum)[0] / global_valid
        state = _advance(state, loss, int(global_valid), result, config)
        losses.see(state, loss, result.applied)
        seconds = clock() - started
        watch.train += seconds
        watch.data_wait += data_wait
        watch.steps += 1
        pace.stepped(seconds)

        val_loss = None
        if state.step == total or is_due(state.step, config.eval.every_steps):
            began = clock()
            val_loss = around.evaluate()
            pace.evaluated(clock() - began)
            state = _judge(state, val_loss)
        row_due = val_loss is not None or is_due(state.step, config.track.every_steps)
        if row_due or state.step == total:
            recorder.row(_row(state, result.grad_norm, rate, config, watch))
            state = replace(state, pending_loss_sum=0.0, pending_tokens=0)
            watch = Stopwatch()
        if state.step == total or is_due(state.step, config.eval.sample_every_steps):
            began = clock()
            around.sample(state.step)
            pace.sampled(clock() - began)
        save_due = save_votes > 0 or is_due(state.step, config.checkpoint.every_steps)
        if save_due or state.step == total or pace.must_learn_save:
            began = clock()
            saved = around.save(state)
            pace.saved(clock() - began)
            last_save_step = state.step if saved else last_save_step
            save_by = clock() + (pace.save_every_seconds if saved else pace.save_again_seconds)
    if ending is None:
        ending = Ending("finished", f"{total:,} steps done", state)
    return ending if last_save_step == state.step else _save_last(ending, around)


def _save_last(ending: Ending, around: Surroundings) -> Ending:
    """The ending once its state is saved, or what it comes to without."""
    while not around.save(ending.state):
        unsaved = around.control.from_root(lambda: around.recorder.unsaved(ending))
        if unsaved is not None:
            return unsaved
    return ending


def _seed_dropout(seed: int, step: int, rank: int) -> None:
    """A function of step and rank instead of a state to save: resume is then exact for free."""
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + rank)


def _step(
    engine: Engine, micro_batches: list[torch.Tensor], global_valid: int, rate: float
) -> tuple[float, StepResult]:
    """One optimizer step; returns the summed loss over this rank's targets."""
    loss_sum = torch.zeros((), device=engine.device, dtype=torch.float64)
    for micro_cpu in micro_batches:
        micro = micro_cpu.to(engine.device, non_blocking=True)
        loss_sum += engine.accumulate(micro[:, :-1], micro[:, 1:], global_valid)
    result = engine.step(rate)
    return float(loss_sum), result


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


class LossWatch:
    """Notes spikes and skipped steps; too many skipped in a row end the run."""

    def __init__(self, recorder: Recorder, most_skips: int) -> None:
        self._recorder, self._most_skips = recorder, most_skips
        self._recent: deque[float] = deque(maxlen=50)

    def see(self, state: TrainState, loss: float, applied: bool) -> None:
        """The loss of the step that led to `state`; raises Diverged."""
        if not applied:
            self._recorder.note(
                f"step {state.step:,} skipped: loss {loss:.4g}, gradient not finite "
                f"({state.step - state.applied_steps:,} skipped so far)"
            )
            if state.skipped_in_a_row >= self._most_skips:
                raise Diverged(
                    f"the last {state.skipped_in_a_row} steps had non-finite gradients; the run is "
                    f"stopped at step {state.step:,} and its last checkpoint kept; "
                    f"lower optim.peak_lr, lengthen optim.warmup_steps, or check the data"
                )
            return
        usual = median(self._recent) if len(self._recent) >= 20 else math.inf
        if loss > usual + SPIKE_NATS:
            self._recorder.note(
                f"loss spike at step {state.step:,}: {loss:.3f} after a median of {usual:.3f}"
            )
        self._recent.append(loss)


def _judge(state: TrainState, val_loss: float) -> TrainState:
    if state.best_val_loss is None or val_loss < state.best_val_loss:
        state = replace(state, best_val_loss=val_loss, best_step=state.step)
    return replace(state, val_loss=val_loss)


def _row(
    state: TrainState, grad_norm: float, rate: float, config: Config, watch: Stopwatch
) -> dict[str, Any]:
    row = {
        "step": state.step,
        "tokens": state.tokens,
        "loss": state.pending_loss_sum / state.pending_tokens if state.pending_tokens else None,
        "grad_norm": grad_norm,
        "lr": rate,
        "skipped": state.step - state.applied_steps,
        "tokens_per_s": watch.steps * config.train.batch_tokens / watch.train,
        "step_s": watch.train / watch.steps,
        "data_wait_s": watch.data_wait / watch.steps,
    }
    return row if state.val_loss is None else row | {"val_loss": state.val_loss}
