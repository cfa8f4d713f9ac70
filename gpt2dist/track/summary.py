"""What became of a run, in one small file that comparisons read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2dist.config.load import identity
from gpt2dist.config.schema import Config
from gpt2dist.disk import write_atomically
from gpt2dist.errors import BadInput
from gpt2dist.run_files import SUMMARY_FILE
from gpt2dist.track.ledger import OWN_MACHINE, Account
from gpt2dist.track.rows import Row
from gpt2dist.track.versions import versions

PREDICTED = ("tokens_per_s", "peak_gib", "hours", "usd", "val_loss")
"Of a summary's `predicted`, what is held against what came of it."


@dataclass(frozen=True)
class RunEnd:
    """What the rows and the account do not say."""

    run: str
    ended: str
    "finished, budget, interrupted, diverged or failed"
    reason: str
    device: str
    "Really used, as is all below, whatever the config asks for."
    workers: int
    precision: str
    zero_stage: int = 0


def summarize(config: Config, rows: Sequence[Row], account: Account, end: RunEnd) -> dict[str, Any]:
    """The summary of a run; values nobody measured are None."""
    last = rows[-1] if rows else {}
    losses = known_values(rows, "loss")
    evaluated = [row for row in rows if row.get("val_loss") is not None]
    best = min(evaluated, key=lambda row: row["val_loss"], default=None)
    current = account.attempts[-1]
    return {
        **asdict(end),
        "identity": identity(config),
        "recipe": config.recipe,
        "final_val_loss": evaluated[-1]["val_loss"] if evaluated else None,
        "best_val_loss": best["val_loss"] if best else None,
        "best_step": best["step"] if best else None,
        "final_loss": losses[-1] if losses else None,
        "steps": last.get("step", 0),
        "total_steps": config.total_steps,
        "tokens": last.get("tokens", 0),
        "seconds": account.seconds,
        "usd": account.known_usd,
        "usd_per_hour": None if current.price_source == OWN_MACHINE else account.usd_per_hour,
        "price_source": current.price_source,
        "machines": current.machines,
        "attempts": account.attempt_count,
        "tokens_per_s": median_value(rows, "tokens_per_s"),
        "mfu": median_value(rows, "mfu"),
        "peak_gpu_gib": max(known_values(rows, "gpu_peak_gib"), default=None),
        "peak_host_gib": max(known_values(rows, "host_gib"), default=None),
        "skipped_steps": max(known_values(rows, "skipped"), default=0),
        "data_wait_share": _data_wait_share(rows),
        "versions": versions(),
    }


def write_summary(run_dir: Path, summary: Mapping[str, Any]) -> Path:
    """Writes `summary.json` in one move and returns its path."""
    path = Path(run_dir) / SUMMARY_FILE
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    write_atomically(path, text, make_folder=False)
    return path


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The summary of a run that has ended; BadInput where there is none."""
    path = Path(run_dir) / SUMMARY_FILE
    try:
        summary = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"no summary at {path}; is this the folder of a run that ended?") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    if not isinstance(summary, dict):
        raise BadInput(f"{path} is not a summary; run the command that wrote it again")
    return summary


def known_values(rows: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [row[key] for row in rows if row.get(key) is not None]


def median_value(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = known_values(rows, key)
    return statistics.median(values) if values else None


def _data_wait_share(rows: Sequence[Row]) -> float | None:
    """Share of the steps' time that went into waiting for batches."""
    pairs = [
        (row["data_wait_s"], row["step_s"])
        for row in rows
        if row.get("data_wait_s") is not None and row.get("step_s") is not None
    ]
    total_s = sum(step_s for _, step_s in pairs)
    return sum(wait_s for wait_s, _ in pairs) / total_s if total_s > 0 else None
