"""Runs read from MLflow instead of their folders, local or from a server."""

from __future__ import annotations

from typing import Any

from gpt2dist.compare.read.run_record import EARLY, Run, make_run, summary_of_rows
from gpt2dist.config.load import from_record
from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.track.ledger import OWN_MACHINE
from gpt2dist.track.mlflow_read import StoredRun, stored_runs
from gpt2dist.track.summary import PREDICTED

METRICS = ("tokens", "val_loss", "seconds", "usd", "tokens_per_s", "mfu", "gpu_peak_gib")
"Those whose whole history is read."
IDENTITY_TAG = "identity"
"Runs without it are of another program, or hold the trials of a sweep together."
SECTIONS = ("model", "data", "optim", "train", "eval", "paths")


def experiment_runs(uri: str, experiment: str) -> list[Run]:
    """The training runs of an MLflow experiment; BadInput where it holds none."""
    found = stored_runs(uri, experiment, METRICS, IDENTITY_TAG)
    if not found:
        raise BadInput(f"experiment {experiment!r} holds no runs of gpt2dist; name another one")
    return [_run(stored) for stored in found]


def _run(stored: StoredRun) -> Run:
    config = _config(stored)
    last = stored.metrics
    usd = last.get("total_usd", last.get("usd"))
    # `track sync` alone leaves no tag; then only dollars above 0 show that there was a price.
    if stored.tags.get("price_source", OWN_MACHINE if not usd else "") == OWN_MACHINE:
        usd = None
    workers = int(stored.tags["workers"]) if "workers" in stored.tags else None
    seconds = last.get("total_seconds", last.get("seconds"))
    summary: dict[str, Any] = {
        **summary_of_rows(stored.name, config.recipe, stored.rows),
        "where": stored.run_id,
        "usd": usd,
        "identity": stored.tags[IDENTITY_TAG],
        "ended": _ended(stored, config),
        "device": stored.tags.get("device"),
        "workers": workers,
        "seconds": seconds,
        "gpu_hours": None if seconds is None or workers is None else seconds / 3600 * workers,
        "val_tokens_per_byte": _number(stored.tags.get("val_tokens_per_byte")),
        "predicted": {name: last.get(f"predicted_{name}") for name in PREDICTED},
    }
    return make_run(config, summary, stored.rows)


def _number(text: str | None) -> float | None:
    return None if text in (None, "None") else float(text)


def _ended(stored: StoredRun, config: Config) -> str:
    """How the run ended: MLflow knows no budget, so what is finished is seen by its tokens."""
    if stored.tags.get("ended") == "stopped":  # a sweep's word of its trial
        return EARLY
    if stored.status == "FINISHED":
        whole = config.total_steps * config.train.batch_tokens
        return "finished" if stored.metrics.get("tokens", 0) >= whole else "budget"
    return {"KILLED": "interrupted", "FAILED": "failed"}.get(stored.status, "unfinished")


def _config(stored: StoredRun) -> Config:
    """The typed config of params such as `optim.peak_lr`: MLflow keeps them all as text.

    None is the default of every key that may be None.
    """
    tree: dict[str, Any] = {"recipe": stored.params.get("recipe", "custom")}
    for key, value in stored.params.items():
        section, _, name = key.partition(".")
        if section in SECTIONS and name and value != "None":
            tree.setdefault(section, {})[name] = value
    return from_record(tree, f"MLflow run {stored.name}")
