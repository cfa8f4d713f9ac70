"""Machines that do not see one folder are named before the first step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# One rank, as a process of its own: RANK STORE RUN_DIR DATASET_DIR.
RANK = """
import json, socket, sys
import torch.distributed as dist
from gpt2dist.train.core.control import Control
from gpt2dist.config.load import resolve
from gpt2dist.track.attempts import Attempt
from gpt2dist.train.job import Job
from gpt2dist.train.ray_run import folders_are_shared

rank, store, run_dir, dataset_dir = sys.argv[1:]
socket.gethostname = lambda: f"host-{rank}"
dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=int(rank), world_size=2)
attempt = Attempt.starting("attempt", 0.0, (0.0, "own machine"))
job = Job(resolve("debug"), None, run_dir, dataset_dir, attempt, True)
print(json.dumps(folders_are_shared(job, Control())))
dist.destroy_process_group()
"""


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Two run folders and two dataset folders, of which one was prepared."""
    names = ("run", "other-run", "data", "empty")
    made = {name: tmp_path / name for name in names}
    for folder in made.values():
        folder.mkdir()
    (made["data"] / "manifest.json").touch()
    return made


@pytest.mark.parametrize(
    ("run", "data", "said"),
    [
        ("run", "data", None),
        ("other-run", "data", "paths.runs: {run} is not the same folder on host-1;"),
        ("run", "empty", "paths.data: there is no prepared data at {data} on host-1;"),
    ],
)
def test_every_rank_learns_what_one_machine_lacks(tmp_path, folders, run, data, said):
    """Rank 1 looks into other folders, as it would on a machine with disks of its own."""
    seen = [("run", "data"), (run, data)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store"),
             str(folders[seen[rank][0]]), str(folders[seen[rank][1]])],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    answers = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    assert answers == [said is None] * 2
    assert not list(tmp_path.glob("*/.shared*"))
    outcomes = [json.loads(path.read_text()) for path in tmp_path.glob("*/.outcome.json")]
    expected: list[dict[str, Any]] = []
    if said is not None:
        (outcome,) = outcomes
        assert outcome["reason"].startswith(said.format(**folders))
        expected = [{**outcome, "kind": "failed", "exit_code": 2}]
    assert outcomes == expected
