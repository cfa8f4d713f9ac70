"""Run the real command line on a model of a few thousand parameters, as a process to be hurt.

`Command` forks a process that has imported torch and DeepSpeed already, because importing them is
all but a second of such a run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

DEADLINE_SECONDS = 180.0
TOTAL_STEPS, BATCH_TOKENS = 120, 128
TINY = [
    "model.layers=1", "model.heads=2", "model.width=32", "model.context=32", "model.vocab=257",
    "model.dropout=0.1", "data.tokenizer=bytes", "optim.warmup_steps=2",
    f"train.batch_tokens={BATCH_TOKENS}", f"train.tokens={TOTAL_STEPS * BATCH_TOKENS}",
    "cluster.device=cpu", "cluster.precision=fp32", "cluster.micro_batch=2",
    "checkpoint.every_steps=20", "eval.every_steps=20", "eval.tokens=1024",
    "eval.sample_every_steps=60", "eval.sample_tokens=16", "eval.sample_prompt=the ",
    "track.every_steps=5",
]  # fmt: skip

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "gpt2dist.train.driver",
        "gpt2dist.train.worker",
        "gpt2dist.track.curve",
        "matplotlib.backends.backend_agg",
        "deepspeed.runtime.zero.muon.original_muon",  # with torch's compiler, which it imports
    ]
)


class Command:
    """One `gpt2dist ...` in a process of its own, its output in files."""

    def __init__(self, scratch: Path, *words: str, file_limit_bytes: int | None = None) -> None:
        number = len(list(scratch.glob("*.stdout")))
        self._out, self._err = scratch / f"{number}.stdout", scratch / f"{number}.stderr"
        self._out.touch()
        arguments = (words, str(self._out), str(self._err), file_limit_bytes)
        # A daemon ends with the tests, even when one of them fails while it runs.
        self.process = _forks.Process(target=_run, args=arguments, daemon=True)
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def ends_with(self, code: int) -> Command:
        """Waits for the end; a negative code is the signal that killed it."""
        self.process.join(DEADLINE_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode == code, f"{self.stdout}\n{self.stderr}"
        return self

    def is_alive(self) -> bool:
        return self.process.is_alive()


def take_one_core() -> None:
    """On a busy machine, two threads wait for each other more than they compute."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})


def wait_until(truth: Callable[[], Any], alive: Callable[[], bool] = lambda: True) -> Any:
    """What `truth` returns once it is true; fails when the process ends or the time is up."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := truth()):
        assert alive(), "the process ended too early"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def reachable_from_elsewhere(processes: Iterable[psutil.Process]) -> list[str]:
    """Command lines of those that listen at an address of the network, once per socket."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    address = ipaddress.ip_address(connection.laddr.ip)
                    mapped = getattr(address, "ipv4_mapped", None) or address
                    if not mapped.is_loopback:
                        found.append(" ".join(process.cmdline()))
    return found


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """The whole rows of a run that may be writing."""
    try:
        lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def last_step(run_dir: Path) -> int:
    rows = rows_of(run_dir)
    return rows[-1]["step"] if rows else 0


def summary_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())


LEARNED = ("step", "tokens", "loss", "grad_norm", "lr", "val_loss", "skipped")


def learned(run_dir: Path) -> list[tuple[Any, ...]]:
    """What the rows say of learning, without what they say of time and money."""
    return [tuple(row.get(key) for key in LEARNED) for row in rows_of(run_dir)]


def final_tensors(run_dir: Path) -> dict[str, bytes]:
    """Weights and moments of the last checkpoint, as they lie on disk."""
    folder = max((run_dir / "checkpoints").glob("step-*"))
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def _run(words: tuple[str, ...], out: str, err: str, file_limit_bytes: int | None) -> None:
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    take_one_core()
    if file_limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))
    from gpt2dist.cli.main import main

    sys.exit(main(words))
