"""A comparison as text for a terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt2dist.compare.read.run_record import AXES, Axis, Run
from gpt2dist.compare.stats.comparison import Comparison
from gpt2dist.compare.stats.groups import Group
from gpt2dist.human import human_count, human_duration, usd

UNKNOWN = "unknown"
WHOLE_RUN = ("usd", "hours", "val_loss")
"Predictions of a run that goes to its end."
LONGEST_TABLE = 40
"Rows on a terminal; CSV and JSON have all of them."
AXIS_TITLES: dict[Axis, str] = {
    "usd": "dollars",
    "hours": "hours",
    "tokens": "tokens",
    "flops": "FLOPs",
}


def text_lines(comparison: Comparison, axis: Axis) -> list[str]:
    """The tables, the frontier and the findings."""
    lines = _runs_table(comparison)
    lines += _groups_table(comparison)
    lines += _predicted_table(comparison)
    lines += ["", f"nobody beats, by {AXIS_TITLES[axis]}:"]
    lines += [
        f"  {spent_text(run.spent(axis), axis):>9}  {_loss(comparison.final(run))}  {run.name}"
        for run in (comparison.runs[index] for index in comparison.frontier[axis])
    ] or [f"  no run with known {AXIS_TITLES[axis]} and a final loss"]
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
        "groups": [group_tree(group) for group in comparison.groups],
        "frontier": {axis: [names[index] for index in comparison.frontier[axis]] for axis in AXES},
        "findings": list(comparison.findings),
        "notes": list(comparison.notes),
    }


def group_tree(group: Group) -> dict[str, Any]:
    interval = group.interval
    return {
        "label": group.label,
        "settings": dict(group.settings),
        "runs": [run.name for run in group.runs],
        "hardware": group.hardware,
        "finished_seeds": len(group.finals),
        "mean_final_val_loss": group.mean,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def spent_text(value: float | None, axis: Axis) -> str:
    if value is None:
        return UNKNOWN
    if axis == "usd":
        return usd(value)
    if axis == "hours":
        return human_duration(value * 3600)
    return human_count(value) if axis == "tokens" else f"{value:.2e}"


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
    lines = [f"validation loss in {comparison.unit}", *_aligned(head, rows, left=(0, -1, -2))]
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
    return ["", "runs that differ only in seed or hardware", *_aligned(head, rows, left=(0, -1))]


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
    return ["", *_aligned(head, rows, left=(0,))]


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
    """One run, units in the names; the same fields in CSV and JSON."""
    bits = comparison.unit != "nats per token"
    reached = comparison.reached(run)
    return {
        "run": run.name,
        "where": run.where,
        "recipe": run.recipe,
        "identity": run.identity,
        "seed": run.seed,
        "ended": run.ended,
        "params": run.params,
        "tokens": run.tokens,
        "steps": run.steps,
        "flops": run.flops,
        "device": run.device,
        "gpus": run.gpus,
        "hours": run.hours,
        "gpu_hours": run.gpu_hours,
        "usd": run.usd,
        "tokens_per_s": run.tokens_per_s,
        "mfu": run.mfu,
        "peak_gib": run.peak_gib,
        "final_val_loss": run.final_val_loss,
        "best_val_loss": run.best_val_loss,
        "final_bits_per_byte": run.final_bits_per_byte,
        **_target_fields(comparison, reached.spent if reached else None, bits),
        **{f"predicted_{name}": value for name, value in run.predicted.items()},
        **{key: value for key, value in run.settings.items() if key in _shown(comparison)},
    }


def _target_fields(comparison: Comparison, spent: float | None, bits: bool) -> Mapping[str, Any]:
    if comparison.target_loss is None:
        return {}
    unit = "_bits_per_byte" if bits else ""
    return {f"usd_to_loss_{comparison.target_loss:g}{unit}": spent}


def _shown(comparison: Comparison) -> set[str]:
    """Settings that differ between the groups."""
    return set(comparison.groups[0].settings) if comparison.groups else set()


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    columns = list(zip(head, *rows))
    widths = [max(map(len, column)) for column in columns]
    lefts = {index % len(head) for index in left}
    return [
        "  ".join(
            cell.ljust(width) if index in lefts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in (head, *rows)
    ]


def _loss(value: float | None) -> str:
    return _or_unknown(value, lambda loss: f"{loss:.4f}")


def _or_unknown(value: float | None, text: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else text(value)
