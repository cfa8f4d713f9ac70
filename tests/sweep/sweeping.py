"""Run `gpt2dist tune` as a process to be hurt, on models of a few thousand parameters.

The process is forked from one that has imported Ray Tune already: importing it is seconds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

from gpt2dist.sweep.spec.sweep import Sweep
from gpt2dist.sweep.spec.sweep_file import load_sweep
from tests.train.command import DEADLINE_SECONDS, TINY, rows_of

BATCH_TOKENS = 128
USD_PER_SECOND = 1.0
"Of the machine; trials that run two at once pay half of it each."

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "gpt2dist.sweep.run",
        "gpt2dist.sweep.cost.machines",
        "gpt2dist.sweep.report.loss_picture",
        "gpt2dist.train.driver",
        "matplotlib.backends.backend_agg",
        "ray.tune",
    ]
)


class Tune:
    """One `gpt2dist tune ...` in a process of its own, its output in a file."""

    def __init__(self, file: Path, environ: dict[str, str] | None = None, **request: Any) -> None:
        self._log = file.with_name(f"{len(list(file.parent.glob('*.log')))}.log")
        self._log.touch()
        arguments = (str(file), request, str(self._log), environ or {})
        self.process = _forks.Process(target=_run, args=arguments)
        self.process.start()
        self.family: list[psutil.Process] = []

    @property
    def said(self) -> str:
        return self._log.read_text()

    def is_alive(self) -> bool:
        assert self.process.is_alive(), self.said
        return True

    def ends_with(self, code: int) -> Tune:
        """Waits for the end; a negative code is the signal that killed it."""
        self.process.join(DEADLINE_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode == code, self.said
        return self

    def kill(self) -> None:
        """kill -9; the processes of its trials are remembered."""
        self.family = self._trial_processes()
        self.process.kill()
        self.process.join()

    def trial_process(self, run_dir: Path) -> psutil.Process:
        """The process that trains in this folder."""
        return next(child for child in self._trial_processes() if _writes(child, run_dir))

    def _trial_processes(self) -> list[psutil.Process]:
        assert self.process.pid is not None
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in below if "gpt2dist.sweep.trial.process" in _words(child)]


def sweep_of(folder: Path, **tree: Any) -> Sweep:
    """A sweep over four rates of the debug recipe, read from a file, for tests without trials."""
    file = folder / "s.yaml"
    space = {"optim.peak_lr": {"grid": [1e-3, 2e-3, 3e-3, 4e-3]}}
    fixed = {"paths.runs": str(folder / "runs"), **tree.pop("set", {})}
    whole = {"base": "debug", "set": fixed, "space": space, **tree}
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    return load_sweep(str(file))


def write_sweep(folder: Path, shards: Path, steps: int, **tree: Any) -> Path:
    """A sweep over tiny models; every value but the swept ones is that of the tests of training."""
    settings = dict(word.split("=", 1) for word in TINY)
    settings |= {
        "train.tokens": str(steps * BATCH_TOKENS),
        "eval.sample_every_steps": "null",
        "eval.tokens": "256",
        "data.source": str(shards.parent / "text"),
        "data.val_fraction": "0.1",
        "paths.dataset": str(shards),
        "paths.runs": str(folder / "runs"),
        "track.mlflow": "false",
        "cluster.usd_per_hour": str(USD_PER_SECOND * 3600),
    }
    fixed = {key: yaml.safe_load(value) for key, value in settings.items()}
    file = folder / "sweep.yaml"
    base = {"base": "debug", "set": fixed | tree.pop("set", {})}
    file.write_text(yaml.safe_dump({**base, **tree}, sort_keys=False))
    return file


def sweep_dir(file: Path) -> Path:
    return file.parent / "runs" / "sweeps" / file.stem


def trial_dirs(file: Path) -> list[Path]:
    return sorted(path.parent for path in sweep_dir(file).glob("*/config.yaml"))


def trial_dir(file: Path, number: int) -> Path | None:
    return next(sweep_dir(file).glob(f"{number:03d}-*"), None)


def states(file: Path) -> dict[int, str]:
    """What the journal says last of every trial."""
    lines = (sweep_dir(file) / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return {event["trial"]: event["state"] for event in events if event["event"] == "state"}


def spent_usd(file: Path) -> float:
    """By the ledgers of all trials, whatever the sweep itself says."""
    total = 0.0
    for run_dir in trial_dirs(file):
        for attempt in json.loads((run_dir / "ledger.json").read_text())["attempts"]:
            seconds = attempt["last_seen_at"] - attempt["started_at"]
            total += seconds * attempt["machines"] * attempt["usd_per_hour"] / 3600
    return total


def interval_usd(file: Path, at_once: int) -> float:
    """What one logging interval of the running trials may cost: the longest there was."""
    longest = []
    for run_dir in trial_dirs(file):
        costs = [row["usd"] for row in rows_of(run_dir)]
        longest.append(max((b - a for a, b in pairwise(costs)), default=0.0))
    return sum(sorted(longest)[-at_once:])


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _writes(process: psutil.Process, run_dir: Path) -> bool:
    return any(Path(file.path).parent == run_dir for file in process.open_files())


def _run(file: str, request: dict[str, Any], log: str, environ: dict[str, str]) -> None:
    os.environ.update(environ)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    from gpt2dist.errors import BadInput, RunFailure
    from gpt2dist.sweep.run import SweepRequest, run_sweep

    try:
        code = run_sweep(SweepRequest(file, **request), lambda text: print(text, flush=True))
    except (BadInput, RunFailure) as error:
        print(f"gpt2dist: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)
