"""The only module that touches Ray's processes and Ray Train: connect, run the workers, leave.

Ray restarts lost workers; where they go on is decided by our own checkpoints alone, so nothing
of Ray's storage outlives a run.
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import threading
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.plan.placement import Machine
from gpt2dist.train import run_folder
from gpt2dist.train.core.control import Control
from gpt2dist.train.in_thread import InThread
from gpt2dist.train.machine import probe_machine
from gpt2dist.train.shared_folders import folders_are_shared

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # the default finds a dead worker 2 s later
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a deprecation warning
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",  # nobody scrapes them; the rows are ours
}
_OWN_CLUSTER_ENVIRONMENT = {
    # One process less to start: a Ray of our own on one machine never announces a preemption.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass(frozen=True)
class RayCluster:
    machine: Machine
    "One of the machines that will train."
    gpus: int
    cores: int


def connect() -> RayCluster:
    """Join the cluster that $RAY_ADDRESS names, or start one on this machine.

    A stray cluster on the machine is never joined: only an explicit address counts.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAY_ADDRESS"):
        for name, value in _OWN_CLUSTER_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        machine = probe_machine()
        address = os.environ.get("RAY_ADDRESS")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if ray.is_initialized():
                pass
            elif address:
                ray.init(address=address, **quiet)
            else:
                # Workers hold a CPU each and the data tasks need some of their own.
                cpus = max(4, machine.cpu_cores, 2 * machine.gpus)
                # Importing Ray Train takes seconds; starting Ray mostly waits.
                threading.Thread(target=importlib.import_module, args=("ray.train.torch",)).start()
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RunFailure(f"cannot reach Ray at {address or 'this machine'}: {error}") from None
        if not address:
            return RayCluster(machine, machine.gpus, machine.cpu_cores)
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        if gpus and not machine.gpus:
            probe = ray.remote(num_gpus=1, num_cpus=0)(probe_machine)
            machine = ray.get(probe.remote())
        # A node may offer more CPUs than it has cores, so that data tasks are admitted.
        machines = sum(node["Alive"] for node in ray.nodes())
        cores = min(int(resources.get("CPU", 1)), machines * machine.cpu_cores)
        return RayCluster(machine, gpus, cores)


def start_training(job: Any, max_restarts: int) -> InThread:
    """Ray Train with the workers of a job; what breaks it also stands in the run's error.log."""

    def fit() -> None:
        try:
            _fit(job, max_restarts)
        except BaseException as error:
            log = Path(job.run_dir) / "error.log"
            log.write_text("".join(traceback.format_exception(error)))
            raise

    return InThread(fit, "ray-train")


def _fit(job: Any, max_restarts: int) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray").setLevel(logging.ERROR)
    cuda = job.placement.device == "cuda"
    # On a cluster the other machines must see Ray Train's notes too.
    shared = job.run_dir if os.environ.get("RAY_ADDRESS") else None
    with tempfile.TemporaryDirectory(
        prefix=".ray-", dir=shared, ignore_cleanup_errors=True
    ) as storage:
        TorchTrainer(
            _worker,
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=job.placement.workers,
                use_gpu=cuda,
                # GPUs of one machine talk fastest; CPU workers of one machine share its cores.
                placement_strategy="PACK" if cuda else "SPREAD",
            ),
            run_config=RunConfig(
                name=job.attempt_id,
                storage_path=storage,
                failure_config=FailureConfig(max_failures=max_restarts),
            ),
        ).fit()


def _worker(arguments: dict[str, Any]) -> None:
    """What Ray Train runs in every worker process."""
    import ray.train
    import ray.train.torch

    from gpt2dist.train.worker import train_rank

    job, control = arguments["job"], Control()
    if any(control.gather(run_folder.read_outcome(Path(job.run_dir)) is not None)):
        return  # a rank has said why this run cannot go on; another try would say it again
    if not folders_are_shared(job, control):
        return
    os.environ["RAY_NODE_ID"] = ray.get_runtime_context().get_node_id()
    device = ray.train.torch.get_device()
    try:
        train_rank(job, local_rank=device.index or 0)
    except (BadInput, RunFailure):
        if ray.train.get_context().get_world_size() > 1:
            raise  # other ranks may wait for this one; Ray has to end them
