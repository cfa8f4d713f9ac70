"""How many cores Ray is told of, and who can reach it."""

import os
import subprocess
import sys

import psutil

from gpt2dist.ray_session import usable_cores
from tests.train.command import reachable_from_elsewhere

BOUND = """
import os
from gpt2dist.ray_session import usable_cores
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(usable_cores(), os.cpu_count())
"""


def test_cores_are_those_that_the_process_may_use():
    assert usable_cores() == len(os.sched_getaffinity(0))
    bound = subprocess.run(
        [sys.executable, "-c", BOUND], capture_output=True, text=True, check=True
    )
    assert bound.stdout == f"1 {os.cpu_count()}\n"  # noqa: TID251


def test_nobody_else_reaches_the_ray_of_one_machine(ray_cluster):
    import ray

    task = ray.remote(lambda: os.getpid())
    workers = {ray.get(task.remote())}
    family = psutil.Process().children(recursive=True)
    assert workers <= {process.pid for process in family}
    names = {process.name() for process in family}
    assert {"gcs_server", "raylet"} <= names
    assert reachable_from_elsewhere([psutil.Process(), *family]) == []
