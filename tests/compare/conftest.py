"""Run folders as training leaves them, written with the project's own writers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from gpt2dist.config.load import dump, resolve
from gpt2dist.track.attempts import Attempt
from gpt2dist.track.ledger import Account
from gpt2dist.track.rows import RowWriter
from gpt2dist.track.summary import RunEnd, summarize, write_summary

START = 1.7e9


def write_run(
    folder: Path,
    *overrides: str,
    recipe: str = "debug",
    curve=((1, 5.0), (4, 4.0), (16, 3.0)),
    usd_per_hour: float | None = 3.6,
    seconds: float = 1000.0,
    device: str = "NVIDIA A100-SXM4-80GB",
    workers: int = 1,
    gpu: bool = True,
    ended: str = "finished",
    reason: str = "",
    predicted: dict | None = None,
    val_tokens_per_byte: float | None = None,
    summary: bool = True,
) -> Path:
    """A run that was evaluated at the steps of `curve`, time passing evenly over the steps.

    usd_per_hour None: a machine that nobody gave a price. summary False: killed, or still going.
    """
    config = resolve(recipe, overrides)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config))
    source = "config" if usd_per_hour is not None else "own machine"
    price = usd_per_hour or 0.0
    attempt = Attempt("1", START, START + seconds, 1, price, source, "host")
    (folder / "ledger.json").write_text(json.dumps({"attempts": [asdict(attempt)]}))
    last = curve[-1][0]
    losses = dict(curve)
    rows = []
    for step in range(1, last + 1):
        spent = seconds * step / last
        row = {
            "step": step,
            "tokens": step * config.train.batch_tokens,
            "loss": 10 / math.sqrt(step),
            "tokens_per_s": 1000.0,
            "mfu": 0.4 if gpu else None,
            "gpu_peak_gib": 12.5 if gpu else None,
            "host_gib": 1.0,
            "seconds": spent,
            "usd": spent * price / 3600,
            "time": START + spent,
        }
        rows.append(row | ({"val_loss": losses[step]} if step in losses else {}))
    writer = RowWriter(folder / "metrics.jsonl", None)
    for row in rows:
        writer.append(row)
    if summary:
        record = summarize(
            config,
            rows,
            Account([attempt]),
            RunEnd(folder.name, ended, reason, device, workers, "bf16"),
        )
        record |= {"predicted": predicted, "prediction_error": None}
        write_summary(folder, {**record, "val_tokens_per_byte": val_tokens_per_byte})
    return folder


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "runs"


@pytest.fixture
def make(runs_dir):
    """`make(name, *overrides, ...)` writes runs/name and returns its folder."""
    return lambda name, *overrides, **rest: write_run(runs_dir / name, *overrides, **rest)
