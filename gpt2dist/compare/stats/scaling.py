"""The scaling law of a user's own runs, how sure it is, and whether they support one at all."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2dist.compare.read.run_record import Run
from gpt2dist.compare.stats.chinchilla import Points, at_bounds, constants, minimise, starts
from gpt2dist.errors import BadInput
from gpt2dist.plan.loss.law import effective_tokens
from gpt2dist.plan.loss.own_fit import OwnFit
from gpt2dist.plan.loss.predict import published_text

CONSTANTS = ("E", "A", "alpha", "B", "beta")
FEWEST_RUNS = 6
"One more than there are unknowns: fewer leave no spread to see."
FEWEST_VALUES = 3
"Of sizes, and of token counts: two fit any exponent."
SMALLEST_SPAN = 3.0
"Largest over smallest size, and token count."
CLOSEST_CORRELATION = 0.97
"Of the logarithms of size and tokens: beyond it their effects cannot be told apart."
SMALLEST_PART = 0.01
"Share of the loss that each term has to have somewhere among the runs."
RESAMPLES = 400


@dataclass(frozen=True)
class Observation:
    """What one setting came to: the mean over its seeds."""

    name: str
    params: float
    tokens: float
    "Repeats of known text discounted, as the planner does."
    loss: float


@dataclass(frozen=True)
class ScalingFit:
    own: OwnFit
    intervals: Mapping[str, tuple[float, float]]
    "95 %, by resampling the observations."
    doubts: tuple[str, ...]
    "Why the runs do not support it; empty for a sound fit."


def observations_of(runs: Sequence[Run]) -> tuple[list[Observation], int]:
    """One observation per size and length, and how many settings were left out.

    Finished runs only. Of several settings with the same size and length the best counts: the law
    describes what well-tuned runs reach.
    """
    families: dict[str, list[Run]] = {}
    for run in runs:
        if run.ended == "finished" and run.final_val_loss is not None:
            families.setdefault(run.family, []).append(run)
    best: dict[tuple[float, float], Observation] = {}
    for members in families.values():
        run = members[0]
        _, unique = published_text(run.text.source)
        seen = Observation(
            name=run.name,
            params=run.params,
            tokens=effective_tokens(run.tokens, unique),
            loss=statistics.fmean(member.final_val_loss or 0.0 for member in members),
        )
        place = (seen.params, seen.tokens)
        if place not in best or seen.loss < best[place].loss:
            best[place] = seen
    found = sorted(best.values(), key=lambda seen: (seen.params, seen.tokens))
    return found, len(families) - len(found)


def fit_scaling(seen: Sequence[Observation], *, force: bool = False, seed: int = 0) -> ScalingFit:
    """The law of least Huber loss; BadInput says why the runs support none, unless forced.

    Fewer than FEWEST_RUNS cannot be forced: they leave nothing to estimate the spread from.
    """
    if len(seen) < FEWEST_RUNS:
        raise BadInput(
            f"{_plural(len(seen), 'finished setting')} of different size or length; a fit of five "
            f"constants needs {FEWEST_RUNS} or more"
        )
    doubts = doubts_about(seen)
    if doubts and not force:
        raise BadInput(f"these runs support no fit: {'; '.join(doubts)}; --force fits all the same")
    params, tokens, losses = (
        np.array([getattr(one, name) for one in seen], dtype=float)
        for name in ("params", "tokens", "loss")
    )
    points = Points.of(params, tokens, losses)
    first = starts(points)
    found, objectives = minimise(points, np.ones((len(first), len(seen))), first)
    best = found[int(objectives.argmin())]
    values = dict(zip(CONSTANTS, (float(value) for value in constants(points, best[None])[0])))
    law = OwnFit(**values, spread=0.0, runs=len(seen), made="").law
    misses = [law.loss(one.params, one.tokens) - one.loss for one in seen]
    doubts += _doubts_after(values, seen, at_bounds(points, best))
    if doubts and not force:
        raise BadInput(f"these runs support no fit: {'; '.join(doubts)}; --force fits all the same")
    return ScalingFit(
        own=OwnFit(
            **values,
            spread=math.sqrt(math.fsum(m * m for m in misses) / (len(seen) - len(CONSTANTS))),
            runs=len(seen),
            made=_made(seen, forced=bool(doubts)),
        ),
        intervals=_intervals(points, best, seed),
        doubts=tuple(doubts),
    )


def doubts_about(seen: Sequence[Observation]) -> list[str]:
    """What the choice of sizes and lengths lacks for a fit."""
    doubts = []
    for name, values in (
        ("sizes", sorted({one.params for one in seen})),
        ("token counts", sorted({one.tokens for one in seen})),
    ):
        if len(values) < FEWEST_VALUES:
            doubts.append(f"{len(values)} different {name}, {FEWEST_VALUES} are needed")
        elif values[-1] / values[0] < SMALLEST_SPAN:
            doubts.append(
                f"{name} within a factor of {values[-1] / values[0]:.1f}, "
                f"{SMALLEST_SPAN:g} is needed"
            )
    if not doubts:
        r = statistics.correlation(
            [math.log(one.params) for one in seen], [math.log(one.tokens) for one in seen]
        )
        if abs(r) > CLOSEST_CORRELATION:
            doubts.append(
                f"tokens go with size (correlation {r:.2f}), so their effects cannot be told "
                "apart: train one size for several lengths"
            )
    return doubts


def _doubts_after(
    values: Mapping[str, float], seen: Sequence[Observation], bounds: Sequence[str]
) -> list[str]:
    doubts = [f"{name} is not determined (it ran to {values[name]:.3g})" for name in bounds]
    by_size = max(values["A"] / one.params ** values["alpha"] / one.loss for one in seen)
    by_tokens = max(values["B"] / one.tokens ** values["beta"] / one.loss for one in seen)
    for what, part in (("size", by_size), ("length", by_tokens)):
        if part < SMALLEST_PART and not bounds:
            doubts.append(f"loss hardly depends on {what} (at most {part:.1%} of it)")
    return doubts


def _intervals(points: Points, best: np.ndarray, seed: int) -> dict[str, tuple[float, float]]:
    """Percentiles over fits of runs drawn with replacement, each started from the best fit."""
    runs = len(points.log_loss)
    drawn = np.random.default_rng(seed).integers(0, runs, (RESAMPLES, runs))
    weights_SR = np.stack([np.bincount(row, minlength=runs) for row in drawn]).astype(float)
    found, _ = minimise(points, weights_SR, np.repeat(best[None], RESAMPLES, axis=0))
    low, high = np.percentile(constants(points, found), [2.5, 97.5], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(CONSTANTS, low, high)}


def _made(seen: Sequence[Observation], *, forced: bool) -> str:
    names = ", ".join(one.name for one in seen[:4])
    more = f" and {len(seen) - 4} more" if len(seen) > 4 else ""
    return f"{time.strftime('%Y-%m-%d')} from {names}{more}{', forced' if forced else ''}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")
