"""A comparison as text for a terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any

from gpt2dist.compare.read.run_record import AXES, AXIS_TITLES, UNKNOWN, Axis, Run, spent_text
from gpt2dist.compare.stats.comparison import BITS, Comparison
from gpt2dist.human import columns, human_count, human_duration, usd

WHOLE_RUN = ("usd", "hours", "val_loss")
"Predictions of a run that goes to its end."
FIELDS = (
    *("where", "recipe", "identity", "seed", "ended", "params", "tokens", "steps", "flops"),
    *("device", "gpus", "hours", "gpu_hours", "usd", "tokens_per_s", "mfu", "peak_gib"),
    *("final_val_loss", "best_val_loss", "final_bits_per_byte"),
)
"Of a run, in CSV and JSON; units in the names."
LONGEST_TABLE = 40
"Rows on a terminal; CSV and JSON have all of them."


def text_lines(comparison: Comparison, axis: Axis) -> list[str]:
    """The tables, the frontier and the findings."""
    lines = _runs_table(comparison)
    lines += _groups_table(comparison)
    lines += _predicted_table(comparison)
    lines += ["", f"nobody beats, by {AXIS_TITLES[axis]}:"]
    lines += [
        f"  {spent_text(run.spent(axis), axis):>9}  {_loss(comparison.final(run))}  {run.name}"
        + ("" if run.ended == "finished" else f"  ({run.ended})")
        for run in (comparison.runs[index] for index in comparison.frontier[axis])
    ] or [f"  no run that has ended with known {AXIS_TITLES[axis]} and a final loss"]
    unknown = sum(run.spent(axis) is None for run in comparison.runs)
    if unknown:
        all_runs = len(comparison.runs)
        lines.append(f"  left out: {unknown} of {all_runs} runs, {AXIS_TITLES[axis]} unknown")
    lines += ["", *comparison.findings] if comparison.findings else []
    lines += ["", *(f"note: {note}" for note in comparison.notes)] if comparison.notes else []
    return lines


def csv_text(comparison: Comparison) -> str:
    """One line per run; unknown values are empty."""
    records = [_record(comparison, run) for run in comparison.runs]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def json_tree(comparison: Comparison) -> dict[str, Any]:
    """Everything the terminal shows, unknown values as null."""
    names = [run.name for run in comparison.runs]
    return {
        "unit": comparison.unit,
        "target_loss": comparison.target_loss,
        "runs": [_record(comparison, run) for run in comparison.runs],
        "groups": [group.tree() for group in comparison.groups],
        "frontier": {axis: [names[index] for index in comparison.frontier[axis]] for axis in AXES},
        "findings": list(comparison.findings),
        "notes": list(comparison.notes),
    }


def _runs_table(comparison: Comparison) -> list[str]:
    target = comparison.target_loss
    head = ["run", "size", "tokens", "GPU-h", "tok/s", "MFU", "dollars", "final", "best"]
    head += [f"$ to {target:g}"] if target is not None else []
    head += ["ended", "on"]
    rows = []
    for run in comparison.runs[:LONGEST_TABLE]:
        row = [
            run.name,
            human_count(run.params),
            human_count(run.tokens),
            "no GPU" if run.gpus == 0 else _or_unknown(run.gpu_hours, lambda hours: f"{hours:.2f}"),
            _or_unknown(run.tokens_per_s, human_count),
            _or_unknown(run.mfu, lambda mfu: f"{mfu:.1%}"),
            _or_unknown(run.usd, usd),
            _loss(comparison.final(run)),
            _loss(comparison.best(run)),
        ]
        if target is not None:
            row.append(_reached(comparison, run))
        rows.append([*row, run.ended, run.hardware])
    lines = [f"validation loss in {comparison.unit}", *columns([head, *rows], left=(0, -1, -2))]
    hidden = len(comparison.runs) - len(rows)
    return [*lines, f"... and {hidden} more runs (--csv, --json: all)"] if hidden else lines


def _reached(comparison: Comparison, run: Run) -> str:
    found = comparison.reached(run)
    if found is not None:
        return ("<= " if found.at_most else "") + usd(found.spent)
    best = comparison.best(run)
    reached = best is not None and comparison.target_loss is not None
    return UNKNOWN if reached and best <= comparison.target_loss else "not reached"  # type: ignore[operator]


def _groups_table(comparison: Comparison) -> list[str]:
    shown = [group for group in comparison.groups if len(group.runs) > 1]
    if not shown:
        return []
    rows = [
        [
            group.label,
            str(len(group.runs)),
            str(len(group.finals)),
            _or_unknown(group.mean, lambda mean: f"{mean:.4f}"),
            f"{group.interval.low:.4f} to {group.interval.high:.4f}"
            if group.interval
            else "one seed"
            if group.finals
            else UNKNOWN,
            "; ".join(group.hardware),
        ]
        for group in shown[:LONGEST_TABLE]
    ]
    head = ["group", "runs", "seeds", "mean final", "95 % interval", "on"]
    return ["", "runs that differ only in seed or hardware", *columns([head, *rows], left=(0, -1))]


def _predicted_table(comparison: Comparison) -> list[str]:
    shown = [run for run in comparison.runs if any(run.predicted.values())]
    if not shown:
        return []
    rows = [
        [
            run.name,
            _pair(run, "usd", run.usd, usd),
            _pair(run, "hours", run.hours, lambda hours: human_duration(hours * 3600)),
            _pair(run, "peak_gib", run.peak_gib, lambda gib: f"{gib:.1f} GiB"),
            _pair(run, "tokens_per_s", run.tokens_per_s, human_count),
            _pair(run, "val_loss", run.final_val_loss, lambda loss: f"{loss:.3f}"),
        ]
        for run in shown[:LONGEST_TABLE]
    ]
    head = ["predicted -> actual", "dollars", "time", "memory", "tok/s", "loss (nats)"]
    return ["", *columns([head, *rows], left=(0,))]


def _pair(run: Run, name: str, actual: float | None, text: Callable[[float], str]) -> str:
    predicted = run.predicted.get(name)
    if predicted is None and actual is None:
        return UNKNOWN
    pair = f"{_or_unknown(predicted, text)} -> {_or_unknown(actual, text)}"
    comparable = run.ended == "finished" or name not in WHOLE_RUN
    return (
        f"{pair} ({actual / predicted - 1:+.0%})" if predicted and actual and comparable else pair
    )


def _record(comparison: Comparison, run: Run) -> dict[str, Any]:
    """One run; the same fields in CSV and JSON."""
    reached = comparison.reached(run)
    shown = comparison.groups[0].settings if comparison.groups else {}
    return {
        "run": run.name,
        **{name: getattr(run, name) for name in FIELDS},
        **_target_fields(comparison, reached.spent if reached else None),
        **{f"predicted_{name}": value for name, value in run.predicted.items()},
        **{key: value for key, value in run.settings.items() if key in shown},
    }


def _target_fields(comparison: Comparison, spent: float | None) -> Mapping[str, Any]:
    if comparison.target_loss is None:
        return {}
    unit = "_bits_per_byte" if comparison.unit == BITS else ""
    return {f"usd_to_loss_{comparison.target_loss:g}{unit}": spent}


def _loss(value: float | None) -> str:
    return _or_unknown(value, lambda loss: f"{loss:.4f}")


def _or_unknown(value: float | None, text: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else text(value)
