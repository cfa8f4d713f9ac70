"""Who is stopped early: Ray Tune's schedulers at equal tokens or dollars, also after a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2dist.sweep.spec.schema import Scheduler
from gpt2dist.sweep.trial.record import Record

NEVER = 2**62


class Known:
    """What Tune's schedulers want of a trial: something with an id that is the same every time."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"{number:03d}"


def judge_of(settings: Scheduler) -> Any:
    """ASHA or median stopping over validation loss at equal tokens or dollars; None for none."""
    from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule

    first: Any = settings.first
    never: Any = math.inf
    if settings.kind == "asha":
        return ASHAScheduler(
            time_attr=settings.by,
            metric="val_loss",
            mode="min",
            grace_period=first,
            max_t=NEVER,  # trials end by themselves
            reduction_factor=settings.factor,
            stop_last_trials=False,
        )
    if settings.kind == "median":
        return MedianStoppingRule(
            time_attr=settings.by,
            metric="val_loss",
            mode="min",
            grace_period=first,
            min_samples_required=settings.peers,
            min_time_slice=never,  # never pause a trial to give others their turn
        )
    return None


def replay(
    judge: Any, settings: Scheduler, records: Sequence[Record], known: dict[int, Known]
) -> None:
    """Tell a new scheduler every evaluation of earlier starts, in the order in which they came."""
    for record in records:
        if record.starts:
            known[record.trial.number] = Known(record.trial.number)
            judge.on_trial_add(None, known[record.trial.number])
    seen = [(row, record) for record in records for row in record.folder.evaluations]
    for row, record in sorted(seen, key=lambda pair: pair[0].get("time") or 0.0):
        if is_comparable(row, settings):
            last = record.state == "finished" and row is record.folder.evaluations[-1]
            take = judge.on_trial_complete if last else judge.on_trial_result
            take(None, known[record.trial.number], row)


def stop_line(settings: Scheduler, result: Mapping[str, Any]) -> str:
    at = result[settings.by]
    where = f"{at:,.0f} tokens" if settings.by == "tokens" else f"${at:,.2f}"
    return f"early, by {settings.kind} at {where}, validation loss {result['val_loss']:.4f}"


def is_comparable(result: Mapping[str, Any], settings: Scheduler) -> bool:
    return result.get("val_loss") is not None and result.get(settings.by) is not None
