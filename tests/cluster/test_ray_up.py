"""The file for one's own machines is one that `ray up` takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FILE = Path(__file__).parents[2] / "cluster" / "ray_up_local.yaml"


@pytest.mark.parametrize("worker_ips", [[], ["192.168.1.11"]])
def test_ray_accepts_the_file_and_counts_its_machines(worker_ips):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(FILE.read_text())
    config["provider"]["worker_ips"] = worker_ips
    prepared = prepare_config(config)
    validate_config(prepared)
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(worker_ips)


def test_its_start_commands_know_only_options_of_ray_start():
    ray = str(Path(sys.executable).with_name("ray"))
    known = subprocess.run([ray, "start", "--help"], capture_output=True, text=True, check=True)
    config = yaml.safe_load(FILE.read_text())
    for command in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        words = command.partition(" start ")[2].split()
        assert len(words) > 5
        for word in words:
            option = re.fullmatch(r"(--[a-z-]+)(=\S+)?", word)
            assert option, word
            assert re.search(rf"^\s+{option[1]}\b", known.stdout, re.MULTILINE), word
