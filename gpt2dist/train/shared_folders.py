"""Find out before the first step whether all machines of a run see the same folders."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from gpt2dist.errors import BadInput
from gpt2dist.train import run_folder
from gpt2dist.train.core.control import Control
from gpt2dist.train.worker import Job

VISIBLE_WITHIN_SECONDS = 5.0
"Network file systems may show a new file some seconds late."


def folders_are_shared(job: Job, control: Control) -> bool:
    """Collective. When False, the run's outcome names the machines that do not see a folder."""
    if control.world == 1:
        return True
    run_dir, dataset_dir = Path(job.run_dir), Path(job.dataset_dir)
    sign = run_dir / f".shared-{job.attempt_id}"
    control.from_root(sign.touch)
    host = socket.gethostname()
    blind = {host for host, sees in control.gather((host, _appears(sign))) if not sees}
    bare = control.gather((host, (dataset_dir / "manifest.json").exists()))
    lacking = {host for host, has in bare if not has}
    if control.rank == 0:
        sign.unlink()
    trouble = None
    if blind:
        trouble = f"paths.runs: {run_dir} is not the same folder on {_names(blind)}"
    elif lacking:
        trouble = f"paths.data: there is no prepared data at {dataset_dir} on {_names(lacking)}"
    if trouble is not None and control.rank == 0:
        advice = (
            "on several machines, put paths.runs and paths.data on a disk that all of them share"
        )
        run_folder.write_outcome(
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


def _names(hosts: set[str]) -> str:
    return ", ".join(sorted(hosts))
