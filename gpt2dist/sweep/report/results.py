"""What came of a sweep: points over their seeds, the best one, and the files that say so."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from gpt2dist.config.load import dump
from gpt2dist.disk import write_atomically
from gpt2dist.human import human_count, human_duration, usd
from gpt2dist.run_files import (
    BEST_FILE,
    SWEEP_PICTURE_FILE,
    SWEEP_SUMMARY_FILE,
    checkpoint_folders,
)
from gpt2dist.sweep.report.loss_picture import draw_sweep
from gpt2dist.sweep.search.sweeper import Sweeper
from gpt2dist.sweep.spec.sweep import LARGER_IS_BETTER, Objective, Values, point_text
from gpt2dist.sweep.trial.trial import Trial, TrialRecord

RESULT_FILES = (BEST_FILE, SWEEP_PICTURE_FILE, SWEEP_SUMMARY_FILE)


@dataclass(frozen=True)
class PointResult:
    """A point of which every seed finished."""

    point: int
    values: Values
    trials: list[str]
    means: dict[str, float]
    "By objective."
    spreads: dict[str, float | None]
    "Sample standard deviation over the seeds; None of a single seed."


def write_results(sweeper: Sweeper, ended: str) -> dict[str, Any]:
    """`sweep.json`: every trial and point in figures; beside it the best config and a picture.

    Returns the content of `sweep.json`; None is unknown.
    """
    sweep, spent = sweeper.sweep, sweeper.spent()
    points = _finished_points(sweeper)
    best = points[0] if points else None
    summary: dict[str, Any] = {
        "sweep": sweep.name,
        "base": sweep.base,
        "ended": ended,
        "reason": sweeper.stop_reason,
        "time": round(time.time(), 3),
        "search": sweep.search.kind,
        "scheduler": sweep.scheduler.kind,
        "objective": list(sweep.objective),
        "usd": spent.usd if sweeper.share.is_known else None,
        "machine_hours": spent.hours,
        "tokens": int(spent.tokens),
        "trials_not_started": sweeper.not_started,
        "best": _write_best(sweeper, best) if best else None,
        "pareto": [vars(result) for result in pareto_points(points, sweep.objective)],
        "points": [vars(result) for result in points],
        "trials": [_trial(record, sweeper) for record in sweeper.records],
    }
    write_atomically(sweeper.folder / SWEEP_SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")
    picture = sweeper.folder / SWEEP_PICTURE_FILE
    draw_sweep(sweep, sweeper.records, best.point if best else None, picture)
    return summary


def end_lines(sweeper: Sweeper, summary: dict[str, Any]) -> list[str]:
    """What a sweep came to, what is best, what to type next; of the content of `sweep.json`."""
    ended, best, spent = summary["ended"], summary["best"], summary["usd"]
    first, *others = summary["objective"]
    lines = [
        f"{ended}: {summary['reason']}" if summary["reason"] else ended,
        f"{human_count(summary['tokens'])} tokens in "
        f"{human_duration(summary['machine_hours'] * 3600)} of machine time, "
        f"{'dollars unknown' if spent is None else usd(spent)} ({sweeper.share.source})",
    ]
    if summary["trials_not_started"]:
        lines.append(f"{summary['trials_not_started']} trials were not started or not ended")
    if best is None:
        lines.append("no point has finished with all its seeds, so there is no best one")
    else:
        spread = best["spreads"][first]
        about = f"{best['means'][first]:.4f}" + (f" +- {spread:.4f}" if spread is not None else "")
        lines.append(f"best: {point_text(best['values'])}  {first} {about}  {best['trials'][0]}")
        for point in summary["pareto"] if others else []:
            means = ", ".join(f"{name} {value:.4g}" for name, value in point["means"].items())
            lines.append(f"pareto: {point_text(point['values'])}  {means}")
        lines.append(
            f"next: gpt2dist train {sweeper.folder / BEST_FILE}   (checkpoint of the best: "
            f"{sweeper.folder / best['trial']})"
        )
    lines.append(f"picture: {sweeper.folder / SWEEP_PICTURE_FILE}   all figures: {sweeper.folder}")
    if ended != "finished":
        lines.append("--resume continues this sweep, with a larger budget if you give one")
    return lines


def pareto_points(
    points: Sequence[PointResult], objectives: Sequence[Objective]
) -> list[PointResult]:
    """The points that no other beats in one objective without losing in another."""

    def costs(result: PointResult) -> list[float]:
        return [_cost(name, result.means[name]) for name in objectives]

    def beats(other: list[float], own: list[float]) -> bool:
        return other != own and all(a <= b for a, b in zip(other, own))

    return [p for p in points if not any(beats(costs(q), costs(p)) for q in points)]


def _finished_points(sweeper: Sweeper) -> list[PointResult]:
    """Best first, by the first objective."""
    found = []
    for point in sorted({record.trial.point for record in sweeper.records}):
        results = sweeper.results(point)
        if results is None:
            continue
        columns: dict[str, list[float]] = {
            name: [reached[name] for _, reached in results] for name in sweeper.sweep.objective
        }
        trials, values = [r.trial.name for r, _ in results], results[0][0].trial.values
        means = {name: fmean(column) for name, column in columns.items()}
        spreads = {n: stdev(column) if len(column) > 1 else None for n, column in columns.items()}
        found.append(PointResult(point, values, trials, means, spreads))
    first = sweeper.sweep.objective[0]
    return sorted(found, key=lambda result: _cost(first, result.means[first]))


def _write_best(sweeper: Sweeper, best: PointResult) -> dict[str, Any]:
    """The best point as a config file that `train`, `plan` and `launch` take; what is said of it.

    Its trial is the best of the point's seeds.
    """
    sweep, first = sweeper.sweep, sweeper.sweep.objective[0]
    spread = best.spreads[first]
    about = f"{first} {best.means[first]:.6g}" + (f" +- {spread:.2g}" if spread is not None else "")
    text = (
        f"# Best of sweep {sweep.name}: {point_text(best.values)}\n"
        f"# {about} over {len(best.trials)} seed(s): {', '.join(best.trials)}\n"
        + dump(Trial(sweep, 0, best.point, best.values, sweep.seeds[0]).config)
    )
    write_atomically(sweeper.folder / BEST_FILE, text)
    results = sweeper.results(best.point) or []
    record = min(results, key=lambda pair: _cost(first, pair[1][first]))[0]
    return {**vars(best), "trial": record.trial.name, "checkpoint": _best_checkpoint(record)}


def _best_checkpoint(record: TrialRecord) -> str | None:
    """The newest where none was the best at its time."""
    from gpt2dist.train.core import checkpoint

    best = checkpoint.best(record.folder)
    paths = [best.path] if best is not None else checkpoint_folders(record.folder)
    return str(paths[0]) if paths else None


def _trial(record: TrialRecord, sweeper: Sweeper) -> dict[str, Any]:
    spent = record.spent(sweeper.share.part)
    return {
        "trial": record.trial.name,
        "point": record.trial.point,
        "values": record.trial.values,
        "seed": record.trial.seed,
        "state": record.state,
        "reason": record.reason,
        "starts": record.starts,
        "tokens": record.tokens,
        "val_loss": record.val_loss,
        "usd": spent.usd if sweeper.share.is_known else None,
        "machine_hours": spent.hours,
    }


def _cost(name: str, value: float) -> float:
    return -value if name in LARGER_IS_BETTER else value
