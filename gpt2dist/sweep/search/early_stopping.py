"""Who is stopped early: Ray Tune's schedulers at equal tokens or dollars, also after a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2dist.sweep.spec.sweep import Scheduler
from gpt2dist.sweep.trial.trial import TrialRecord

NEVER = 2**62


class EarlyStopping:
    """A scheduler of Ray Tune, told again every evaluation of earlier starts as they came."""

    def __init__(self, settings: Scheduler, records: Sequence[TrialRecord]) -> None:
        self._settings, self._rule = settings, _rule(settings)
        self._known: set[TrialRecord] = set()
        for record in records:
            if record.starts:
                self.add(record)
        seen = [(row, record) for record in records for row in record.evaluations]
        for row, record in sorted(seen, key=lambda pair: pair[0].get("time") or 0.0):
            if record.state == "finished" and row is record.evaluations[-1]:
                self.finish(record, row)
            else:
                self.verdict(record, row)

    def add(self, record: TrialRecord) -> None:
        if record not in self._known:
            self._known.add(record)
            self._rule.on_trial_add(None, record)

    def verdict(self, record: TrialRecord, row: Mapping[str, Any]) -> str | None:
        """Why a trial is not worth going on with after this evaluation; None: it goes on."""
        at, kind = row.get(self._settings.by), self._settings.kind
        if at is None or row.get("val_loss") is None:
            return None
        if self._rule.on_trial_result(None, record, row) != "STOP":
            return None
        where = f"{at:,.0f} tokens" if self._settings.by == "tokens" else f"${at:,.2f}"
        return f"early, by {kind} at {where}, validation loss {row['val_loss']:.4f}"

    def finish(self, record: TrialRecord, row: Mapping[str, Any]) -> None:
        """The last evaluation of a trial that came to its end."""
        if row.get(self._settings.by) is not None and row.get("val_loss") is not None:
            self._rule.on_trial_complete(None, record, row)


def _rule(settings: Scheduler) -> Any:
    """ASHA or median stopping over validation loss at equal tokens or dollars, or neither."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

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
    return FIFOScheduler()
