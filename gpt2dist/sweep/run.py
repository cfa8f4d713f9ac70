"""`gpt2dist tune`: from a sweep file to a finished sweep, or to the line that says why not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2dist.config.load import to_tree
from gpt2dist.disk import locked
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.human import human_count
from gpt2dist.ray_session import InThread
from gpt2dist.run_files import JOURNAL_FILE, STOP_FILE, SWEEP_LOCK, SWEEP_PICTURE_FILE
from gpt2dist.stop_signal import StopOnSignal
from gpt2dist.sweep.cost.estimate import (
    describe_plan,
    plan_sweep,
    planned_trials,
    require_affordable,
)
from gpt2dist.sweep.cost.trial_cost import Price, Rent, price_here, price_on, rent_here, rent_on
from gpt2dist.sweep.journal import OVER, Journal, Story, read_journal
from gpt2dist.sweep.print_folder import folder_of
from gpt2dist.sweep.report.closing import closing_lines
from gpt2dist.sweep.report.live_table import Screen, table_lines
from gpt2dist.sweep.report.results import (
    finished_points,
    write_best,
    write_summary,
)
from gpt2dist.sweep.search.points import point_count
from gpt2dist.sweep.search.ray_tune import start_trials
from gpt2dist.sweep.spec.load import differences, load_sweep
from gpt2dist.sweep.spec.schema import Sweep
from gpt2dist.sweep.sweeper import Sweeper
from gpt2dist.sweep.trial.process import Order
from gpt2dist.sweep.trial.record import Start
from gpt2dist.sweep.trial.trial import Trial

if TYPE_CHECKING:
    from gpt2dist.sweep.machines import Machines

POLL_SECONDS = 0.2
LEAVE_SECONDS = 120.0
"How long the last processes may need to save."
Say = Callable[[str], None]


@dataclass(frozen=True)
class SweepRequest:
    """The command line of `gpt2dist tune`."""

    file: str
    overrides: Sequence[str] = ()
    usd: float | None = None
    dry_run: bool = False
    resume: bool = False
    fresh: bool = False


def run_sweep(request: SweepRequest, say: Say = print) -> int:
    """Run a sweep to its end or its budget, or continue it; returns the exit code.

    0: finished, or the budget was reached; 1: a trial failed; 130 and 143: interrupted. Raises
    BadInput before anything is started or written.
    """
    sweep = load_sweep(request.file, request.overrides, request.usd)
    trials = planned_trials(sweep)
    say(_headline(sweep, trials))
    if request.dry_run and sweep.hardware is not None:
        rent, hardware, offer = rent_on(sweep, sweep.hardware)
        _show_plan(sweep, trials, lambda t: price_on(sweep, t, rent, hardware, offer), rent, say)
        return 0
    folder = Path(sweep.config.paths.runs) / folder_of(sweep.name)
    story = _story(sweep, folder, request)
    from gpt2dist.sweep.machines import Machines

    machines = Machines.here(sweep, start_ray=not request.dry_run)
    rent = rent_here(sweep, machines.gpus_per_machine)
    prices: dict[int, Price] = {}

    def price_of(trial: Trial) -> Price:
        if trial.number not in prices:
            prices[trial.number] = price_here(sweep, trial, machines.machine, rent)
        return prices[trial.number]

    _show_plan(sweep, trials, price_of, rent, say)
    if request.dry_run:
        return 0
    machines.prepare_data(trials, say)
    if request.fresh:
        _set_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    prices.clear()  # Optuna's trials are not the planned ones
    with locked(folder / SWEEP_LOCK):
        return _run(sweep, folder, story, rent, price_of, machines, say)


def _show_plan(
    sweep: Sweep, trials: Sequence[Trial], price_of: Callable[[Trial], Price], rent: Rent, say: Say
) -> None:
    plan = plan_sweep(sweep, trials, price_of, rent)
    for line in describe_plan(sweep, plan):
        say(line)
    for note in require_affordable(sweep, plan):
        say(f"note: {note}")


def _run(
    sweep: Sweep,
    folder: Path,
    story: Story | None,
    rent: Rent,
    price_of: Callable[[Trial], Price],
    machines: Machines,
    say: Say,
) -> int:
    (folder / STOP_FILE).unlink(missing_ok=True)
    journal = Journal(folder)
    if story is None:
        journal.begin(sweep.tree)
    sweeper = Sweeper(sweep, folder, story, journal, rent, price_of)
    screen = Screen(sweeper)
    mlflow = _open_mlflow(sweeper, screen.note)
    is_over = sweeper.is_over
    if not is_over:
        sweeper.bill.open(sweep.config.cluster, machines.count, os.environ)
        machines.connect()  # before the signal handlers: Ray installs its own
    with StopOnSignal(partial(_leave, sweeper)) as signals:
        if not is_over:
            _follow(start_trials(sweeper, partial(_order, sweeper)), sweeper, screen)
    screen.show(last=True)
    ended = "interrupted" if signals.received else "budget" if sweeper.stop_reason else "finished"
    points = finished_points(sweeper)
    best = points[0] if points else None
    best_file = write_best(sweeper, best) if best else None
    summary = write_summary(sweeper, points, ended)
    _draw(sweeper, best.point if best else None)
    if mlflow is not None:
        mlflow.close(summary, "KILLED" if signals.received else "FINISHED")
    if not screen.is_live:
        for line in table_lines(sweeper, sweeper.records):
            say(line)
    for line in closing_lines(sweeper, points, best_file, ended):
        say(line)
    if signals.received is not None:
        return signals.exit_code
    return 1 if any(record.state == "failed" for record in sweeper.records) else 0


def _follow(tune: InThread, sweeper: Sweeper, screen: Screen) -> None:
    while not tune.wait(POLL_SECONDS):
        sweeper.bill.heartbeat()
        if sweeper.is_spent:
            _leave(sweeper, "the machines alone have cost the whole budget")
        screen.show()
    deadline = time.monotonic() + LEAVE_SECONDS
    while any(record.folder.is_busy() for record in sweeper.records):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    sweeper.bill.heartbeat(force=True)
    if isinstance(tune.error, (BadInput, RunFailure)):
        raise tune.error
    if tune.error is not None:
        raise RunFailure(f"the sweep broke: {tune.error}; --resume continues it") from tune.error


def _leave(sweeper: Sweeper, reason: str) -> None:
    """No trial starts any more; those that run save and leave."""
    (sweeper.folder / STOP_FILE).touch()
    sweeper.stop(reason)


def _story(sweep: Sweep, folder: Path, request: SweepRequest) -> Story | None:
    """What was done before; BadInput unless the command says what to do with it."""
    if request.resume and request.fresh:
        raise BadInput("--resume continues a sweep and --fresh starts anew; give one")
    if request.fresh:
        return None
    story = read_journal(folder)
    if story is None:
        return None
    if not request.resume and not request.dry_run:
        over = sum(entry.state in OVER for entry in story.entries)
        raise BadInput(
            f"{folder} holds a sweep already ({over} of {len(story.entries)} trials are over): "
            "--resume continues it, --fresh sets it aside, name=... in the file starts another"
        )
    changed = differences(story.tree, sweep.tree)
    if changed and request.resume:
        raise BadInput(
            f"{sweep.file} is not the sweep that was started in {folder}; put it back or start "
            "anew with --fresh:\n  " + "\n  ".join(changed)
        )
    return story


def _set_aside(folder: Path) -> None:
    if (folder / JOURNAL_FILE).exists():
        with locked(folder / SWEEP_LOCK):
            stamp = time.strftime("%Y%m%d-%H%M%S")
            folder.rename(folder.with_name(f"{folder.name}.old-{stamp}"))


def _order(sweeper: Sweeper, start: Start) -> Order:
    record, folder = start.record, sweeper.folder
    evaluated = record.folder.evaluations
    return Order(
        number=record.trial.number,
        run=str(folder_of(folder.name) / record.trial.name),
        run_dir=str(record.folder.path.resolve()),
        config_tree=to_tree(start.config),
        in_process=sweeper.sweep.in_processes,
        slot=start.slot,
        cpus=sweeper.sweep.resources.cpus,
        cwd=os.getcwd(),
        stop_file=str((folder / STOP_FILE).resolve()),
        max_restarts=start.config.cluster.max_restarts,
        seconds=start.seconds,
        reported_step=evaluated[-1]["step"] if evaluated else 0,
    )


def _open_mlflow(sweeper: Sweeper, note: Say) -> Any:
    if not sweeper.sweep.config.track.mlflow:
        return None
    from gpt2dist.sweep.report.mlflow import SweepMlflow
    from gpt2dist.track.mlflow_uri import tracking_uri

    return SweepMlflow(sweeper, tracking_uri(sweeper.sweep.config, os.environ), note)


def _draw(sweeper: Sweeper, best_point: int | None) -> None:
    from gpt2dist.sweep.report.picture import draw_sweep

    sweep = sweeper.sweep
    path = sweeper.folder / SWEEP_PICTURE_FILE
    draw_sweep(sweep.space, sweeper.records, best_point, path, sweep.name)


def _headline(sweep: Sweep, trials: Sequence[Trial]) -> str:
    points, seeds = point_count(sweep), len(sweep.seeds)
    count = f"{points * seeds} trials" + (
        f" ({points} points x {seeds} seeds)" if seeds > 1 else ""
    )
    early = f", {sweep.scheduler.kind} by {sweep.scheduler.by}" if sweep.stops_early else ""
    return (
        f"sweep {sweep.name}: {sweep.search.kind} search of {sweep.base}, {count} of "
        f"{human_count(max(trial.tokens for trial in trials))} tokens{early}, "
        f"{sweep.at_once} at once"
    )
