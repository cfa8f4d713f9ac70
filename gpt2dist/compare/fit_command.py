"""`gpt2dist fit`: the scaling law of the user's own runs, written where the planner looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2dist.compare.read.run_folders import named_runs, read_run, runs_in
from gpt2dist.compare.stats.scaling import (
    CONSTANTS,
    RUNS_FOR_INTERVALS,
    ScalingFit,
    fit_scaling,
    observations_of,
)
from gpt2dist.human import human_count
from gpt2dist.plan.loss.own_fit import OWN_FIT_FILE, save_own_fit
from gpt2dist.plan.loss.predict import compute_optimal

LOOSE_RATIO = 3.0
"Upper over lower end of an exponent's interval, from which on a fit is called loose."


@dataclass(frozen=True)
class FitRequest:
    runs: Sequence[str] = ()
    "Folders, or names below runs_dir; none: all runs in runs_dir, trials of sweeps included."
    runs_dir: str = "runs"
    force: bool = False


def fit(request: FitRequest, say: Callable[[str], None]) -> int:
    """Fits, says what came of it and how sure it is, and writes the file the planner reads."""
    runs_dir = Path(request.runs_dir)
    folders = named_runs(request.runs, runs_dir) if request.runs else runs_in(runs_dir, deep=True)
    runs = [read_run(folder) for folder in folders]
    seen, passed_over = observations_of(runs)
    unfinished = sum(run.ended != "finished" for run in runs)
    if unfinished:
        say(f"{unfinished} of {len(runs)} runs did not finish and do not count")
    if passed_over:
        say(f"{passed_over} settings left out: another of the same size and length did better")
    found = fit_scaling(seen, force=request.force)
    for line in describe_fit(found, runs[0].text.source):
        say(line)
    path = runs_dir / OWN_FIT_FILE
    save_own_fit(path, found.own)
    say(f"written to {path}: gpt2dist plan predicts losses with it")
    return 0


def describe_fit(found: ScalingFit, source: str) -> list[str]:
    """The law, its intervals and what they are worth, line by line."""
    own = found.own
    lines = [
        f"loss = {own.E:.3f} + {own.A:.4g} / N^{own.alpha:.3f} + {own.B:.4g} / D^{own.beta:.3f}"
        "   (N parameters, D tokens, nats per token)",
        f"from {own.runs} settings, which lie {own.spread:.3f} nats around it",
    ]
    for name in CONSTANTS:
        low, high = found.intervals[name]
        value = getattr(own, name)
        lines.append(f"  {name:<5}  {value:>10.4g}   95 % interval {low:.4g} to {high:.4g}")
    if own.runs < RUNS_FOR_INTERVALS:
        lines.append(
            f"  approximate: {own.runs} settings are few for five constants; train "
            f"{RUNS_FOR_INTERVALS} or more to rely on the intervals"
        )
    for flops in (1e18, 1e19, 1e20):
        params, tokens = compute_optimal(flops, source, own_fit=own)
        best = f"{human_count(params)} parameters, {human_count(tokens)} tokens"
        lines.append(f"  {flops:.0e} FLOPs are best spent on {best}")
    ratios = {name: high / low for name, (low, high) in found.intervals.items()}
    loose = [name for name in ("alpha", "beta") if ratios[name] > LOOSE_RATIO]
    if loose:
        lines.append(
            f"{' and '.join(loose)} hardly determined: trust the law between these runs, not "
            "beyond them; more sizes and lengths further apart would help"
        )
    return [*lines, *(f"doubtful: {doubt}" for doubt in found.doubts)]
