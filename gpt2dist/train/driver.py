"""From a config to a finished run: plan the placement, prepare data, start workers, watch them.

The driver owns what people see: the progress line, MLflow, the summary and the curve. The workers
own the run itself; they go on from files alone, so a driver that dies loses nothing.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gpt2dist.config.load import dump, identity, run_name
from gpt2dist.config.schema import Config
from gpt2dist.data.shards import Dataset, is_dataset_folder, load_dataset_folder, require
from gpt2dist.data.show import remarks
from gpt2dist.disk import write_atomically
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.human import human_count, human_duration, usd
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.placement import Placement, place
from gpt2dist.run_files import (
    CONFIG_FILE,
    LEDGER_FILE,
    MANIFEST,
    OUTCOME_FILE,
    checkpoint_folders,
    write_error,
)
from gpt2dist.stop_signal import StopOnSignal
from gpt2dist.track.attempts import Attempt
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import (
    OWN_MACHINE,
    Ledger,
    no_price,
    paid_since,
    price_usd_per_hour,
    shortfall,
)
from gpt2dist.track.mlflow_log import MlflowTracker
from gpt2dist.track.progress import Progress
from gpt2dist.train import ray_run, run_folder
from gpt2dist.train.conclude import (
    HowEnded,
    RunResult,
    already_finished,
    conclude,
    how_ended,
    mlflow_tracker,
    stopped_before_start,
)
from gpt2dist.train.job import Job
from gpt2dist.train.machine import probe_machine
from gpt2dist.train.predicted import prediction
from gpt2dist.train.waiting import Waiting
from gpt2dist.train.watch import HeldFolder, Watcher, pass_on

POLL_SECONDS = 0.2
LEAVE_SECONDS = 10.0


@dataclass(frozen=True)
class Launch:
    """What the command line adds to a config."""

    name: str | None = None
    fresh: bool = False
    local: bool = False
    started_at: float = 0.0
    "Unix time of the command; setup is paid for too."


def train(config: Config, launch: Launch, say: Callable[[str], None] = print) -> RunResult:
    """Train a config to its end, its budget or a signal; the same call continues it.

    Raises BadInput before anything is started or written, RunFailure when the run breaks.
    """
    started_at = launch.started_at or time.time()
    config = _adopt_dataset(config)
    run_dir = Path(config.paths.runs) / (launch.name or run_name(config))
    done = None if launch.fresh else already_finished(run_dir, config, say)
    if done is not None:
        return done
    price = price_usd_per_hour(config.cluster, os.environ)
    if config.budget.usd is not None and price[1] == OWN_MACHINE:
        raise no_price(f"budget.usd={config.budget.usd:g}")
    attempt_id = f"{int(started_at)}-{secrets.token_hex(3)}"
    with run_folder.taken(run_dir, config, fresh=launch.fresh):
        since = paid_since(started_at, os.environ, run_dir / LEDGER_FILE)
        known = run_folder.vouched(run_dir)
        ledger = _open_ledger(run_dir, Attempt.starting(attempt_id, since, price), known, say)
        with ledger.kept(until=(run_dir / OUTCOME_FILE).exists):
            if known is not None:
                run_folder.restore_rows(run_dir, config, known, say)
            step = known.state["step"] if known else 0
            over = _over_budget(config, run_dir, step, ledger)
            if over is None:
                job = _prepare(config, launch, run_dir, ledger, say)
                over = _over_budget(config, run_dir, step, ledger)
            if over is None:
                ended, mlflow = _attend(job, ledger)
        if over is not None:
            return stopped_before_start(run_dir, over, say)
        return conclude(run_dir, job, ended, mlflow, say)


def _open_ledger(
    run_dir: Path, attempt: Attempt, known: run_folder.Vouched | None, say: Callable[[str], None]
) -> Ledger:
    """With what a checkpoint vouches for and the file has lost."""
    path = run_dir / LEDGER_FILE
    lost = shortfall(path, known.spent, known.by, attempt) if known else None
    if known and lost:
        dollars = f" and {usd(lost.seconds * lost.usd_per_second)}" if lost.usd_per_hour else ""
        say(
            f"WARNING: {path} lacks {human_duration(lost.seconds)}{dollars} of what {known.by} "
            "vouches for; they are counted again, with it as their source"
        )
    return Ledger.open(path, attempt, lost=lost)


def _over_budget(config: Config, run_dir: Path, step: int, ledger: Ledger) -> str | None:
    """Why not even a start is paid for; None also where nothing is left to train.

    `step` is that of the newest checkpoint, which counts for a limit of tokens if it is whole.
    """
    tokens, guard = config.train.batch_tokens, BudgetGuard(config.budget, ledger)
    if step >= config.total_steps:
        return None
    over = guard.reason(step * tokens, tokens, seconds_reserve=0.0)
    if over is None or guard.reason(0, 0, seconds_reserve=0.0) is not None:
        return over
    from gpt2dist.train.core.checkpoint import newest_valid

    whole = newest_valid(run_dir, lambda damage: None)
    return guard.reason(whole.state.step * tokens if whole else 0, tokens, seconds_reserve=0.0)


def _prepare(
    config: Config, launch: Launch, run_dir: Path, ledger: Ledger, say: Callable[[str], None]
) -> Job:
    """Everything that a run needs before its workers start; BadInput for what cannot run."""
    placement = _place(config, launch, ledger)
    dataset = _dataset(config, launch, say)
    if not launch.local:
        ray_run.connect()
    attempt = ledger.attempts[-1]
    price = attempt.usd_per_hour, attempt.price_source
    job = Job(
        config=config,
        placement=placement,
        run_dir=str(run_dir.resolve()),
        dataset_dir=str(Path(dataset.path).resolve()),
        attempt=attempt,
        use_ray=not launch.local,
        predicted=prediction(config, placement, price),
        val_tokens_per_byte=dataset.val_tokens_per_byte,
    )
    write_atomically(run_dir / CONFIG_FILE, dump(config))
    say(_headline(config, placement, run_dir, price))
    return job


def _attend(job: Job, ledger: Ledger) -> tuple[HowEnded, MlflowTracker | None]:
    """Start the workers and watch them to their end."""
    run_dir = Path(job.run_dir)
    with StopOnSignal(partial(pass_on, run_dir)) as signals, ExitStack() as stack:
        mlflow = mlflow_tracker(run_dir, job) if job.config.track.mlflow and job.use_ray else None
        progress = stack.enter_context(Progress(job.config.total_steps))
        on_first_row = mlflow.start if mlflow else None
        watcher = Watcher(run_dir, job.attempt.attempt_id, progress, on_first_row)
        if job.use_ray:
            waiting = Waiting(job, ledger, progress.note)
            error = _train_on_ray(job, watcher, waiting, signals)
        else:
            error = _train_here(job, watcher, signals)
        watcher.poll()
        return how_ended(run_dir, error, signals), mlflow


def _adopt_dataset(config: Config) -> Config:
    """A config whose source is a prepared folder takes that folder's own description.

    The run's identity then says what text it learns from, not where that lies on one machine.
    """
    folder = config.data.source
    if config.paths.dataset is None and is_dataset_folder(folder):
        made = load_dataset_folder(folder)
        data = replace(
            config.data,
            source=made.source,
            text_field=made.text_field,
            max_documents=made.max_documents,
            val_fraction=made.val_fraction,
        )
        paths = replace(config.paths, dataset=folder)
        return replace(config, data=data, paths=paths)
    return config


def _place(config: Config, launch: Launch, ledger: Ledger) -> Placement:
    """Known before Ray starts, unless it is somebody's cluster that has to be asked."""
    if launch.local or not os.environ.get("RAY_ADDRESS"):
        return place(config, probe_machine(), single_process=launch.local)
    cluster = ray_run.connect()
    placement = place(config, cluster.machine, gpus=cluster.gpus, cores=cluster.cores)
    ledger.recount(cluster.used_by(placement.workers))
    return placement


def _dataset(config: Config, launch: Launch, say: Callable[[str], None]) -> Dataset:
    """The shards that the config describes, prepared first when they are missing."""
    from gpt2dist.data.prepare.pipeline import dataset_dir, prepare
    from gpt2dist.data.prepare.progress import aloud
    from gpt2dist.data.serve.validation import validation_batches
    from gpt2dist.data.serve.windows import Windows

    folder = Path(config.paths.dataset or dataset_dir(config.paths.data, config.data))
    if not (folder / MANIFEST).exists() and config.paths.dataset is None:
        say(f"no prepared data at {folder}: preparing {config.data.source} first")
        if not launch.local:
            ray_run.connect()  # else the preparation would start a Ray of its own
        prepare(config.data, folder, local=launch.local, progress=aloud(say))
    dataset = load_dataset_folder(folder)
    require(dataset, config.data)
    Windows(dataset, "train", config.model.context).require_batch(config.batch_sequences)
    validation_batches(Windows(dataset, "val", config.model.context), 1, config.eval.tokens)
    for remark in remarks(dataset, config.model.context):
        say(remark)
    return dataset


def _headline(config: Config, placement: Placement, run_dir: Path, price: tuple[float, str]) -> str:
    found = checkpoint_folders(run_dir)
    begin = f"continuing at {found[0].name}" if found else "new run"
    dollars, source = price
    hourly = "price unknown" if source == OWN_MACHINE else f"${dollars:g} per hour and machine"
    return (
        f"{config.recipe}: {human_count(parameters(config.model))} parameters, "
        f"{human_count(config.train.tokens)} tokens in {config.total_steps:,} steps\n"
        f"{placement.workers} x {placement.device_name}, {placement.precision}, ZeRO "
        f"{placement.zero_stage}, {placement.micro_batch} x {config.model.context} tokens x "
        f"{placement.accumulation} accumulated, {hourly}\n"
        f"{begin} in {run_dir} (identity {identity(config)[:8]})"
    )


def _train_on_ray(
    job: Job, watcher: Watcher, waiting: Waiting, signals: StopOnSignal
) -> BaseException | None:
    run, folder = ray_run.start_training(job), HeldFolder(Path(job.run_dir))
    while not run.wait(POLL_SECONDS):
        watcher.poll()
        cut_off = folder.gone() or folder.unheard(signals.name)
        if cut_off:
            return RunFailure(cut_off)  # Ray's processes end with this one
        placed = watcher.stage != "waiting" or not ray_run.placement_waits()
        if waiting.is_over(ray_run.machines(), watcher.stage, placed):
            ray_run.leave()
            run.wait(LEAVE_SECONDS)
            return None
    return run.error


def _train_here(job: Job, watcher: Watcher, signals: StopOnSignal) -> BaseException | None:
    """The rank in this process, under the debugger's eyes; a thread follows its files."""
    from gpt2dist.train.worker import train_alone

    over = threading.Event()

    def follow() -> None:
        while not over.wait(POLL_SECONDS):
            watcher.poll()

    thread = threading.Thread(target=follow, name="watcher", daemon=True)
    thread.start()
    try:
        train_alone(job, asked=lambda: signals.name)
    except Exception as error:
        if not isinstance(error, (BadInput, RunFailure)):
            write_error(Path(job.run_dir), error)
        return error
    finally:
        over.set()
        thread.join()
    return None
