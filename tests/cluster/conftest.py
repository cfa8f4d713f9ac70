"""The cluster script, an environment to run it in, and shards to learn from."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def script() -> str:
    return str(ROOT / "cluster" / "ray_cluster.sh")


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sockets and logs; sockets want a short path."""
    with tempfile.TemporaryDirectory(prefix="gpt2dist-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def environment(ray_folder) -> dict[str, str]:
    """`ray`, `python3` and `gpt2dist` of these tests, and no node of any other cluster."""
    foreign = ("SKYPILOT_", "NODE_", "NUM_NODES", "GPUS_PER_NODE", "RAY_", "GLOO_", "NCCL_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    programs = str(Path(sys.executable).parent)
    path = f"{programs}:{kept['PATH']}"
    return {**kept, "PATH": path, "RAY_CLUSTER_TMP": str(ray_folder)}


@pytest.fixture(scope="session")
def letters(tmp_path_factory) -> Path:
    """Some 40,000 bytes of twelve letters, prepared by the command line."""
    from gpt2dist.cli.main import main

    folder = tmp_path_factory.mktemp("letters")
    source = folder / "text"
    source.mkdir()
    draw = np.random.default_rng(0)
    for number in range(40):
        (source / f"{number}.txt").write_text("".join(draw.choice(list("etaoin shrdl"), 1000)))
    words = ["data", "prepare", str(source), "--out", str(folder / "shards"), "--local"]
    assert main([*words, "--tokenizer", "bytes", "--val-fraction", "0.1"]) == 0
    return folder / "shards"
