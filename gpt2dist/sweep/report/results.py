"""What came of a sweep: points over their seeds, the best one, and two files that say so."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2dist.config.load import dump
from gpt2dist.disk import write_atomically
from gpt2dist.run_files import BEST_FILE, SWEEP_SUMMARY_FILE, checkpoint_folders
from gpt2dist.sweep.spec.schema import LARGER_IS_BETTER, Objective
from gpt2dist.sweep.spec.space import Values
from gpt2dist.sweep.sweeper import Sweeper
from gpt2dist.sweep.trial.record import Record
from gpt2dist.sweep.trial.trial import describe, point_config


@dataclass(frozen=True)
class PointResult:
    """A point of which every seed finished."""

    point: int
    values: Values
    trials: tuple[str, ...]
    means: dict[str, float]
    "By objective."
    spreads: dict[str, float | None]
    "Sample standard deviation over the seeds; None of a single seed."


def finished_points(sweeper: Sweeper) -> list[PointResult]:
    """Best first, by the first objective."""
    found = []
    for point in sorted({record.trial.point for record in sweeper.records}):
        results = sweeper.results(point)
        if results is not None:
            found.append(_point(point, results, sweeper.sweep.objective))
    first = sweeper.sweep.objective[0]
    return sorted(found, key=lambda result: _cost(first, result.means[first]))


def pareto(points: Sequence[PointResult], objectives: Sequence[Objective]) -> list[PointResult]:
    """The points that no other beats in one objective without losing in another."""

    def costs(result: PointResult) -> list[float]:
        return [_cost(name, result.means[name]) for name in objectives]

    def beats(other: list[float], own: list[float]) -> bool:
        return other != own and all(a <= b for a, b in zip(other, own))

    return [p for p in points if not any(beats(costs(q), costs(p)) for q in points)]


def best_trial(sweeper: Sweeper, best: PointResult) -> Record:
    """The best of the best point's seeds."""
    first = sweeper.sweep.objective[0]
    results = sweeper.results(best.point)
    assert results is not None
    return min(results, key=lambda pair: _cost(first, pair[1][first]))[0]


def best_checkpoint(record: Record) -> Path | None:
    from gpt2dist.train.core import checkpoint

    found = checkpoint.best(record.folder.path)
    if found is not None:
        return found.path
    newest = checkpoint_folders(record.folder.path)
    return newest[0] if newest else None


def write_best(sweeper: Sweeper, best: PointResult) -> Path:
    """The best point as a config file that `train`, `plan` and `launch` take."""
    sweep = sweeper.sweep
    first = sweep.objective[0]
    spread = best.spreads[first]
    about = f"{first} {best.means[first]:.6g}" + (f" +- {spread:.2g}" if spread is not None else "")
    text = (
        f"# Best of sweep {sweep.name}: {describe(best.values)}\n"
        f"# {about} over {len(best.trials)} seed(s): {', '.join(best.trials)}\n"
        + dump(point_config(sweep, best.values, sweep.seeds[0]))
    )
    path = sweeper.folder / BEST_FILE
    write_atomically(path, text)
    return path


def write_summary(sweeper: Sweeper, points: Sequence[PointResult], ended: str) -> dict[str, Any]:
    """`sweep.json`: every trial and point in figures; None is unknown."""
    sweep, rent, spent = sweeper.sweep, sweeper.rent, sweeper.spent()
    best = points[0] if points else None
    record = best_trial(sweeper, best) if best else None
    path = best_checkpoint(record) if record else None
    summary: dict[str, Any] = {
        "sweep": sweep.name,
        "base": sweep.base,
        "ended": ended,
        "reason": sweeper.stop_reason,
        "time": round(time.time(), 3),
        "search": sweep.search.kind,
        "scheduler": sweep.scheduler.kind,
        "objective": list(sweep.objective),
        "usd": spent.usd if rent.is_known else None,
        "machine_hours": spent.hours,
        "tokens": int(spent.tokens),
        "trials_not_started": sweeper.not_started,
        "best": None
        if best is None or record is None
        else {
            **_plain(best),
            "trial": record.trial.name,
            "checkpoint": str(path) if path else None,
        },
        "pareto": [_plain(result) for result in pareto(points, sweep.objective)],
        "points": [_plain(result) for result in points],
        "trials": [_trial(record, sweeper) for record in sweeper.records],
    }
    write_atomically(sweeper.folder / SWEEP_SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")
    return summary


def _point(
    point: int, results: Sequence[tuple[Record, dict[str, float]]], names: Sequence[Objective]
) -> PointResult:
    columns = {name: [values[name] for _, values in results] for name in names}
    return PointResult(
        point=point,
        values=results[0][0].trial.values,
        trials=tuple(record.trial.name for record, _ in results),
        means={name: statistics.fmean(column) for name, column in columns.items()},
        spreads={
            name: statistics.stdev(column) if len(column) > 1 else None
            for name, column in columns.items()
        },
    )


def _trial(record: Record, sweeper: Sweeper) -> dict[str, Any]:
    spent = record.folder.spent(sweeper.rent.share)
    return {
        "trial": record.trial.name,
        "point": record.trial.point,
        "values": record.trial.values,
        "seed": record.trial.seed,
        "state": record.state,
        "reason": record.reason,
        "starts": record.starts,
        "tokens": record.folder.tokens,
        "val_loss": record.folder.val_loss,
        "usd": spent.usd if sweeper.rent.is_known else None,
        "machine_hours": spent.hours,
    }


def _plain(result: PointResult) -> dict[str, Any]:
    return {**vars(result), "trials": list(result.trials)}


def _cost(name: str, value: float) -> float:
    return -value if name in LARGER_IS_BETTER else value
