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

from gpt2dist.config.load import identity, run_name
from gpt2dist.config.schema import Config
from gpt2dist.data.prepare.pipeline import dataset_dir, prepare
from gpt2dist.data.prepare.progress import aloud
from gpt2dist.data.serve.validation import validation_batches
from gpt2dist.data.serve.windows import Windows
from gpt2dist.data.shards import Dataset, is_dataset_folder, load_dataset_folder, require
from gpt2dist.disk import locked
from gpt2dist.errors import BadInput, RunFailure, StorageRefused
from gpt2dist.human import human_count
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.placement import Placement, place
from gpt2dist.run_files import (
    DRIVER_LOCK,
    LEDGER_FILE,
    MANIFEST,
    checkpoint_folders,
    request_stop,
    requested_stop,
    write_error,
)
from gpt2dist.stop_signal import StopOnSignal
from gpt2dist.track.ledger import (
    OWN_MACHINE,
    PRICE_VARIABLE,
    Attempt,
    paid_since,
    price_usd_per_hour,
)
from gpt2dist.track.progress import Progress
from gpt2dist.train import ray_run, run_folder
from gpt2dist.train.conclude import (
    RunResult,
    already_finished,
    conclude,
    how_ended,
    mlflow_tracker,
)
from gpt2dist.train.job import Job
from gpt2dist.train.machine import probe_machine
from gpt2dist.train.predicted import prediction
from gpt2dist.train.watch import HeldFolder, Watcher
from gpt2dist.train.worker import train_alone

POLL_SECONDS = 0.2
UNHEARD_SECONDS = 5.0
"How long a request to stop is tried again where it cannot be written: who signals soon kills."


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
        raise BadInput(
            f"budget.usd={config.budget.usd:g} cannot be kept: this machine has no price; set "
            f"cluster.usd_per_hour (0 if it is free), {PRICE_VARIABLE}, or cluster.watts and "
            "cluster.usd_per_kwh"
        )
    placement = _place(config, launch)
    dataset = _dataset(config, launch, say)
    run_folder.set_up(run_dir, config, fresh=launch.fresh)
    if not launch.local:
        ray_run.connect()
    attempt_id = f"{int(started_at)}-{secrets.token_hex(3)}"
    since = paid_since(started_at, os.environ, run_dir / LEDGER_FILE)
    job = Job(
        config=config,
        placement=placement,
        run_dir=str(run_dir.resolve()),
        dataset_dir=str(Path(dataset.path).resolve()),
        attempt=Attempt.starting(attempt_id, since, price),
        use_ray=not launch.local,
        predicted=prediction(config, placement, price),
        val_tokens_per_byte=dataset.val_tokens_per_byte,
    )
    with locked(run_dir / DRIVER_LOCK, wait_seconds=5):
        run_folder.claim(run_dir, config)
        say(_headline(config, placement, run_dir, price[0]))
        with StopOnSignal(partial(_ask, run_dir)) as signals, ExitStack() as stack:
            tracked = config.track.mlflow and not launch.local
            mlflow = mlflow_tracker(run_dir, job) if tracked else None
            progress = stack.enter_context(Progress(config.total_steps))
            on_first_row = mlflow.start if mlflow else None
            watcher = Watcher(run_dir, attempt_id, progress, on_first_row)
            run = _train_here if launch.local else _train_on_ray
            error = run(job, watcher, signals)
            watcher.poll()
        return conclude(run_dir, job, how_ended(run_dir, error, signals), mlflow, say)


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


def _place(config: Config, launch: Launch) -> Placement:
    """Known before Ray starts, unless it is somebody's cluster that has to be asked."""
    if launch.local or not os.environ.get("RAY_ADDRESS"):
        return place(config, probe_machine(), single_process=launch.local)
    cluster = ray_run.connect()
    return place(config, cluster.machine, gpus=cluster.gpus, cores=cluster.cores)


def _dataset(config: Config, launch: Launch, say: Callable[[str], None]) -> Dataset:
    """The shards that the config describes, prepared first when they are missing."""
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
    return dataset


def _headline(config: Config, placement: Placement, run_dir: Path, usd_per_hour: float) -> str:
    found = checkpoint_folders(run_dir)
    begin = f"continuing at {found[0].name}" if found else "new run"
    price = f", ${usd_per_hour:g} per hour and machine" if usd_per_hour else ""
    return (
        f"{config.recipe}: {human_count(parameters(config.model))} parameters, "
        f"{human_count(config.train.tokens)} tokens in {config.total_steps:,} steps\n"
        f"{placement.workers} x {placement.device_name}, {placement.precision}, ZeRO "
        f"{placement.zero_stage}, {placement.micro_batch} x {config.model.context} tokens x "
        f"{placement.accumulation} accumulated{price}\n"
        f"{begin} in {run_dir} (identity {identity(config)[:8]})"
    )


def _ask(run_dir: Path, signal_name: str) -> bool:
    """Ask the workers to save and leave; False while the folder takes no file."""
    try:
        request_stop(run_dir, signal_name)
    except StorageRefused:
        return False
    return True


def _train_on_ray(job: Job, watcher: Watcher, signals: StopOnSignal) -> BaseException | None:
    run, run_dir = ray_run.start_training(job), Path(job.run_dir)
    folder, unheard_seconds = HeldFolder(run_dir), 0.0
    while not run.wait(POLL_SECONDS):
        watcher.poll()
        gone = folder.gone()
        if gone:
            return RunFailure(gone)  # Ray's processes end with this one
        if signals.name and requested_stop(run_dir) is None and not _ask(run_dir, signals.name):
            unheard_seconds += POLL_SECONDS
            if unheard_seconds > UNHEARD_SECONDS:
                said = f"{signals.name}; nothing is saved since the last checkpoint"
                return RunFailure(f"{said}: {run_dir} takes no files")
    return run.error


def _train_here(job: Job, watcher: Watcher, signals: StopOnSignal) -> BaseException | None:
    """The rank in this process, under the debugger's eyes; a thread follows its files."""
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
