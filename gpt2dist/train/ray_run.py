"""The only module that touches Ray's processes and Ray Train: connect, run the workers, leave.

Ray restarts lost workers; where they go on is decided by our own checkpoints alone, so nothing
of Ray's storage outlives a run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2dist.errors import BadInput, RunFailure, StorageRefused
from gpt2dist.plan.placement import Machine
from gpt2dist.ray_session import InThread, start_ray
from gpt2dist.run_files import MANIFEST, add_event, read_outcome, write_error, write_outcome
from gpt2dist.train.job import Job
from gpt2dist.train.machine import probe_machine

if TYPE_CHECKING:
    from gpt2dist.train.core.control import Control

VISIBLE_WITHIN_SECONDS = 5.0
"Network file systems may show a new file some seconds late."
JOIN_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class RayCluster:
    machine: Machine
    "One of the machines that will train."
    gpus: int
    cores: int
    machines: int = 1

    def used_by(self, workers: int) -> int:
        """Machines on which so many workers run: GPUs are filled one machine after the other."""
        return -(-workers // self.machine.gpus) if self.gpus else min(workers, self.machines)


def connect() -> RayCluster:
    """What the cluster that $RAY_ADDRESS names offers, or this machine under a Ray of its own."""
    start_ray(importing="ray.train.torch")
    machine = probe_machine()
    if not os.environ.get("RAY_ADDRESS"):
        return RayCluster(machine, machine.gpus, machine.cpu_cores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        if gpus and not machine.gpus:
            probe = ray.remote(num_gpus=1, num_cpus=0)(probe_machine)
            machine = ray.get(probe.remote())
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # A task sees only the GPUs that it was given.
        machine = replace(machine, gpus=max(int(node.get("GPU", 0)) for node in alive))
        # A node may offer more CPUs than it has cores, so that data tasks are admitted.
        cores = min(int(resources.get("CPU", 1)), len(alive) * machine.cpu_cores)
        return RayCluster(machine, gpus, cores, len(alive))


def machines() -> dict[str, str]:
    """Host names of the machines that Ray has now, by their address."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {node["NodeManagerAddress"]: node["NodeManagerHostname"] for node in nodes}


def placement_waits() -> bool:
    """Whether workers, of this run or another, wait for machines with room for them."""
    from ray.util import placement_group_table

    states = [group["state"] for group in placement_group_table().values()]
    return "PENDING" in states or "RESCHEDULING" in states


def leave() -> None:
    """Leave the cluster; workers that were never placed will not be."""
    import ray

    ray.shutdown()


def start_training(job: Job) -> InThread:
    """Ray Train with the workers of a job; what breaks it also stands in the run's error.log."""

    def fit() -> None:
        try:
            _fit(job)
        except BaseException as error:
            if ray.is_initialized():  # not the end of a wait
                write_error(Path(job.run_dir), error)
            raise _said_by_a_worker(error) or error from None

    import ray

    return InThread(fit, "ray-train")


def _fit(job: Job) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig

    logging.getLogger("ray").setLevel(logging.ERROR)
    # The driver keeps the deadline to join; should it ever not, Ray gives up by itself.
    join_seconds = 60 * job.config.cluster.join_minutes
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(join_seconds + JOIN_GRACE_SECONDS)
    restarts = job.config.cluster.max_restarts
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
                name=job.attempt.attempt_id,
                storage_path=storage,
                failure_config=FailureConfig(
                    max_failures=restarts, controller_failure_limit=restarts
                ),
                callbacks=[_presence(Path(job.run_dir))],
            ),
        ).fit()


def _said_by_a_worker(error: BaseException) -> BadInput | RunFailure | None:
    """The one line of a rank that could not write it down, out of Ray's report."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "_base_exc", failure)  # Ray 2.60 wraps it with its trace
        if isinstance(cause, (BadInput, RunFailure)):
            return cause
    return None


def _presence(run_dir: Path) -> Any:
    """A callback of Ray's controller, which notes in the run's events whether workers run."""
    from ray.train.v2._internal.execution.callback import ControllerCallback
    from ray.train.v2._internal.execution.controller import state

    without_workers = (
        state.InitializingState,
        state.SchedulingState,
        state.ReschedulingState,
        state.RestartingState,
    )

    class Presence(ControllerCallback):
        present = False

        def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
            present = not isinstance(current_state, without_workers)
            if present != self.present:
                with contextlib.suppress(StorageRefused):  # Ray would end the run for it
                    add_event(run_dir, workers=present)
                    self.present = present

    return Presence()


def _worker(arguments: dict[str, Any]) -> None:
    """What Ray Train runs in every worker process."""
    import ray.train.torch

    from gpt2dist.train.core.control import Control
    from gpt2dist.train.worker import train_rank

    job, control = arguments["job"], Control()
    if any(control.gather(read_outcome(Path(job.run_dir)) is not None)):
        return  # a rank has said why this run cannot go on; another try would say it again
    if not folders_are_shared(job, control):
        return
    os.environ["RAY_NODE_ID"] = ray.get_runtime_context().get_node_id()
    device = ray.train.torch.get_device()
    try:
        train_rank(job, local_rank=device.index or 0)
    except (BadInput, RunFailure):
        if control.world > 1 or read_outcome(Path(job.run_dir)) is None:
            raise  # other ranks may wait for this one, or nobody else says it: Ray has to


def folders_are_shared(job: Job, control: Control) -> bool:
    """Whether all machines see the run's folders; collective, before the first step.

    When False, the run's outcome names the machines that do not see a folder.
    """
    if control.world == 1:
        return True
    run_dir, dataset_dir = Path(job.run_dir), Path(job.dataset_dir)
    sign = run_dir / f".shared-{job.attempt.attempt_id}"
    control.from_root(sign.touch)
    host = socket.gethostname()
    seen = control.gather((host, _appears(sign), (dataset_dir / MANIFEST).exists()))
    blind = ", ".join(sorted({host for host, sees, _ in seen if not sees}))
    lacking = ", ".join(sorted({host for host, _, has in seen if not has}))
    if control.rank == 0:
        sign.unlink()
    trouble = None
    if blind:
        trouble = f"paths.runs: {run_dir} is not the same folder on {blind}"
    elif lacking:
        trouble = f"paths.data: there is no prepared data at {dataset_dir} on {lacking}"
    if trouble is not None and control.rank == 0:
        advice = (
            "on several machines, put paths.runs and paths.data on a disk that all of them share"
        )
        write_outcome(
            run_dir, kind="failed", reason=f"{trouble}; {advice}", exit_code=BadInput.exit_code
        )
    return trouble is None


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + VISIBLE_WITHIN_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
