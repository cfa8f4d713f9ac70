"""The cluster script on one machine: what it refuses, and that it is Ray for one command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

TWO = {"NODE_RANK": "0", "NUM_NODES": "2", "NODE_IPS": "10.78.0.11\n10.78.0.12"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"NODE_RANK": "first"}, "NODE_RANK='first' is not a whole number"),
        ({"NUM_NODES": "0"}, "NUM_NODES=0"),
        ({**TWO, "NODE_RANK": "2"}, "NODE_RANK=2, but NUM_NODES=2: ranks go from 0 to 1"),
        ({**TWO, "NODE_IPS": "10.78.0.11"}, "NODE_IPS names 1 nodes, but NUM_NODES=2"),
        ({**TWO, "NODE_IPS": ""}, "NODE_IPS names 0 nodes, but NUM_NODES=2"),
        ({**TWO, "NODE_IPS": "10.78.0.11 no-such-host.invalid"}, "no-such-host.invalid has no"),
        ({**TWO, "NODE_IPS": "localhost 10.78.0.12"}, "rank 0 is at 127.0.0.1, where other"),
        ({**TWO, "NODE_IPS": "192.0.2.1 192.0.2.2"}, "has 192.0.2.1, the address of rank 0"),
        ({**TWO, "SKYPILOT_NODE_RANK": "x"}, "NODE_RANK='x'"),  # SkyPilot's come first
        ({"GPUS_PER_NODE": "-1"}, "GPUS_PER_NODE='-1'"),
        ({"RAY_CLUSTER_PORT": "80"}, "RAY_CLUSTER_PORT=80 is not within"),
    ],
)
def test_bad_variables_are_named_before_anything_starts(script, environment, variables, said):
    done = subprocess.run(
        [script, "touch", "/nowhere"],
        env={**environment, **variables},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_command_it_says_what_it_needs(script, environment):
    done = subprocess.run([script], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "SKYPILOT_NODE_RANK" in done.stderr


def test_one_machine_is_a_cluster_of_one(script, environment, ray_folder):
    """The command sees the GPUs it was promised; its exit code comes back and Ray is gone.

    And nobody else could reach it.
    """
    command = (
        "import os, psutil, ray\n"
        "from tests.train.command import reachable_from_elsewhere\n"
        "ray.init(address=os.environ['RAY_ADDRESS'], log_to_driver=False)\n"
        "port, every = os.environ['RAY_CLUSTER_PORT'], psutil.process_iter(['cmdline'])\n"
        "there = [process for process in every if port in str(process.info['cmdline'])]\n"
        "assert len(there) > 2, there\n"
        "open_to_others = reachable_from_elsewhere(there)\n"
        "assert not open_to_others, open_to_others\n"
        "assert len(ray.nodes()) == 1\n"
        "os._exit(40 + int(ray.cluster_resources()['GPU']))"
    )
    done = subprocess.run(
        [script, "python3", "-c", command],
        env={**environment, "GPUS_PER_NODE": "3", "RAY_CLUSTER_PORT": "6490"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 43, done.stderr
    assert f"Ray's logs stay in {ray_folder}/" in done.stderr
    words = [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    assert not [line for line in words if str(ray_folder) in line]
