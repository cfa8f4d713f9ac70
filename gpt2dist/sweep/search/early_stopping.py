"""Who is stopped early: Ray Tune's schedulers at equal tokens or dollars, also after a restart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpt2dist.sweep.spec.sweep import Scheduler
from gpt2dist.sweep.trial.trial import TrialRecord


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
        if not self._is_comparable(row) or self._rule.on_trial_result(None, record, row) != "STOP":
            return None
        kind, by, at = self._settings.kind, self._settings.by, row[self._settings.by]
        where = f"{at:,.0f} tokens" if by == "tokens" else f"${at:,.2f}"
        return f"early, by {kind} at {where}, validation loss {row['val_loss']:.4f}"

    def finish(self, record: TrialRecord, row: Mapping[str, Any]) -> None:
        """The last evaluation of a trial that came to its end."""
        if self._is_comparable(row):
            self._rule.on_trial_complete(None, record, row)

    def _is_comparable(self, row: Mapping[str, Any]) -> bool:
        return row.get(self._settings.by) is not None and row.get("val_loss") is not None


def _rule(settings: Scheduler) -> Any:
    """ASHA or median stopping over validation loss at equal tokens or dollars, or neither."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

    options: dict[str, Any] = {"metric": "val_loss", "mode": "min"}
    options |= {"time_attr": settings.by, "grace_period": settings.first}
    if settings.kind == "asha":
        options |= {"max_t": 2**62, "stop_last_trials": False}  # trials end by themselves
        return ASHAScheduler(**options, reduction_factor=settings.factor)
    if settings.kind == "median":
        options |= {"min_time_slice": math.inf}  # never pause one to give others their turn
        return MedianStoppingRule(**options, min_samples_required=settings.peers)
    return FIFOScheduler()
