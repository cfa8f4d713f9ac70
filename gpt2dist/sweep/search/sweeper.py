"""What happens next in a sweep: which trial starts, with how much money, and what became of it.

Ray Tune asks and reports from a thread of its own, the table looks from the main thread.
"""

from __future__ import annotations

import os
import threading
from statistics import fmean
from typing import Any, Literal

from gpt2dist.config.schema import BudgetConfig
from gpt2dist.run_files import GIVEN_UP, STOP_FILE, request_stop
from gpt2dist.sweep.cost.amounts import Amounts, SweepLedger, grant, limits
from gpt2dist.sweep.cost.estimate import Pricing, expected_seconds, run_config
from gpt2dist.sweep.search.points import proposals_of
from gpt2dist.sweep.trial.journal import Journal
from gpt2dist.sweep.trial.process import TrialProcess
from gpt2dist.sweep.trial.trial import State, Trial, TrialRecord

MARGIN = 1.1
"A trial starts only when this many times its expected cost is still free."


PROCESS_START_SECONDS, RAY_START_SECONDS = 15.0, 60.0
"What a start takes while no trial has shown it."


class Sweeper:
    """All trials of a sweep; every method may be called from any thread."""

    def __init__(self, journal: Journal, pricing: Pricing) -> None:
        self.sweep, self.folder, self.share = journal.sweep, journal.folder, pricing.share
        self.ledger = SweepLedger(self.folder)
        self.stop_reason: str | None = None
        self.not_started = 0
        "Trials for which the budget was not enough."
        self._journal, self._estimate = journal, pricing.estimate
        self._lock = threading.RLock()
        self._records = journal.records
        self._points: list[dict[str, Any]] = []
        budget = self.sweep.budget
        self._limits = limits(budget.usd, budget.hours, budget.tokens)
        for record in self._records:
            if not record.is_over:
                record.state = "waiting"
            record.refresh()
            if record.trial.point == len(self._points):
                self._points.append(record.trial.values)
        self._queue = [record for record in self._records if record.state == "waiting"]
        self._proposals = proposals_of(self.sweep, self._points)
        for point in range(len(self._points)):
            self._queue_missing_seeds(point)
            self._tell(point)

    @property
    def records(self) -> list[TrialRecord]:
        """All trials so far, with fresh figures."""
        with self._lock:
            for record in self._records:
                if record.starts:
                    record.refresh()
            return list(self._records)

    def record(self, number: int) -> TrialRecord:
        return self._records[number]

    def spent(self) -> Amounts:
        """By all trials together, failed and early-stopped ones included.

        On rented machines also what no trial accounts for: setup and idle shares.
        """
        with self._lock:
            total = Amounts()
            for record in self._records:
                total += record.spent(self.share.part)
            return total + self._overhead()

    @property
    def is_spent(self) -> bool:
        """The machines alone have cost what the sweep may; its trials have to leave."""
        return not self._limits.covers(self.ledger.amounts)

    @property
    def is_over(self) -> bool:
        """Nothing is left to start: every trial there can be has ended for good."""
        with self._lock:
            return not self._queue and len(self._points) >= len(self.sweep.points)

    def stop(self, reason: str) -> None:
        """No trial starts any more; those that run save and leave."""
        (self.folder / STOP_FILE).touch()
        with self._lock:
            self.stop_reason = self.stop_reason or reason

    def next(self) -> TrialProcess | Literal["wait", "over"]:
        """The process of the next trial that may start; or whether one may later."""
        with self._lock:
            taken = {record.slot for record in self._active()}
            waits: Literal["wait", "over"] = "wait" if taken else "over"
            if self.stop_reason is not None:
                return waits
            slots = [slot for slot in range(self.sweep.at_once) if slot not in taken]
            if not slots:
                return "wait"
            if not self._queue and not self._propose():
                return waits
            for record in list(self._queue):
                granted = self._grant(record, len(slots))
                if granted is not None:
                    self._queue.remove(record)
                    return self._start(record, granted, slots[0])
            if taken:
                return "wait"
            unproposed = sum(1 for _ in iter(self._proposals.next, None))
            self.not_started = len(self._queue) + unproposed * len(self.sweep.seeds)
            self.stop_reason = "the rest of the budget is less than another trial needs"
            return "over"

    def stop_early(self, record: TrialRecord, reason: str) -> None:
        """The scheduler has given a running trial up; it saves and leaves."""
        with self._lock:
            record.state, record.reason = "stopped", reason
            self._journal.note(record)
            request_stop(record.folder, f"{GIVEN_UP}{reason}")

    def ended(self, number: int, state: State, reason: str) -> None:
        """A trial's process is gone, or about to go when the scheduler stopped it."""
        with self._lock:
            record = self._records[number]
            record.refresh()
            if record.state == "running":
                record.state, record.reason = state, reason
                spent = record.spent(self.share.part)
                self._journal.note(
                    record,
                    usd=spent.usd,
                    machine_hours=spent.hours,
                    tokens=record.tokens,
                    val_loss=record.val_loss,
                )
            if state == "budget" and record.trial.config.budget == BudgetConfig():
                self._queue.insert(0, record)  # it goes on as soon as others leave something
            self._tell(record.trial.point)

    def results(self, point: int) -> list[tuple[TrialRecord, dict[str, float]]] | None:
        """What the seeds of a point came to by objective; None while one has not finished."""
        records = self._of(point)
        if len(records) < len(self.sweep.seeds) or any(r.state != "finished" for r in records):
            return None
        found = [(r, values) for r in records if (values := r.objectives()) is not None]
        return found if len(found) == len(records) else None

    def _of(self, point: int) -> list[TrialRecord]:
        return [record for record in self._records if record.trial.point == point]

    def _active(self) -> list[TrialRecord]:
        """Trials that hold a slot; a stopped one does until it has saved."""
        for record in self._records:
            leaving = record.slot is not None and record.state != "running"
            if leaving and not record.is_busy():
                record.slot = record.granted = None
        return [record for record in self._records if record.slot is not None]

    def _propose(self) -> bool:
        values = self._proposals.next()
        if values is None:
            return False
        self._points.append(values)
        self._queue_missing_seeds(len(self._points) - 1)
        return True

    def _queue_missing_seeds(self, point: int) -> None:
        known = {record.trial.seed for record in self._of(point)}
        for seed in self.sweep.seeds:
            if seed not in known:
                trial = Trial(self.sweep, len(self._records), point, self._points[point], seed)
                trial.require_runnable()
                self._queue.append(self._journal.add(trial))

    def _grant(self, record: TrialRecord, slots: int) -> Amounts | None:
        """What a trial may have spent in the end, or None when too little is free."""
        part, own = self.share.part, record.spent(self.share.part)
        used = own
        for other in self._records:
            if other is not record:
                spent = other.spent(part)
                used += spent if other.granted is None else spent.at_least(other.granted)
        free = self._limits.without(used + self._overhead())
        more = grant(free, self._need(record), slots)
        return None if more is None else own + more

    def _need(self, record: TrialRecord) -> Amounts:
        """A trial starts when its end can be paid; with a scheduler, when its first judgement can.

        Most trials of such a sweep end there, and to keep the rest of each in reserve would leave
        most of the budget unused.
        """
        record.refresh()
        config, scheduler = record.trial.config, self.sweep.scheduler
        end = float(config.total_tokens)
        first = (scheduler.first or 0) if scheduler.kind != "none" else 0
        if scheduler.by == "tokens" and record.tokens < first:
            end = first
        left = max(0.0, end - record.tokens)
        paces = [pace for r in self._records if (pace := r.pace) is not None]
        seconds = expected_seconds(config, left, paces, self._estimate(config))
        seconds = self._least_seconds() if seconds is None else seconds * MARGIN
        return self.share.cost(seconds, left)

    def _overhead(self) -> Amounts:
        """What rented machines cost beside the trials on them, not beside those elsewhere."""
        by_trials = Amounts()
        for record in self._records:  # one by one: trials that overlap each have a share
            there = [attempt for attempt in record.attempts if self.ledger.holds(attempt)]
            by_trials += Amounts.spent(there, self.share.part)
        return self.ledger.amounts.without(by_trials).at_least(Amounts())

    def _least_seconds(self) -> float:
        """Of a start, while no trial has come to its first row."""
        vain = [0.0]
        for record in self._records:
            if record.starts and record.first is None:
                hours = record.spent(self.share.part).hours
                vain.append(hours * 3600 / self.share.part / self.share.machines)
        usual = PROCESS_START_SECONDS if self.sweep.in_processes else RAY_START_SECONDS
        return max(usual, 1.5 * max(vain))

    def _start(self, record: TrialRecord, granted: Amounts, slot: int) -> TrialProcess:
        record.granted, record.slot = granted, slot
        record.state, record.reason = "running", ""
        record.starts += 1
        self._journal.note(record)
        evaluated, cpus = record.evaluations, self.sweep.resources.cpus
        return TrialProcess(
            number=record.trial.number,
            run=f"{self.sweep.run_name}/{record.trial.name}",
            config=run_config(self.sweep, self.share, record.trial.config, granted),
            in_process=self.sweep.in_processes,
            cores=range(slot * cpus, (slot + 1) * cpus),
            cwd=os.getcwd(),
            seconds=self.share.seconds(granted, record.spent(self.share.part)),
            reported_step=evaluated[-1]["step"] if evaluated else 0,
        )

    def _tell(self, point: int) -> None:
        """Let the search learn from a point once all its seeds are over."""
        records = self._of(point)
        if len(records) < len(self.sweep.seeds) or any(not r.is_over for r in records):
            return
        values, found = self._points[point], self.results(point)
        if found is None:
            last = [(r.tokens, r.val_loss) for r in records if r.state == "stopped"]
            stopped = next(((t, v) for t, v in last if v is not None), None)
            self._proposals.tell(values, None, stopped)
            return
        means = [fmean([value[name] for _, value in found]) for name in self.sweep.objective]
        self._proposals.tell(values, means, None)
