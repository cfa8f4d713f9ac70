"""Who is stopped early: Ray Tune's schedulers at equal tokens or dollars, also after a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2dist.sweep.spec.sweep import Scheduler
from gpt2dist.sweep.trial.trial import TrialRecord

NEVER = 2**62


def stopping_rule(settings: Scheduler) -> Any:
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


def replay(rule: Any, settings: Scheduler, records: Sequence[TrialRecord]) -> None:
    """Tell a new rule every evaluation of earlier starts, in the order in which they came."""
    for record in records:
        if record.starts:
            rule.on_trial_add(None, record)
    seen = [(row, record) for record in records for row in record.evaluations]
    for row, record in sorted(seen, key=lambda pair: pair[0].get("time") or 0.0):
        if is_comparable(row, settings):
            last = record.state == "finished" and row is record.evaluations[-1]
            take = rule.on_trial_complete if last else rule.on_trial_result
            take(None, record, row)


def stop_line(settings: Scheduler, result: Mapping[str, Any]) -> str:
    at = result[settings.by]
    where = f"{at:,.0f} tokens" if settings.by == "tokens" else f"${at:,.2f}"
    return f"early, by {settings.kind} at {where}, validation loss {result['val_loss']:.4f}"


def is_comparable(result: Mapping[str, Any], settings: Scheduler) -> bool:
    return result.get("val_loss") is not None and result.get(settings.by) is not None
