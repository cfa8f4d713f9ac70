"""Start the ranks of a scenario as processes and collect what each returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SCENARIOS = Path(__file__).with_name("scenarios.py")


def run_ranks(scratch: Path, name: str, world: int, **arguments: Any) -> list[Any]:
    """The scenario's result on every rank, by rank."""
    store = scratch / f"store-{name}-{world}-{len(list(scratch.iterdir()))}"
    environment = {**os.environ, "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCENARIOS), name, json.dumps(arguments), str(rank), str(world),
             str(store)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output
    return [json.loads(Path(f"{store}.{rank}.json").read_text()) for rank in range(world)]
