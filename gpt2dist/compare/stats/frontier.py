"""Which runs nobody beats at their price, and what a loss cost on the way to it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

Point = tuple[float, float]
"What was spent, and the loss that came of it."


def pareto(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other beats, cheapest first.

    A point is beaten by one that costs no more, loses no more, and is better in one of the two;
    equal points all stay.
    """
    order = sorted(range(len(points)), key=lambda index: points[index])
    kept: list[int] = []
    for index in order:
        best = points[kept[-1]] if kept else (-math.inf, math.inf)
        if points[index][1] < best[1] or points[index] == best:
            kept.append(index)
    return kept


def not_overtaken(ends: Sequence[Point], curves: Iterable[Sequence[Point]]) -> list[int]:
    """Indices of the ends for whose price no curve had come as low before."""
    passed = sorted(point for curve in curves for point in curve)
    spent = [x for x, _ in passed]
    lowest = list(accumulate((y for _, y in passed), min, initial=math.inf))
    return [i for i, (x, y) in enumerate(ends) if lowest[bisect_right(spent, x)] > y]


def spent_to_reach(curve: Sequence[Point], loss: float) -> float | None:
    """What was spent when a learning curve first was at or below `loss`.

    Between two evaluations the loss is taken to fall linearly in the logarithm of what was spent.
    None where it never got there, and where the first evaluation is below it already (then the
    price is at most that one's: see `reached_by`).
    """
    for (x0, y0), (x1, y1) in pairwise(curve):
        if y0 > loss >= y1:
            share = (y0 - loss) / (y0 - y1)
            return math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))
    return None


def reached_by(curve: Sequence[Point], loss: float) -> float | None:
    """What was spent at the first evaluation, where that is at or below `loss` already."""
    return curve[0][0] if curve and curve[0][1] <= loss else None
