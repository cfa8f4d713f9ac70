"""What a sweep shows while it goes on: its plan, then the live table of its trials."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence

from gpt2dist.human import columns, human_count, human_duration, usd
from gpt2dist.sweep.cost.estimate import SweepEstimate
from gpt2dist.sweep.search.sweeper import Sweeper
from gpt2dist.sweep.spec.sweep import Sweep, point_text
from gpt2dist.sweep.trial.trial import Trial, TrialRecord

PLAN_LINES = 40
"Of the list of trials; the rest is counted."
REDRAW_SECONDS = 0.5


def headline(trials: Sequence[Trial]) -> list[str]:
    """What is searched, and whether the space has as many points as were asked for."""
    sweep = trials[0].sweep
    seeds, points = len(sweep.seeds), len(sweep.points)
    count = f" ({points} points x {seeds} seeds)" if seeds > 1 else ""
    early = f", {sweep.scheduler.kind} by {sweep.scheduler.by}" if sweep.stops_early else ""
    lines = [
        f"sweep {sweep.name}: {sweep.search.kind} search of {sweep.base}, "
        f"{points * seeds} trials{count} of "
        f"{human_count(max(trial.config.total_tokens for trial in trials))} tokens{early}, "
        f"{sweep.at_once} at once"
    ]
    if sweep.search.kind != "grid" and points < sweep.asked_points:
        lines.append(
            f"note: the space has only {points} different points: {points * seeds} trials, not the "
            f"{sweep.budget.trials} of budget.trials"
        )
    return lines


def plan_lines(trials: Sequence[Trial], plan: SweepEstimate) -> list[str]:
    """The trials with their planned tokens, hours and dollars, and the sums."""
    sweep, share = trials[0].sweep, plan.share
    rows = [[*_trial_columns(sweep), "tokens", "hours", "dollars"]]
    for trial, estimate in zip(trials[:PLAN_LINES], plan.trials):
        time_text = money = "unknown"
        if estimate.hours is not None:
            time_text = human_duration(estimate.hours * 3600)
            money = usd(share.cost(estimate.hours * 3600).usd) if share.is_known else money
        rows.append([*_trial_cells(trial), human_count(estimate.tokens), time_text, money])
    lines = columns(rows)
    if len(trials) > PLAN_LINES:
        lines.append(f"... and {len(trials) - PLAN_LINES} more")
    hours, dollars = plan.needs("hours"), plan.needs("usd")
    together = (
        f"together: {len(trials)} trials, {human_count(sum(plan.needs('tokens') or []))} tokens, "
        f"{'unknown' if hours is None else f'{sum(hours):.2f}'} machine-hours, "
        f"{usd(sum(dollars)) if dollars is not None and share.is_known else 'unknown dollars'}"
    )
    if sweep.stops_early:
        together += f" without early stopping, {plan.least_part:.0%} of that at least with it"
    lines.append(together)
    if plan.once.hours:
        money = f", {usd(plan.once.usd)}" if share.is_known else ""
        lines.append(
            f"and once, before the first trial: renting, installing and preparing the data, "
            f"{plan.once.hours:.2f} machine-hours{money}"
        )
    if share.is_known:
        machines = f" and machine, {share.machines} machines" if share.machines > 1 else ""
        lines.append(f"price: {usd(share.usd_per_hour)} per trial-hour{machines} ({share.source})")
    basis = sorted({estimate.basis for estimate in plan.trials if estimate.basis})
    if basis:
        lines.append(f"hours by: {', '.join(basis)}")
    if sweep.search.kind == "optuna":
        lines.append("the values are a typical sample: Optuna chooses while it learns")
    return lines


class LiveTable:
    """The trials of a sweep while it goes on; without a terminal a line per change."""

    def __init__(self, sweeper: Sweeper) -> None:
        self._sweeper = sweeper
        self.is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn_lines, self._drawn_at = 0, 0.0
        self._said: dict[int, tuple[str, int]] = {}
        self._started_at = time.monotonic()

    def show(self, last: bool = False) -> None:
        """Call it often; it draws when there is something new."""
        now = time.monotonic()
        if not last and now - self._drawn_at < REDRAW_SECONDS:
            return
        self._drawn_at = now
        if self.is_live:
            self._redraw([*table_lines(self._sweeper), self._footer()])
        else:
            for record in self._sweeper.records:
                self._say(record)

    def note(self, text: str) -> None:
        """A remark that stays."""
        self._write((f"\x1b[{self._drawn_lines}F\x1b[J" if self._drawn_lines else "") + text + "\n")
        self._drawn_lines = 0

    def _redraw(self, lines: Sequence[str]) -> None:
        width, height = shutil.get_terminal_size()
        kept = [line[: width - 1] for line in lines[-(height - 1) :]]
        back = f"\x1b[{self._drawn_lines}F" if self._drawn_lines else ""
        self._write(back + "".join(f"{line}\x1b[K\n" for line in kept) + "\x1b[J")
        self._drawn_lines = len(kept)

    def _say(self, record: TrialRecord) -> None:
        """One line when a trial starts, is evaluated, or ends."""
        trial, now = record.trial, (record.state, len(record.evaluations))
        if record.state == "waiting" or self._said.get(trial.number) == now:
            return
        self._said[trial.number] = now
        tokens, loss, val_loss, dollars = _figures(record, self._sweeper)
        parts = [
            f"trial {trial.number}",
            point_text(trial.values),
            f"seed {trial.seed}" if len(trial.sweep.seeds) > 1 else "",
            f"{tokens} tokens" if record.tokens else "",
            f"loss {loss}" if loss else "",
            f"val {val_loss}" if val_loss else "",
            dollars if record.tokens else "",
            f"{record.state}: {record.reason}" if record.reason else record.state,
        ]
        self._write("  ".join(part for part in parts if part) + "\n")

    def _footer(self) -> str:
        sweeper, spent = self._sweeper, self._sweeper.spent()
        limit = sweeper.sweep.budget.usd
        money = usd(spent.usd) + (f" of {usd(limit)}" if limit else "")
        money = money if sweeper.share.is_known else "no price known"
        lasted = human_duration(time.monotonic() - self._started_at)
        return f"{lasted}  {human_count(spent.tokens)} tokens  {money}"

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, ValueError):  # nobody reads any more; the sweep goes on
            self.is_live = False


def table_lines(sweeper: Sweeper) -> list[str]:
    """Trial, swept values, tokens, losses, dollars, state, and why it ended early."""
    head = [*_trial_columns(sweeper.sweep), "tokens", "loss", "val loss", "dollars", "state"]
    return columns([head, *(_row(record, sweeper) for record in sweeper.records)], left=[-1])


def _trial_columns(sweep: Sweep) -> list[str]:
    seed = ["seed"] if len(sweep.seeds) > 1 else []
    return ["trial", *sweep.names.values(), *seed]


def _trial_cells(trial: Trial) -> list[str]:
    seed = [str(trial.seed)] if len(trial.sweep.seeds) > 1 else []
    return [str(trial.number), *(trial.texts[path] for path in trial.sweep.names), *seed]


def _row(record: TrialRecord, sweeper: Sweeper) -> list[str]:
    tokens, *figures = _figures(record, sweeper)
    whole = human_count(record.trial.config.total_tokens)
    says_why = record.state not in ("waiting", "running", "finished") and record.reason
    return [
        *_trial_cells(record.trial),
        f"{tokens}/{whole}" if record.starts else "",
        *figures,
        f"{record.state}: {record.reason}" if says_why else record.state,
    ]


def _figures(record: TrialRecord, sweeper: Sweeper) -> list[str]:
    """Tokens, loss, validation loss and dollars; empty where unknown."""
    is_priced = sweeper.share.is_known and record.starts
    return [
        human_count(record.tokens),
        f"{record.loss:.4f}" if record.loss is not None else "",
        f"{record.val_loss:.4f}" if record.val_loss is not None else "",
        usd(record.spent(sweeper.share.part).usd) if is_priced else "",
    ]
