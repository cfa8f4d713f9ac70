"""What happens next in a sweep: which trial starts, with how much money, and what became of it.

Ray Tune asks and reports from a thread of its own, the screen looks from the main thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Literal

from gpt2dist.config.schema import BudgetConfig
from gpt2dist.run_files import request_stop
from gpt2dist.sweep.cost.amounts import Amounts, grant, limits
from gpt2dist.sweep.cost.machine_bill import Bill
from gpt2dist.sweep.cost.trial_cost import MARGIN, Price, Rent, expected_seconds, start_seconds
from gpt2dist.sweep.journal import OVER, Journal, State, Story
from gpt2dist.sweep.search.points import Points, point_count, points_of
from gpt2dist.sweep.spec.schema import Sweep
from gpt2dist.sweep.spec.space import Values
from gpt2dist.sweep.trial.record import Record, Start, objective_of, run_config
from gpt2dist.sweep.trial.run_folder import TrialFolder
from gpt2dist.sweep.trial.trial import Trial, make_trial


class Sweeper:
    """All trials of a sweep; every method may be called from any thread."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        story: Story | None,
        journal: Journal,
        rent: Rent,
        price_of: Callable[[Trial], Price],
    ) -> None:
        self.sweep, self.folder, self.rent = sweep, folder, rent
        self.bill = Bill(folder)
        self.stop_reason: str | None = None
        self.not_started = 0
        "Trials for which the budget was not enough."
        self._journal, self._price_of = journal, price_of
        self._lock = threading.RLock()
        self._records: list[Record] = []
        self._queue: list[Record] = []
        self._points_known: list[Values] = []
        self._limits = limits(sweep.budget)
        for entry in story.entries if story else []:
            trial = make_trial(sweep, entry.number, entry.point, entry.values, entry.seed)
            record = self._add(trial)
            record.starts, record.reason = entry.starts, entry.reason
            record.state = entry.state if entry.state in OVER else "waiting"
            record.folder.refresh()
            if record.state == "waiting":
                self._queue.append(record)
            if trial.point == len(self._points_known):
                self._points_known.append(trial.values)
        self._points: Points = points_of(sweep, self._points_known)
        for point, values in enumerate(self._points_known):
            self._queue_missing_seeds(point, values)
            self._tell(point)

    @property
    def records(self) -> list[Record]:
        """All trials so far, with fresh figures."""
        with self._lock:
            for record in self._records:
                if record.starts:
                    record.folder.refresh()
            return list(self._records)

    def spent(self) -> Amounts:
        """By all trials together, failed and early-stopped ones included.

        On rented machines also what no trial accounts for: setup and idle shares.
        """
        with self._lock:
            total = Amounts()
            for record in self._records:
                total += record.folder.spent(self.rent.share)
            return total + self._overhead(total)

    @property
    def is_spent(self) -> bool:
        """The machines alone have cost what the sweep may; its trials have to leave."""
        paid = self.bill.amounts
        return paid.usd >= self._limits.usd or paid.hours >= self._limits.hours

    @property
    def is_over(self) -> bool:
        """Nothing is left to start: every trial there can be has ended for good."""
        with self._lock:
            return not self._queue and len(self._points_known) >= point_count(self.sweep)

    def stop(self, reason: str) -> None:
        """No trial starts any more."""
        with self._lock:
            self.stop_reason = self.stop_reason or reason

    def next(self) -> Start | Literal["wait", "over"]:
        """The next trial that may start; or whether one may later."""
        with self._lock:
            if self.stop_reason is not None:
                return "wait" if self._active() else "over"
            taken = {record.slot for record in self._active()}
            slots = [slot for slot in range(self.sweep.at_once) if slot not in taken]
            if not slots:
                return "wait"
            if not self._queue and not self._propose():
                return "wait" if self._active() else "over"
            for record in list(self._queue):
                granted = self._grant(record, len(slots))
                if granted is not None:
                    self._queue.remove(record)
                    return self._start(record, granted, slots[0])
            if self._active():
                return "wait"
            self.not_started = len(self._queue) + self._unproposed()
            self.stop_reason = "the rest of the budget is less than another trial needs"
            return "over"

    def stop_early(self, number: int, reason: str) -> None:
        """The scheduler has given a running trial up; it saves and leaves."""
        with self._lock:
            record = self._records[number]
            record.state, record.reason = "stopped", reason
            self._journal.state(number, "stopped", reason)
            request_stop(record.folder.path, f"the sweep: {reason}")

    def ended(self, number: int, state: State, reason: str) -> None:
        """A trial's process is gone, or about to go when the scheduler stopped it."""
        with self._lock:
            record = self._records[number]
            record.folder.refresh()
            if record.state == "running":
                record.state, record.reason = state, reason
                spent = record.folder.spent(self.rent.share)
                self._journal.state(
                    number,
                    state,
                    reason,
                    usd=spent.usd,
                    machine_hours=spent.hours,
                    tokens=record.folder.tokens,
                    val_loss=record.folder.val_loss,
                )
            if state == "budget" and record.trial.config.budget == BudgetConfig():
                self._queue.insert(0, record)  # it goes on as soon as others leave something
            self._tell(record.trial.point)

    def results(self, point: int) -> list[tuple[Record, dict[str, float]]] | None:
        """What the seeds of a point came to by objective; None while one has not finished."""
        records = [r for r in self._records if r.trial.point == point]
        if len(records) < len(self.sweep.seeds) or any(r.state != "finished" for r in records):
            return None
        found: list[tuple[Record, dict[str, float]]] = []
        for record in records:
            summary = record.folder.summary() or {}
            values: dict[str, float] = {}
            for name in self.sweep.objective:
                value = objective_of(summary, name)
                if value is None:
                    return None
                values[name] = value
            found.append((record, values))
        return found

    def _add(self, trial: Trial) -> Record:
        record = Record(trial, TrialFolder(self.folder / trial.name), "waiting")
        self._records.append(record)
        return record

    def _active(self) -> list[Record]:
        """Trials that hold a slot; a stopped one does until it has saved."""
        for record in self._records:
            leaving = record.slot is not None and record.state != "running"
            if leaving and not record.folder.is_busy():
                record.slot = record.granted = None
        return [record for record in self._records if record.slot is not None]

    def _propose(self) -> bool:
        values = self._points.next()
        if values is None:
            return False
        self._points_known.append(values)
        self._queue_missing_seeds(len(self._points_known) - 1, values)
        return True

    def _queue_missing_seeds(self, point: int, values: Values) -> None:
        known = {record.trial.seed for record in self._records if record.trial.point == point}
        for seed in self.sweep.seeds:
            if seed not in known:
                trial = make_trial(self.sweep, len(self._records), point, values, seed)
                self._journal.trial(trial.number, point, values, seed)
                self._queue.append(self._add(trial))

    def _unproposed(self) -> int:
        count = 0
        while self._points.next() is not None:
            count += len(self.sweep.seeds)
        return count

    def _grant(self, record: Record, slots: int) -> Amounts | None:
        """What a trial may have spent in the end, or None when too little is free."""
        share, own = self.rent.share, record.folder.spent(self.rent.share)
        used = spent_by_all = own
        for other in self._records:
            if other is not record:
                spent = other.folder.spent(share)
                spent_by_all += spent
                used += spent if other.granted is None else spent.at_least(other.granted)
        free = self._limits.without(used + self._overhead(spent_by_all))
        record.folder.refresh()
        left = self._tokens_to_secure(record)
        seen = [(r.trial, r.folder) for r in self._records]
        price = self._price_of(record.trial)
        seconds = expected_seconds(record.trial, left, seen, price)
        seconds = self._least_seconds() if seconds is None else seconds * MARGIN
        more = grant(free, self.rent.cost(seconds, left), slots)
        return None if more is None else own + more

    def _overhead(self, spent_by_trials: Amounts) -> Amounts:
        return self.bill.amounts.without(spent_by_trials).at_least(Amounts())

    def _least_seconds(self) -> float:
        """Of a start, while no trial has come to its first row."""
        vain = [0.0]
        for record in self._records:
            if record.starts and record.folder.first is None:
                hours = record.folder.spent(self.rent.share).hours
                vain.append(hours * 3600 / self.rent.share / self.rent.machines)
        return max(start_seconds(self.sweep), 1.5 * max(vain))

    def _tokens_to_secure(self, record: Record) -> float:
        """A trial starts when its end can be paid; with a scheduler, when its first judgement can.

        Most trials of such a sweep end there, and to keep the rest of each in reserve would leave
        most of the budget unused.
        """
        done, scheduler = record.folder.tokens, self.sweep.scheduler
        if scheduler.kind != "none" and scheduler.by == "tokens" and done < (scheduler.first or 0):
            return (scheduler.first or 0) - done
        return max(0, record.trial.tokens - done)

    def _start(self, record: Record, granted: Amounts, slot: int) -> Start:
        record.granted, record.slot = granted, slot
        record.state, record.reason = "running", ""
        record.starts += 1
        self._journal.state(record.trial.number, "running")
        seconds = self.rent.seconds(granted, record.folder.spent(self.rent.share))
        config = run_config(self.sweep, self.rent, record.trial, granted)
        return Start(record, config, slot, seconds)

    def _tell(self, point: int) -> None:
        """Let the search learn from a point once all its seeds are over."""
        records = [r for r in self._records if r.trial.point == point]
        if len(records) < len(self.sweep.seeds) or any(r.state not in OVER for r in records):
            return
        values = self._points_known[point]
        found = self.results(point)
        if found is None:
            last = [(r.folder.tokens, r.folder.val_loss) for r in records if r.state == "stopped"]
            stopped = next(((t, v) for t, v in last if v is not None), None)
            self._points.tell(values, None, stopped)
            return
        means = [fmean([value[name] for _, value in found]) for name in self.sweep.objective]
        self._points.tell(values, means, None)
