"""The scaling law of a user's own runs, how sure it is, and whether they support one at all.

loss = E + A / N^alpha + B / D^beta, by the Huber loss of the logarithms' residuals: Hoffmann et
al., arXiv:2203.15556, approach 3.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from gpt2dist.compare.read.run_record import Run
from gpt2dist.errors import BadInput
from gpt2dist.plan.loss.law import effective_tokens
from gpt2dist.plan.loss.own_fit import OwnFit
from gpt2dist.plan.loss.predict import published_text

# R runs, 5 unknowns: logarithms of E, A and B (at the runs' centre), alpha and beta

Interval = tuple[float, float]
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
RUNS_FOR_INTERVALS = 10
"Fewer leave too little to resample for an interval to be held to its 95 %."
HUBER_DELTA = 1e-3
"Beyond it a residual counts linearly. Hoffmann et al., section D.2."
EXPONENTS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)
"Where the search starts, for alpha and for beta."
SMALLEST_EXPONENT, LARGEST_EXPONENT = 0.01, 4.0
SMALLEST_SHARE = 1e-4
"Of the mean loss: what E, A / N^alpha or B / D^beta is at least, at the centre of the runs."
MOST_STEPS = 2000


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
    intervals: Mapping[str, Interval]
    "95 %, by resampling the observations; approximate below RUNS_FOR_INTERVALS."
    doubts: tuple[str, ...]
    "Why the runs do not support it; empty for a sound fit."


def observations_of(runs: Sequence[Run]) -> tuple[list[Observation], int]:
    """One observation per size and length, and how many settings were left out.

    Finished runs only, of one text. Of several settings with the same size and length the best
    counts: the law describes what well-tuned runs reach.
    """
    texts = {run.text for run in runs}
    if len(texts) > 1:  # no force helps: such losses do not compare
        raise BadInput(
            f"runs learned different text: {'; '.join(sorted(map(str, texts)))}; one law describes "
            "one text and tokenizer: name the runs of one"
        )
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
    logs_R3 = np.log([[one.params, one.tokens, one.loss] for one in seen])
    best, _ = best_of_starts(logs_R3)
    values = constants(logs_R3, best)
    law = OwnFit(**values, spread=0.0, runs=len(seen), made="").law
    misses = [law.loss(one.params, one.tokens) - one.loss for one in seen]
    doubts += _doubts_after(values, seen, at_bounds(logs_R3, best))
    if doubts and not force:
        raise BadInput(f"these runs support no fit: {'; '.join(doubts)}; --force fits all the same")
    return ScalingFit(
        own=OwnFit(
            **values,
            spread=math.sqrt(math.fsum(m * m for m in misses) / (len(seen) - len(CONSTANTS))),
            runs=len(seen),
            made=_made(seen, forced=bool(doubts)),
        ),
        intervals=_intervals(logs_R3, best, seed),
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


def _intervals(logs_R3: np.ndarray, best: np.ndarray, seed: int) -> dict[str, Interval]:
    """Percentiles of the constants over resampled fits.

    Resampled runs lie closer to their own fits than new ones would, by the square root of the
    degrees of freedom over the runs, and their spread is itself uncertain: the percentiles are
    those of a normal distribution at Student's t, so expanded (Hesterberg, arXiv:1411.5279).
    """
    tail = expanded_tail(len(logs_R3))
    ends = np.quantile(resampled_fits(logs_R3, best, seed), [tail, 1 - tail], axis=0)
    return {name: (float(low), float(high)) for name, low, high in zip(CONSTANTS, *ends)}


def resampled_fits(logs_R3: np.ndarray, best: np.ndarray, seed: int) -> np.ndarray:
    """Constants of fits of runs drawn with replacement, each search started from the best fit."""
    runs = len(logs_R3)
    drawn = np.random.default_rng(seed).integers(0, runs, (RESAMPLES, runs))
    centre = logs_R3.mean(axis=0)
    fits = [constants(logs_R3, minimise(logs_R3[one], best, centre)[0]) for one in drawn]
    return np.array([[fit[name] for name in CONSTANTS] for fit in fits])


def expanded_tail(runs: int) -> float:
    """Share of the resampled fits that a 95 % interval leaves out on either side."""
    from scipy.special import ndtr, stdtrit

    freedom = runs - len(CONSTANTS)
    return float(ndtr(math.sqrt(runs / freedom) * stdtrit(freedom, 0.025)))


def _made(seen: Sequence[Observation], *, forced: bool) -> str:
    names = ", ".join(one.name for one in seen[:4])
    more = f" and {len(seen) - 4} more" if len(seen) > 4 else ""
    return f"{time.strftime('%Y-%m-%d')} from {names}{more}{', forced' if forced else ''}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


def best_of_starts(logs_R3: np.ndarray) -> tuple[np.ndarray, float]:
    """Unknowns and Huber loss of the best search, one from each pair of exponents.

    Given those, E, A and B solve a linear problem.
    """
    centred_R3, loss_R = logs_R3 - logs_R3.mean(axis=0), np.exp(logs_R3[:, 2])
    found = []
    for exponents in product(EXPONENTS, EXPONENTS):
        powers_R2 = np.exp(-np.array(exponents) * centred_R3[:, :2])
        # Divided by the loss, so that relative residuals count, as in the logarithm.
        terms_R3 = np.column_stack([np.ones_like(loss_R), powers_R2]) / loss_R[:, None]
        solved_3, *_ = np.linalg.lstsq(terms_R3, np.ones_like(loss_R), rcond=None)
        parts_3 = np.log(np.maximum(solved_3, 10 * SMALLEST_SHARE * loss_R.mean()))
        found.append(minimise(logs_R3, np.concatenate([parts_3, np.log(exponents)])))
    return min(found, key=lambda one: one[1])


def minimise(
    logs_R3: np.ndarray, start_5: np.ndarray, centre: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """The unknowns of least Huber loss that a search from `start_5` finds, and that loss.

    Sizes and tokens are centred, so that A and alpha do not pull at each other.
    """
    from scipy.optimize import least_squares

    n_R, d_R, _ = (logs_R3 - (logs_R3.mean(axis=0) if centre is None else centre)).T
    low, high = _bounds(logs_R3)

    def residuals(x_5: np.ndarray) -> np.ndarray:
        """Logarithm of the law minus that of the loss."""
        return np.logaddexp.reduce(terms(x_5), axis=0) - logs_R3[:, 2]

    def terms(x_5: np.ndarray) -> np.ndarray:
        e, a, b, log_alpha, log_beta = x_5
        return np.stack([e + 0 * n_R, a - np.exp(log_alpha) * n_R, b - np.exp(log_beta) * d_R])

    def derivatives(x_5: np.ndarray) -> np.ndarray:
        shares_3R = np.exp(terms(x_5) - np.logaddexp.reduce(terms(x_5), axis=0))
        by_alpha, by_beta = (-np.exp(x_5[3:, None]) * [n_R, d_R]) * shares_3R[1:]
        return np.column_stack([*shares_3R, by_alpha, by_beta])

    found = least_squares(
        residuals,
        np.clip(start_5, low + 1e-9, high - 1e-9),
        derivatives,
        bounds=(low, high),
        loss="huber",
        f_scale=HUBER_DELTA,
        xtol=1e-10,
        ftol=1e-10,
        gtol=1e-10,
        max_nfev=MOST_STEPS,
    )
    return found.x, float(found.cost)


def constants(logs_R3: np.ndarray, x_5: np.ndarray) -> dict[str, float]:
    """E, A, alpha, B, beta for parameters and tokens as they are counted."""
    (n, d, _), (e, a, b, log_alpha, log_beta) = logs_R3.mean(axis=0), x_5
    alpha, beta = math.exp(log_alpha), math.exp(log_beta)
    values = (math.exp(e), math.exp(a + alpha * n), alpha, math.exp(b + beta * d), beta)
    return dict(zip(CONSTANTS, values))


def at_bounds(logs_R3: np.ndarray, x_5: np.ndarray) -> list[str]:
    """Unknowns that ended where the search was not let further."""
    found = zip(("E", "A", "B", "alpha", "beta"), x_5, *_bounds(logs_R3))
    return [name for name, x, low, high in found if x <= low + 1e-6 or x >= high - 1e-6]


def _bounds(logs_R3: np.ndarray) -> np.ndarray:
    part = logs_R3[:, 2].mean() + np.log([SMALLEST_SHARE, 10])
    return np.column_stack([*[part] * 3, *[np.log([SMALLEST_EXPONENT, LARGEST_EXPONENT])] * 2])
