"""Rank 0's side of a run: rows, dollars and notes, and when to stop."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.machine.hardware import peak_tflops
from gpt2dist.run_files import LEDGER_FILE, ROWS_FILE, STOP_FILE, add_event, write_outcome
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import Ledger
from gpt2dist.track.rows import RowWriter
from gpt2dist.track.versions import versions
from gpt2dist.train.core.loop import (
    INTERRUPTED,
    OUT_OF_BUDGET,
    RUNNING,
    Ending,
    Recorder,
    TrainState,
)
from gpt2dist.train.job import Job


class RunRecorder(Recorder):
    """Writes `metrics.jsonl`, `ledger.json` and `events.jsonl`, which the driver follows."""

    def __init__(self, job: Job, machines: int, resume_step: int | None) -> None:
        self._run_dir, self._config = Path(job.run_dir), job.config
        attempt, placement = replace(job.attempt, machines=machines), job.placement
        self._ledger = Ledger.open(self._run_dir / LEDGER_FILE, attempt)
        self._rows = RowWriter(self._run_dir / ROWS_FILE, resume_step)
        self._guard = BudgetGuard(job.config.budget, self._ledger)
        self._flops_per_token = flops_per_token(job.config.model)
        # Workers on a GPU let fp32 matmuls run as TF32.
        tf32 = placement.device == "cuda" and placement.precision == "fp32"
        peak = peak_tflops(placement.device_name, "tf32" if tf32 else placement.precision)
        self._peak_flops = peak * 1e12 * placement.workers if peak else None
        add_event(self._run_dir, opened=attempt.attempt_id, step=resume_step or 0)

    def stop_reason(self, state: TrainState, next_seconds: float) -> tuple[int, str]:
        self._ledger.heartbeat()
        if (self._run_dir / STOP_FILE).exists():
            return INTERRUPTED, (self._run_dir / STOP_FILE).read_text()
        over = self._guard.reason(state.tokens, self._config.train.batch_tokens, next_seconds)
        return (OUT_OF_BUDGET, over) if over else (RUNNING, "")

    def row(self, row: dict[str, Any]) -> None:
        self._ledger.heartbeat()
        spent = self._ledger.spent_at(self._ledger.now())
        flops = row["tokens_per_s"] * self._flops_per_token
        full = {
            **row,
            "mfu": flops / self._peak_flops if self._peak_flops else None,
            "gpu_peak_gib": _gpu_peak_gib(),
            "host_gib": _host_gib(),
            "seconds": spent.seconds,
            "usd": None if self._ledger.known_usd is None else spent.usd,
            "time": time.time(),
        }
        self._rows.append(full)

    def note(self, text: str) -> None:
        add_event(self._run_dir, note=text)

    def vouch(self, state: TrainState) -> TrainState:
        self._rows.sync()
        self._ledger.heartbeat(force=True)
        installed = {name: version or "not installed" for name, version in versions().items()}
        spent = self._ledger.spent
        return replace(
            state,
            seconds=spent.seconds,
            usd=spent.usd,
            rows=self._rows.count,
            versions=installed,
        )

    def finish(self, ending: Ending) -> None:
        self._ledger.heartbeat(force=True)
        step = ending.state.step
        write_outcome(self._run_dir, kind=ending.kind, reason=ending.reason, step=step)

    def close(self) -> None:
        self._rows.close()


def _gpu_peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def _host_gib() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * 4096 / 2**30
