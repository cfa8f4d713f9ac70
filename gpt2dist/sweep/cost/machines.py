"""The machines of a sweep: what they offer, whether its trials fit, the data they all read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2dist.config.schema import Config
from gpt2dist.data.prepare.pipeline import dataset_dir, prepare
from gpt2dist.data.prepare.progress import aloud
from gpt2dist.data.shards import load_dataset_folder, require
from gpt2dist.errors import BadInput
from gpt2dist.plan.placement import Machine
from gpt2dist.sweep.spec.sweep import Resources, Sweep
from gpt2dist.train import ray_run
from gpt2dist.train.machine import probe_machine

CHILDREN_LIVE_ON = ("RAY_kill_child_processes_on_worker_exit", "false")
"""Else Ray's workers kill -9 what they started when they end, and a trial could not save."""


@dataclass(frozen=True)
class Machines:
    machine: Machine
    "One of them; the others are taken for like it."
    gpus_per_machine: int
    gpus: int
    cores: int

    @classmethod
    def here(cls, start_ray: bool) -> Machines:
        """This machine, or the Ray cluster that $RAY_ADDRESS names."""
        if os.environ.get("RAY_ADDRESS") and start_ray:
            os.environ.setdefault(*CHILDREN_LIVE_ON)
            cluster = ray_run.connect()
            gpus = cluster.machine.gpus or cluster.gpus
            return cls(cluster.machine, gpus, cluster.gpus, cluster.cores)
        machine = probe_machine()
        return cls(machine, machine.gpus, machine.gpus, machine.cpu_cores)

    @property
    def count(self) -> int:
        if self.gpus_per_machine:
            return max(1, round(self.gpus / self.gpus_per_machine))
        return max(1, round(self.cores / self.machine.cpu_cores))

    def require_room(self, sweep: Sweep) -> None:
        """Raises BadInput for trials that could only wait forever."""
        for problem in self._problems(sweep.resources, sweep):
            raise BadInput(f"{problem} (in {sweep.file})")

    def _problems(self, asked: Resources, sweep: Sweep) -> Iterator[str]:
        at_once, here, gpus = sweep.at_once, self.gpus, f"resources.gpus={asked.gpus:g}"
        if asked.gpus > here:
            yield f"{gpus}: a trial needs more than the {here} GPUs here and would wait forever"
        elif asked.gpus and at_once > int(here / asked.gpus + 1e-9):
            yield (
                f"at_once={at_once} trials of {gpus} need more than the {here} GPUs here; use "
                f"sweep.at_once={int(here / asked.gpus + 1e-9)}"
            )
        elif not asked.gpus and here and sweep.config.cluster.device != "cpu":
            yield (
                f"resources.gpus is 0, but there are {here} GPUs here; set resources.gpus, or "
                "cluster.device=cpu to leave them alone"
            )
        if sweep.in_processes and at_once * asked.cpus > self.cores:
            most = self.cores // asked.cpus
            hint = f"use sweep.at_once={most}" if most else f"resources.cpus={self.cores} at most"
            yield (
                f"at_once={at_once} trials of resources.cpus={asked.cpus} need more than the "
                f"{self.cores} cores here; {hint}"
            )

    def prepare_data(self, configs: Iterable[Config], say: Callable[[str], None]) -> None:
        """Prepare what is missing once, before several trials would do it at the same time."""
        folders = {
            Path(config.paths.dataset or dataset_dir(config.paths.data, config.data)): config
            for config in configs
        }
        for folder, config in folders.items():
            if not (folder / "manifest.json").exists() and config.paths.dataset is None:
                say(f"no prepared data at {folder}: preparing {config.data.source} first")
                local = not os.environ.get("RAY_ADDRESS")
                prepare(config.data, folder, local=local, progress=aloud(say))
            if Path(config.data.source) != folder:
                require(load_dataset_folder(folder), config.data)

    def connect(self) -> None:
        """Join or start Ray."""
        os.environ.setdefault(*CHILDREN_LIVE_ON)
        ray_run.connect()
