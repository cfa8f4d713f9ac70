"""What a comparison knows of one run, wherever it was read from. None is unknown, never zero."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from gpt2dist.config.load import flatten
from gpt2dist.config.schema import IDENTITY_SECTIONS, Config
from gpt2dist.errors import BadInput
from gpt2dist.human import human_count, human_duration
from gpt2dist.human import usd as dollars
from gpt2dist.plan.arithmetic import flops_per_token, parameters
from gpt2dist.plan.loss.predict import published_text
from gpt2dist.run_files import GIVEN_UP
from gpt2dist.track.summary import PREDICTED, known_values, median_value

Axis = Literal["usd", "hours", "tokens", "flops"]
AXES: tuple[Axis, ...] = ("usd", "hours", "tokens", "flops")
AXIS_TITLES: dict[Axis, str] = {
    "usd": "dollars",
    "hours": "hours",
    "tokens": "tokens",
    "flops": "FLOPs",
}
UNKNOWN = "unknown"
EARLY = "stopped early"
"How a trial ended that its sweep gave up because others did better."

Row = Mapping[str, Any]
Point = tuple[float, float]
"What was spent, and the loss that came of it."


@dataclass(frozen=True)
class Text:
    """What a run learned from and was evaluated on: losses compare only where this is equal."""

    corpus: str
    "Two samples of FineWeb are one text, two folders are two."
    tokenizer: str
    text_field: str
    source: str = field(compare=False)
    "As the config names it."

    def __str__(self) -> str:
        return f"data.source={self.source} data.tokenizer={self.tokenizer}"


@dataclass(frozen=True)
class KnownText:
    """What the manifest of a prepared dataset adds."""

    source: str
    "Where the text came from, also when the config names the prepared folder."
    tokens_per_byte: float | None
    "Tokens of the validation split, separators counted, per byte of its UTF-8 text."


@dataclass(frozen=True)
class Evaluation:
    """One point of a learning curve."""

    step: int
    tokens: int
    val_loss: float
    hours: float | None
    usd: float | None


@dataclass(frozen=True)
class Run:
    name: str
    where: str
    "Folder, or MLflow run id."
    recipe: str
    identity: str
    family: str
    "Equal for runs that differ in nothing but train.seed and where they were computed."
    settings: Mapping[str, Any]
    "`section.key` of the sections that make the identity, without train.seed."
    seed: int
    text: Text
    validation: tuple[Any, ...]
    "Settings that choose which part of the text is held out and how much of it is read."
    tokens_per_byte: float | None
    "Of the validation split, from the dataset's manifest or the run's summary."
    params: int
    flops_per_token: int
    ended: str
    "finished, stopped early, budget, interrupted, diverged, failed; unfinished: running or killed."
    device: str | None
    gpus: int | None
    "0 on a CPU."
    steps: int
    tokens: int
    hours: float | None
    gpu_hours: float | None
    usd: float | None
    tokens_per_s: float | None
    mfu: float | None
    peak_gib: float | None
    final_val_loss: float | None
    best_val_loss: float | None
    predicted: Mapping[str, float | None]
    evaluations: tuple[Evaluation, ...]

    @property
    def flops(self) -> float:
        return float(self.flops_per_token) * self.tokens

    @property
    def hardware(self) -> str:
        """`4 x NVIDIA GeForce RTX 3090`; the CPU's name without a GPU."""
        name = self.device or "unknown device"
        return f"{self.gpus} x {name}" if self.gpus else name

    @property
    def final_bits_per_byte(self) -> float | None:
        return bits_per_byte(self.final_val_loss, self.tokens_per_byte)

    def spent(self, axis: Axis, at: Evaluation | None = None) -> float | None:
        """What the run took of dollars, hours, tokens or FLOPs: the whole, or up to `at`."""
        end = at or self
        if axis == "flops":
            return float(self.flops_per_token) * end.tokens
        return {"usd": end.usd, "hours": end.hours, "tokens": end.tokens}[axis]

    def curve(self, axis: Axis) -> list[Point]:
        """(spent, validation loss) of the evaluations that have a place on a log axis."""
        points = [(self.spent(axis, entry), entry.val_loss) for entry in self.evaluations]
        return [(x, y) for x, y in points if x is not None and x > 0]


def bits_per_byte(loss: float | None, tokens_per_byte: float | None) -> float | None:
    """Nats per token in a unit that no tokenizer changes; None where either is unknown."""
    if loss is None or tokens_per_byte is None:
        return None
    return loss * tokens_per_byte / math.log(2)


def spent_text(value: float | None, axis: Axis) -> str:
    if value is None:
        return UNKNOWN
    if axis == "usd":
        return dollars(value)
    if axis == "hours":
        return human_duration(value * 3600)
    return human_count(value) if axis == "tokens" else f"{value:.2e}"


def make_run(config: Config, summary: Mapping[str, Any], evaluated: Sequence[Row]) -> Run:
    """The record of a run from its config, what became of it, and its rows with `val_loss`.

    `summary` has the fields of summary.json, and `where`, `usd` and `gpu_hours` over all attempts.
    `usd` None: no price is known, also not of its rows.
    """
    learned = {section: asdict(getattr(config, section)) for section in IDENTITY_SECTIONS}
    settings = flatten(learned)
    del settings["train.seed"]
    data, text = config.data, known_text(config)
    source = text.source if text else data.source
    has_gpu = bool(summary["peak_gpu_gib"])
    predicted = summary.get("predicted") or {}
    return Run(
        name=summary["run"],
        where=summary["where"],
        recipe=summary["recipe"],
        identity=summary["identity"] or digest(learned),
        family=digest(settings),
        settings=settings,
        seed=config.train.seed,
        text=Text(published_text(source)[0] or source, data.tokenizer, data.text_field, source),
        validation=(source, data.val_fraction, data.max_documents, config.eval.tokens),
        tokens_per_byte=text.tokens_per_byte if text else summary.get("val_tokens_per_byte"),
        params=parameters(config.model),
        flops_per_token=flops_per_token(config.model),
        ended=_ended(summary),
        device=summary["device"],
        gpus=summary["workers"] if has_gpu else 0 if summary["device"] else None,
        steps=summary["steps"],
        tokens=summary["tokens"],
        hours=_hours(summary["seconds"]),
        gpu_hours=summary["gpu_hours"] if has_gpu else None,
        usd=summary["usd"],
        tokens_per_s=summary["tokens_per_s"],
        mfu=summary["mfu"],
        peak_gib=summary["peak_gpu_gib"] or None,
        final_val_loss=_finite(summary["final_val_loss"]),
        best_val_loss=_finite(summary["best_val_loss"]),
        predicted={name: predicted.get(name) for name in PREDICTED},
        evaluations=tuple(
            Evaluation(
                row["step"],
                row["tokens"],
                row["val_loss"],
                _hours(row.get("seconds")),
                row.get("usd") if summary["usd"] is not None else None,
            )
            for row in evaluated
            if _finite(row.get("val_loss")) is not None and row.get("tokens") is not None
        ),
    )


def _ended(summary: Mapping[str, Any]) -> str:
    """The summary's word, but that a trial which its sweep stopped was not interrupted."""
    early = (summary.get("reason") or "").startswith(GIVEN_UP)
    return EARLY if early and summary["ended"] == "interrupted" else summary["ended"]


def _finite(loss: float | None) -> float | None:
    return None if loss is None or not math.isfinite(loss) else loss


def summary_of_rows(name: str, recipe: str, rows: Sequence[Row]) -> dict[str, Any]:
    """What a run without a summary has come to so far, in the summary's fields."""
    last = rows[-1] if rows else {}
    losses = known_values(rows, "val_loss")
    return {
        "run": name,
        "recipe": recipe,
        "identity": None,
        "ended": "unfinished",
        "device": None,
        "workers": None,
        "steps": last.get("step", 0),
        "tokens": last.get("tokens", 0),
        "seconds": last.get("seconds"),
        "tokens_per_s": median_value(rows, "tokens_per_s"),
        "mfu": median_value(rows, "mfu"),
        "peak_gpu_gib": max(known_values(rows, "gpu_peak_gib"), default=None),
        "final_val_loss": losses[-1] if losses else None,
        "best_val_loss": min(losses, default=None),
    }


@cache
def _manifest(folder: str) -> KnownText | None:
    from gpt2dist.data.shards import MANIFEST, load_dataset_folder

    if not (Path(folder) / MANIFEST).is_file():
        return None
    try:
        dataset = load_dataset_folder(folder)
    except BadInput:
        # Damage there is for the commands that train on it to report; here it means unknown.
        return None
    return KnownText(dataset.source, dataset.val_tokens_per_byte)


def known_text(config: Config) -> KnownText | None:
    """What the manifest of the run's dataset says; None where the folder is not on this machine."""
    from gpt2dist.data.prepare.pipeline import dataset_dir

    return _manifest(config.paths.dataset or str(dataset_dir(config.paths.data, config.data)))


def digest(tree: Mapping[str, Any]) -> str:
    """As `config.load.identity` makes it of the sections of a config."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hours(seconds: float | None) -> float | None:
    return None if seconds is None else seconds / 3600
