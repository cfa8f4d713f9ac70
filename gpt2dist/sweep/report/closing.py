"""The last lines of a sweep: what it came to, what is best, what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpt2dist.human import human_count, human_duration, usd
from gpt2dist.run_files import SWEEP_PICTURE_FILE
from gpt2dist.sweep.report.results import PointResult, best_trial, pareto
from gpt2dist.sweep.sweeper import Sweeper
from gpt2dist.sweep.trial.trial import describe


def closing_lines(
    sweeper: Sweeper, points: Sequence[PointResult], best_file: Path | None, ended: str
) -> list[str]:
    sweep, spent = sweeper.sweep, sweeper.spent()
    money = usd(spent.usd) if sweeper.rent.is_known else "dollars unknown"
    lines = [
        f"{ended}" + (f": {sweeper.stop_reason}" if sweeper.stop_reason else ""),
        f"{human_count(spent.tokens)} tokens in {human_duration(spent.hours * 3600)} of machine "
        f"time, {money} ({sweeper.rent.source})",
    ]
    if sweeper.not_started:
        lines.append(f"{sweeper.not_started} trials were not started or not ended")
    if best_file is None:
        lines.append("no point has finished with all its seeds, so there is no best one")
    else:
        best, first = points[0], sweep.objective[0]
        spread = best.spreads[first]
        about = f"{best.means[first]:.4f}" + (f" +- {spread:.4f}" if spread is not None else "")
        lines.append(f"best: {describe(best.values)}  {first} {about}  {best.trials[0]}")
        if len(sweep.objective) > 1:
            front = pareto(points, sweep.objective)
            lines += [f"pareto: {describe(p.values)}  {_means(p.means)}" for p in front]
        lines.append(
            f"next: gpt2dist train {best_file}   (checkpoint of the best: "
            f"{best_trial(sweeper, best).folder.path})"
        )
    lines.append(f"picture: {sweeper.folder / SWEEP_PICTURE_FILE}   all figures: {sweeper.folder}")
    if ended != "finished":
        lines.append("--resume continues this sweep, with a larger budget if you give one")
    return lines


def _means(means: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in means.items())
