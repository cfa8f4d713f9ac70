"""Run the real command line on a model of a few thousand parameters, as a process to be hurt.

`Command` forks a process that has imported torch and DeepSpeed already, because importing them is
all but a second of such a run; `Program` is a new Python, and what Ray starts below it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

DEADLINE_SECONDS = 180.0
LEAVING_SECONDS = 60.0
"How long what Ray started may outlive a driver that was killed."
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

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "far", "away", "sun", "moon"]

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "gpt2dist.cli.main",
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
        return self._err.read_text() if self.has_begun else ""

    @property
    def has_begun(self) -> bool:
        """Whether the command line has the process; Python's own start is nobody's to judge."""
        return self._err.exists()

    @property
    def said(self) -> str:
        return self.stdout + self.stderr

    def wait(self) -> int | None:
        """The exit code, negative for the signal that killed it; None when it did not end."""
        self.process.join(DEADLINE_SECONDS)
        return self.process.exitcode

    def ends_with(self, code: int) -> Command:
        """Waits for the end and expects this exit code."""
        if self.wait() is None:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode == code, self.said
        return self

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def interrupt(self) -> None:
        os.kill(self.pid, signal.SIGINT)

    def left_over(self) -> list[str]:
        return [self.said] if self.is_alive() else []


class Program:
    """One `gpt2dist ...` in a Python and a session of its own, and all that it starts there."""

    def __init__(self, scratch: Path, *words: str, one_core: bool = False) -> None:
        self._log = scratch / f"{len(list(scratch.glob('*.log')))}.log"
        with self._log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpt2dist", *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self.process.pid
        if one_core:
            take_one_core(self.pid)

    @property
    def has_begun(self) -> bool:
        return True

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait(self) -> int | None:
        """As `Command.wait`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE_SECONDS)
        return self.process.poll()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def interrupt(self) -> None:
        """Ctrl-C: the terminal tells every process in its foreground."""
        os.killpg(self.pid, signal.SIGINT)

    def worker(self, run_dir: Path, *, rank_0: bool) -> psutil.Process | None:
        """A worker of Ray Train; rank 0 is the one that holds its lock."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    files = {Path(file.path) for file in process.open_files()}
                    if (run_dir / ".rank0.lock" in files) == rank_0:
                        return process
        return None

    def family(self) -> list[psutil.Process]:
        """Every process of its session; zombies have left."""
        members = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                here = os.getsid(process.pid) == self.pid
                if here and process.status() != psutil.STATUS_ZOMBIE:
                    members.append(process)
        return members

    def left_over(self) -> list[str]:
        """Processes that stay although they had time to leave."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while (there := self.family()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [" ".join(process.cmdline()) for process in there]


def take_one_core(pid: int = 0) -> None:
    """On a busy machine, two threads wait for each other more than they compute."""
    cores = sorted(os.sched_getaffinity(pid))
    os.sched_setaffinity(pid, {cores[(pid or os.getpid()) % len(cores)]})


def prepare_text(folder: Path) -> Path:
    """Shards of some 40,000 bytes of text over thirteen words, prepared by the command line."""
    from gpt2dist.cli.main import main

    source, out = folder / "text", folder / "shards"
    source.mkdir()
    draw = np.random.default_rng(0)
    for number in range(40):
        (source / f"{number}.txt").write_text(" ".join(draw.choice(WORDS, 250)))
    words = ["data", "prepare", str(source), "--out", str(out), "--tokenizer", "bytes"]
    assert main([*words, "--val-fraction", "0.1", "--local"]) == 0
    return out


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
    from gpt2dist.cli.main import main

    take_one_core()
    if file_limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    sys.exit(main(words))
