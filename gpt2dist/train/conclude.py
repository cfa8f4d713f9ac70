"""The end of a run: why it ended, its summary, its curve, MLflow's last word, and what to say."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gpt2dist.config.load import identity
from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput, RunFailure, StorageRefused
from gpt2dist.human import human_count, human_duration, usd
from gpt2dist.run_files import (
    CURVE_FILE,
    ERROR_FILE,
    LEDGER_FILE,
    ROWS_FILE,
    SAMPLES_FILE,
    SUMMARY_FILE,
    checkpoint_folders,
    read_outcome,
    step_of,
    write_outcome,
)
from gpt2dist.stop_signal import StopOnSignal
from gpt2dist.track.ledger import OWN_MACHINE, Account
from gpt2dist.track.mlflow_log import MlflowTracker
from gpt2dist.track.mlflow_uri import tracking_uri
from gpt2dist.track.rows import read_rows
from gpt2dist.track.summary import RunEnd, read_summary, summarize, write_summary
from gpt2dist.train.job import Job
from gpt2dist.train.predicted import errors


class HowEnded(NamedTuple):
    kind: str
    "finished, budget, interrupted, diverged or failed"
    reason: str
    exit_code: int


@dataclass(frozen=True)
class RunResult:
    run_dir: Path
    kind: str
    "finished, budget, interrupted, diverged or failed"
    reason: str
    exit_code: int
    summary: dict[str, Any]


def mlflow_tracker(run_dir: Path, job: Job) -> MlflowTracker:
    """The MLflow side of a run, not started; BadInput for a store that cannot be one."""
    config, placement, attempt = job.config, job.placement, job.attempt
    tags = {
        "device": placement.device_name,
        "workers": str(placement.workers),
        "precision": placement.precision,
        "usd_per_hour": "unknown"
        if attempt.price_source == OWN_MACHINE
        else str(attempt.usd_per_hour),
        "price_source": attempt.price_source,
        "val_tokens_per_byte": str(job.val_tokens_per_byte),
    }
    uri = tracking_uri(config, os.environ)
    return MlflowTracker(run_dir, config, uri, attempt_id=attempt.attempt_id, tags=tags)


def already_finished(run_dir: Path, config: Config, say: Callable[[str], None]) -> RunResult | None:
    """The result of a run that reached its end before; None for any other run."""
    try:
        summary = read_summary(run_dir)
    except BadInput:
        return None
    if (summary.get("ended"), summary.get("identity")) != ("finished", identity(config)):
        return None
    say(f"{run_dir} is finished already; --fresh sets it aside and starts anew")
    curve = run_dir / CURVE_FILE
    for line in _closing_lines(
        run_dir, "finished", summary["reason"], summary, curve if curve.exists() else None
    ):
        say(line)
    return RunResult(run_dir, "finished", summary["reason"], 0, summary)


def stopped_before_start(run_dir: Path, reason: str, say: Callable[[str], None]) -> RunResult:
    """The result of a run whose budget does not pay for another start."""
    account, summary = Account.read(run_dir / LEDGER_FILE), dict[str, Any]()
    with suppress(BadInput):
        summary = read_summary(run_dir) | {
            "ended": "budget",
            "reason": reason,
            "seconds": account.seconds,
            "usd": account.known_usd,
            "attempts": account.attempt_count,
        }
        write_summary(run_dir, summary)
    write_outcome(run_dir, kind="budget", reason=reason)
    say(f"budget: {reason}; the same command continues this run, with a larger budget")
    return RunResult(run_dir, "budget", reason, 0, summary)


def conclude(
    run_dir: Path,
    job: Job,
    ended: HowEnded,
    mlflow: MlflowTracker | None,
    say: Callable[[str], None],
) -> RunResult:
    """Write the summary and the curve, close MLflow, say what came of it."""
    kind, reason, code = ended
    if not (run_dir / ROWS_FILE).exists() or not (run_dir / LEDGER_FILE).exists():
        # Over before rank 0 could open its records, or the folder is gone: nothing to sum up.
        if mlflow is not None:
            mlflow.close(kind)
        if kind in ("interrupted", "budget"):
            say(f"{kind}: {reason}")
            return RunResult(run_dir, kind, reason, code, {})
        raise RunFailure(reason) if code == 1 else BadInput(reason)
    rows = read_rows(run_dir / ROWS_FILE)
    placement = job.placement
    end = RunEnd(
        run=run_dir.name,
        ended=kind,
        reason=reason,
        device=placement.device_name,
        workers=placement.workers,
        precision=placement.precision,
        zero_stage=placement.zero_stage,
    )
    summary = summarize(job.config, rows, Account.read(run_dir / LEDGER_FILE), end)
    summary["val_tokens_per_byte"] = job.val_tokens_per_byte
    summary["predicted"] = job.predicted
    summary["prediction_error"] = errors(job.predicted, summary)
    saved = checkpoint_folders(run_dir)
    if saved:
        # The newest folder may be a damaged one of a later step, which was rolled back.
        last = (read_outcome(run_dir) or {}).get("step")
        summary["resume_step"] = step_of(saved[0]) if last is None else last
    try:
        curve = _draw(run_dir, rows)
        write_summary(run_dir, summary)  # last: it makes the run a finished one
    except StorageRefused:
        curve, reason = None, f"{reason}; {SUMMARY_FILE} and {CURVE_FILE} cannot be written either"
    if mlflow is not None and not mlflow.close(kind) and mlflow.trouble:
        say(mlflow.trouble)
    for line in _closing_lines(run_dir, kind, reason, summary, curve):
        say(line)
    if kind in ("failed", "diverged"):
        raise RunFailure(reason) if code == 1 else BadInput(reason)
    return RunResult(run_dir, kind, reason, code, summary)


def how_ended(run_dir: Path, error: BaseException | None, signals: StopOnSignal) -> HowEnded:
    """What the workers wrote down, else the signal or the error that the driver saw."""
    outcome = read_outcome(run_dir)
    if outcome is not None:
        kind, reason = outcome["kind"], outcome["reason"]
        usual = signals.exit_code if kind == "interrupted" else 0
        return HowEnded(kind, reason, outcome.get("exit_code", usual))
    said = error if isinstance(error, (BadInput, RunFailure)) else None
    if signals.received is not None:
        reason = str(said or "stopped before the first step")
        return HowEnded("interrupted", reason, signals.exit_code)
    if said is not None:
        return HowEnded("failed", str(said), said.exit_code)
    text = " ".join(str(error).split()) if error else "the workers left without a word"
    last = text if len(text) < 300 else f"...{text[-300:]}"
    trace = run_dir / ERROR_FILE
    where = f"whole trace: {trace}" if trace.exists() else f"{trace} could not be written"
    return HowEnded("failed", f"training failed: {last} ({where})", 1)


def _draw(run_dir: Path, rows: list[dict[str, Any]]) -> Path | None:
    """The curve, or None where matplotlib is not installed (a bare GPU box)."""
    try:
        from gpt2dist.track.curve import draw_curve

        draw_curve(rows, run_dir / CURVE_FILE, run_dir.name)
    except ImportError:
        return None
    return run_dir / CURVE_FILE


def _closing_lines(
    run_dir: Path, kind: str, reason: str, summary: dict[str, Any], curve: Path | None
) -> list[str]:
    lines = []
    if kind in ("finished", "budget", "interrupted"):
        lines.append(f"{kind}: {reason}")
    if summary["final_val_loss"] is not None:
        best = f", best {summary['best_val_loss']:.4f} at step {summary['best_step']:,}"
        lines.append(f"validation loss {summary['final_val_loss']:.4f}{best}")
    speed = summary["tokens_per_s"]
    lines.append(
        f"{human_count(summary['tokens'])} tokens in {human_duration(summary['seconds'])}"
        + (f" at {human_count(speed)} tokens/s" if speed else "")
        + f", {_cost(summary)}, {summary['attempts']} attempt"
        + ("s" if summary["attempts"] != 1 else "")
    )
    if curve is not None:
        lines.append(f"curve: {curve}   rows: {run_dir / ROWS_FILE}")
    text = _last_sample(run_dir)
    if text:
        lines.append(f"sample:\n{text}")
    if kind == "finished":
        run = shlex.quote(str(run_dir))
        lines.append(f"next:   gpt2dist sample {run} --prompt 'import '   |   gpt2dist ui")
    elif kind in ("budget", "interrupted"):
        hint = ", with a larger budget" if kind == "budget" else ""
        lines.append(f"the same command continues this run{hint}")
    return lines


def _cost(summary: dict[str, Any]) -> str:
    """Dollars and their price; unknown is never $0."""
    if summary["price_source"] == OWN_MACHINE or summary["usd"] is None:
        return "cost unknown (cluster.usd_per_hour=... sets a price)"
    return f"cost {usd(summary['usd'])} ({summary['price_source']}, ${summary['usd_per_hour']:g}/h)"


def _last_sample(run_dir: Path) -> str | None:
    try:
        text = (run_dir / SAMPLES_FILE).read_text(errors="replace")
    except OSError:
        return None
    last = text.rpartition("--- step")[2].partition("\n")[2].rstrip()
    return "\n".join(f"    {line}" for line in last.splitlines()) or None
