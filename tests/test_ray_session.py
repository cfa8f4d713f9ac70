"""How many cores Ray is told of, and who can reach it."""

import ipaddress
import os
import subprocess
import sys

import psutil

from gpt2dist.ray_session import usable_cores

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
    assert bound.stdout == f"1 {os.cpu_count()}\n"


def test_nobody_else_reaches_the_ray_of_one_machine(ray_cluster):
    import ray

    task = ray.remote(os.getpid)
    workers = {ray.get(task.remote())}
    family = psutil.Process().children(recursive=True)
    assert workers <= {process.pid for process in family}
    sockets = [
        (ipaddress.IPv6Address(address) if ":" in address else ipaddress.IPv4Address(address), name)
        for process in [psutil.Process(), *family]
        for address, name in _listening(process)
    ]
    assert {"gcs_server", "raylet"} <= {name for _, name in sockets}
    assert [name for address, name in sockets if not _is_loopback(address)] == []


def _listening(process: psutil.Process) -> list[tuple[str, str]]:
    name = process.name()
    return [
        (found.laddr.ip, name)
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    ]


def _is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
