"""`gpt2dist tune`: from a sweep file to a finished sweep, or to the line that says why not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpt2dist.disk import locked
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.ray_session import InThread
from gpt2dist.run_files import STOP_FILE, SWEEP_LOCK
from gpt2dist.stop_signal import StopOnSignal
from gpt2dist.sweep.cost.estimate import Pricing, SweepEstimate, pricing_here, pricing_on
from gpt2dist.sweep.report.results import RESULT_FILES, end_lines, write_results
from gpt2dist.sweep.report.terminal import LiveTable, headline, plan_lines, table_lines
from gpt2dist.sweep.search.ray_tune import start_trials
from gpt2dist.sweep.search.sweeper import Sweeper
from gpt2dist.sweep.spec.sweep_file import changes, load_sweep
from gpt2dist.sweep.trial.journal import Journal
from gpt2dist.sweep.trial.trial import planned_trials

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

    def say_plan(pricing: Pricing) -> None:
        plan = SweepEstimate.of(sweep, [trial.config for trial in trials], pricing)
        for line in plan_lines(trials, plan):
            say(line)
        for note in plan.budget_notes(sweep):
            say(f"note: {note}")

    for line in headline(trials):
        say(line)
    if request.dry_run and sweep.hardware is not None:
        say_plan(pricing_on(sweep, sweep.hardware))
        return 0
    if request.resume and request.fresh:
        raise BadInput("--resume continues a sweep and --fresh starts anew; give one")
    if not request.fresh:
        _require_fitting(Journal(sweep), request)
    from gpt2dist.sweep.cost.machines import Machines

    machines = Machines.here(start_ray=not request.dry_run)
    machines.require_room(sweep)
    pricing = pricing_here(sweep, machines.machine, machines.gpus_per_machine)
    say_plan(pricing)
    if request.dry_run:
        return 0
    machines.prepare_data([trial.config for trial in trials], say)
    folder = sweep.folder
    if request.fresh and Journal(sweep).path.exists():
        with locked(folder / SWEEP_LOCK):
            stamp = time.strftime("%Y%m%d-%H%M%S")
            folder.rename(folder.with_name(f"{folder.name}.old-{stamp}"))
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / SWEEP_LOCK):
        (folder / STOP_FILE).unlink(missing_ok=True)
        journal = Journal(sweep)
        journal.open()
        sweeper = Sweeper(journal, pricing)
        if not sweeper.is_over:
            sweeper.ledger.open(sweep.config.cluster, machines.count, os.environ)
            machines.connect()  # before the signal handlers: Ray installs its own
        return _run(sweeper, say)


def _run(sweeper: Sweeper, say: Say) -> int:
    table = LiveTable(sweeper)
    mlflow = None
    if sweeper.sweep.config.track.mlflow:
        from gpt2dist.sweep.report.mlflow import SweepMlflow

        mlflow = SweepMlflow(sweeper, table.note)
    with StopOnSignal(sweeper.stop) as signals:
        if not sweeper.is_over:
            _follow(start_trials(sweeper), sweeper, table)
    table.show(last=True)
    ended = "interrupted" if signals.received else "budget" if sweeper.stop_reason else "finished"
    summary = write_results(sweeper, ended)
    if mlflow is not None:
        files = [sweeper.folder / name for name in RESULT_FILES]
        mlflow.close(summary, files, "KILLED" if signals.received else "FINISHED")
    for line in [] if table.is_live else table_lines(sweeper):
        say(line)
    for line in end_lines(sweeper, summary):
        say(line)
    if signals.received is not None:
        return signals.exit_code
    return 1 if any(record.state == "failed" for record in sweeper.records) else 0


def _follow(tune: InThread, sweeper: Sweeper, table: LiveTable) -> None:
    while not tune.wait(POLL_SECONDS):
        sweeper.ledger.heartbeat()
        if sweeper.is_spent:
            sweeper.stop("the machines alone have cost the whole budget")
        table.show()
    deadline = time.monotonic() + LEAVE_SECONDS
    while any(record.is_busy() for record in sweeper.records) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    sweeper.ledger.heartbeat(force=True)
    if isinstance(tune.error, (BadInput, RunFailure)):
        raise tune.error
    if tune.error is not None:
        raise RunFailure(f"the sweep broke: {tune.error}; --resume continues it") from tune.error


def _require_fitting(journal: Journal, request: SweepRequest) -> None:
    """BadInput unless the command says what to do with a sweep that was started before."""
    sweep, records = journal.sweep, journal.records
    if journal.tree is None or request.dry_run:
        return
    if not request.resume:
        over = sum(record.is_over for record in records)
        raise BadInput(
            f"{journal.folder} holds a sweep already ({over} of {len(records)} trials are over): "
            "--resume continues it, --fresh sets it aside, name=... in the file starts another"
        )
    changed = changes(journal.tree, sweep.tree)
    if changed:
        raise BadInput(
            f"{sweep.file} is not the sweep that was started in {journal.folder}; put it back or "
            f"start anew with --fresh: {'; '.join(changed)}"
        )
