"""How often the 95 % intervals of `gpt2dist fit` hold the truth, by simulation.

    python benchmarks/fit_coverage.py --settings 7 8 10 12 --rounds 100

Losses of a known law at so many sizes and lengths, each with noise, are fitted as a user's are;
fits that the command would refuse do not count. Prints the share of intervals that hold the law's
constants: as they are, and of plain percentiles of the same resampled fits.
"""

from __future__ import annotations

import argparse
import math
from itertools import product

import numpy as np

from gpt2dist.compare.stats import scaling
from gpt2dist.plan.loss.law import EPOCH

SIZES, TOKENS = (1e7, 5e7, 2.5e8, 1e9), (1e8, 1e9, 1e10, 4e10)
TRUTH = np.array([EPOCH.E, EPOCH.A, EPOCH.alpha, EPOCH.B, EPOCH.beta])


def held(settings: int, noise: float, draw: np.random.Generator) -> np.ndarray | None:
    """Whether each constant lies in its interval, expanded and plain; None: no fit."""
    points = list(product(SIZES, TOKENS))
    while True:  # as somebody would train them: no grid, but enough sizes and lengths
        chosen = [points[i] for i in draw.choice(len(points), settings, replace=False)]
        seen = [scaling.Observation("", *point, EPOCH.loss(*point)) for point in chosen]
        if not scaling.doubts_about(seen):
            break
    logs_R3 = np.log([[one.params, one.tokens, one.loss] for one in seen])
    logs_R3[:, 2] += draw.normal(0, noise, settings)
    best, _ = scaling.best_of_starts(logs_R3)
    if scaling.at_bounds(logs_R3, best):
        return None
    fits = scaling.resampled_fits(logs_R3, best, seed=0)
    tails = (scaling.expanded_tail(settings), 0.025)
    ends = [np.quantile(fits, [tail, 1 - tail], axis=0) for tail in tails]
    return np.array([(low <= TRUTH) & (high >= TRUTH) for low, high in ends])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, nargs="+", default=[7, 8, 10, 12])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.003, help="of the loss, relative")
    arguments = parser.parse_args()
    for settings in arguments.settings:
        draw = np.random.default_rng(settings)
        found = [held(settings, arguments.noise, draw) for _ in range(arguments.rounds)]
        fitted = [one for one in found if one is not None]
        expanded, plain = np.mean(fitted, axis=0)
        error = math.sqrt(0.95 * 0.05 / len(fitted))
        names = "  ".join(f"{n} {p:.2f}" for n, p in zip(scaling.CONSTANTS, expanded))
        print(
            f"{settings:3d} settings, {len(fitted)} fits of {len(found)}: {expanded.mean():.3f} "
            f"({names}; chance alone +- {error:.2f}), plain percentiles {plain.mean():.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
