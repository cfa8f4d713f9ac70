"""What is best of a sweep."""

from __future__ import annotations

import random

from gpt2dist.sweep.report.results import PointResult, pareto_points


def test_the_pareto_front_is_what_brute_force_finds():
    draw = random.Random(5)
    points = [
        PointResult(
            n, {}, [], {"val_loss": draw.randint(0, 9), "tokens_per_s": draw.randint(0, 9)}, {}
        )
        for n in range(60)
    ]
    front = {p.point for p in pareto_points(points, ("val_loss", "tokens_per_s"))}
    for own in points:
        better = [
            q
            for q in points
            if q.means["val_loss"] <= own.means["val_loss"]
            and q.means["tokens_per_s"] >= own.means["tokens_per_s"]
            and q.means != own.means
        ]
        assert (own.point in front) == (not better)
