"""Rank 0's side of a run: rows, dollars and notes, and when to stop."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from gpt2dist.config.schema import Config
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.machine.hardware import peak_tflops
from gpt2dist.plan.placement import Placement
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import Ledger
from gpt2dist.track.rows import RowWriter
from gpt2dist.train import run_folder
from gpt2dist.train.core.checkpoint import TrainState
from gpt2dist.train.core.loop import INTERRUPTED, OUT_OF_BUDGET, RUNNING


class SilentRecorder:
    """The recorder of every rank but 0."""

    def stop_reason(self, state: TrainState, next_seconds: float) -> tuple[int, str]:
        return RUNNING, ""

    def row(self, row: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...


class RunRecorder:
    """Writes `metrics.jsonl`, `ledger.json` and `events.jsonl`, which the driver follows."""

    def __init__(
        self,
        run_dir: Path,
        config: Config,
        placement: Placement,
        ledger: Ledger,
        rows: RowWriter,
        attempt_id: str,
        step: int,
    ) -> None:
        self.run_dir, self.config, self.placement = run_dir, config, placement
        self.ledger, self.rows = ledger, rows
        self._guard = BudgetGuard(config.budget, ledger)
        self._flops_per_token = flops_per_token(config.model)
        # Workers on a GPU let fp32 matmuls run as TF32.
        tf32 = placement.device == "cuda" and placement.precision == "fp32"
        peak = peak_tflops(placement.device_name, "tf32" if tf32 else placement.precision)
        self._peak_flops = peak * 1e12 * placement.workers if peak else None
        self._event(opened=attempt_id, step=step)

    def stop_reason(self, state: TrainState, next_seconds: float) -> tuple[int, str]:
        self.ledger.heartbeat()
        if (self.run_dir / run_folder.STOP_FILE).exists():
            return INTERRUPTED, (self.run_dir / run_folder.STOP_FILE).read_text()
        over = self._guard.reason(state.tokens, self.config.train.batch_tokens, next_seconds)
        return (OUT_OF_BUDGET, over) if over else (RUNNING, "")

    def row(self, row: dict[str, Any]) -> None:
        self.ledger.heartbeat()
        spent = self.ledger.spent_at(self.ledger.now())
        rate = row["tokens_per_s"]
        mfu = rate * self._flops_per_token / self._peak_flops if self._peak_flops else None
        full = {
            **row,
            "mfu": mfu,
            "gpu_peak_gib": _gpu_peak_gib(),
            "host_gib": _host_gib(),
            "seconds": spent.seconds,
            "usd": spent.usd,
            "time": time.time(),
        }
        self.rows.append(full)

    def note(self, text: str) -> None:
        self._event(note=text)

    def _event(self, **event: Any) -> None:
        line = json.dumps({"time": time.time(), **event})
        with (self.run_dir / run_folder.EVENTS_FILE).open("a") as file:
            file.write(line + "\n")


def _gpu_peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def _host_gib() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * 4096 / 2**30
