"""Texts in a matplotlib plot that keep out of each other's way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LONGEST_NAME = 30


class Labels:
    """Texts beside points; one that would lie over another is left out, the first ones stay."""

    def __init__(self, axes: Any, points: Sequence[tuple[float, float]]) -> None:
        self._axes = axes
        (x0, y0), (x1, y1) = axes.transAxes.transform([(0, 0), (1, 1)]) * self._per_pixel
        self._view = (x0, y0, x1, y1)
        placed = axes.transData.transform(points) * self._per_pixel
        self._taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in placed]

    @property
    def _per_pixel(self) -> float:
        return 72 / self._axes.figure.dpi

    def place(
        self, point: tuple, text: str, shifts: Sequence[tuple[float, float]], *, size: float,
        color: str, zorder: float,
    ) -> None:  # fmt: skip
        """`shifts`: where to try, in points; a text shifted to the left ends there."""
        from matplotlib.patheffects import withStroke

        text = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
        x, y = self._axes.transData.transform(point) * self._per_pixel
        width, height = 0.56 * size * len(text), 1.2 * size
        for dx, dy in shifts:
            left = x + dx - (width if dx < 0 else 0)
            box = (left, y + dy - height / 2, left + width, y + dy + height / 2)
            outside = box[0] < self._view[0] or box[2] > self._view[2] or box[1] < self._view[1]
            if outside or any(_overlap(box, other) for other in self._taken):
                continue
            self._taken.append(box)
            self._axes.annotate(
                text, point, xytext=(dx, dy), textcoords="offset points",
                ha="right" if dx < 0 else "left", va="center", color=color, fontsize=size,
                zorder=zorder, in_layout=False,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip
            return


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
