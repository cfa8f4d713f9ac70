"""The frontier of loss against dollars (hours, tokens, FLOPs) as a PNG for documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2dist.compare.read.run_record import AXIS_TITLES, Axis, spent_text
from gpt2dist.compare.stats.comparison import Comparison, interval_places, series_of
from gpt2dist.track.drawing import INK, MUTED, save_png, say_instead, style_axes, white_figure

LIGHT = ("#2f6fb5", "#d0660a", "#23855a", "#8352b5", "#c2375a", "#0f8494", "#85740d", "#5f6b7a")
DARK = ("#6cabf2", "#f0a252", "#5cc48f", "#b98fe6", "#f2748f", "#4cc3d2", "#d1bf52", "#a9b3c1")
"Of the series, for white and for dark paper."
FAINT = "#9aa4b0"
AXIS_LABELS: dict[Axis, str] = {
    "usd": "cost of the run (dollars)",
    "hours": "time of the run",
    "tokens": "training tokens",
    "flops": "model FLOPs",
}
FEWEST_TICKS, MOST_TICKS = 4, 9
ROUND_HOURS = tuple(
    count / per_hour
    for per_hour, counts in (
        (3600, (1, 2, 5, 10, 15, 20, 30, 45)),
        (60, (1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 45)),
        (1, (1, 1.5, 2, 3, 4, 6, 8, 12, 18)),
        (1 / 24, (1, 1.5, 2, 3, 4, 7, 10, 14, 20, 30, 60, 100, 200, 400)),
    )
    for count in counts
)
NAMED = {"fontsize": 8.5, "color": INK, "zorder": 6}
PUBLISHED = {"fontsize": 8, "color": MUTED, "zorder": 1.5}
LONGEST_NAME = 30
MOST_CURVES = 60
"More learning curves than these would hide the points."


def draw_frontier(comparison: Comparison, axis: Axis, path: Path) -> None:
    """Draws the PNG, replaced in one move; a comparison without a single point says so."""
    figure = white_figure(10, 6)
    axes = figure.subplots()
    style_axes(axes)
    axes.set_xlabel(AXIS_LABELS[axis], color=MUTED)
    axes.set_ylabel(f"validation loss ({comparison.unit})", color=MUTED)
    placed = comparison.placed(axis)
    if placed:
        _draw(axes, comparison, axis, [point for _, point in placed])
    else:
        say_instead(axes, f"no run with known {axis} and a final loss")
    save_png(figure, path)


def _draw(axes: Any, comparison: Comparison, axis: Axis, points: Sequence[tuple]) -> None:
    axes.set(xscale="log", yscale="log")
    _limit(axes, axis, points)
    references = _draw_references(axes, comparison, axis)
    names, series = series_of(comparison)
    if len(comparison.runs) <= MOST_CURVES:
        for run, colour in zip(comparison.runs, series):
            curve = comparison.curve(run, axis)
            if len(curve) > 1:
                axes.plot(*zip(*curve), color=LIGHT[colour], alpha=0.22, linewidth=1, zorder=2)
    frontier = comparison.frontier[axis]
    ends = dict(comparison.placed(axis))
    steps = [ends[index] for index in frontier]
    axes.plot(*zip(*steps), color=INK, linewidth=1.4, drawstyle="steps-post", zorder=3)
    _draw_intervals(axes, comparison, axis, series)
    _draw_points(axes, comparison, axis, names, series)
    axes.set_title(
        f"What nobody beats: validation loss against {AXIS_TITLES[axis]}",
        loc="left", color=INK, fontsize=13, fontweight="bold",
    )  # fmt: skip
    legend = axes.legend(loc="upper right", labelcolor=INK, fontsize=9, edgecolor="white")
    legend.get_frame().set_alpha(0.85)
    axes.figure.draw_without_rendering()  # settles where things are
    names_of = [comparison.runs[index].name for index in frontier]
    _name(axes, comparison, axis, list(zip(steps, names_of)), references)


def _draw_intervals(axes: Any, comparison: Comparison, axis: Axis, series: Sequence[int]) -> None:
    bars: dict[int, list[tuple[float, float, float, float]]] = {}
    for group, x, runs in interval_places(comparison, axis):
        interval = group.interval
        assert interval is not None
        bar = (x, interval.mean, interval.mean - interval.low, interval.high - interval.mean)
        bars.setdefault(series[comparison.runs.index(runs[0])], []).append(bar)
    for colour, found in bars.items():
        xs, means, below, above = zip(*found)
        style = {"linestyle": "none", "linewidth": 1.4, "elinewidth": 1.4, "capsize": 4}
        axes.errorbar(xs, means, [below, above], color=LIGHT[colour], zorder=4, **style)


def _draw_points(
    axes: Any, comparison: Comparison, axis: Axis, names: Sequence[str], series: Sequence[int]
) -> None:
    placed = comparison.placed(axis)
    for colour, name in enumerate(names):
        for finished in (True, False):
            chosen = [
                point
                for index, point in placed
                if (series[index], comparison.runs[index].ended == "finished") == (colour, finished)
            ]
            if chosen:
                inside, edge = (LIGHT[colour], "white") if finished else ("white", LIGHT[colour])
                style = {"marker": "o", "markersize": 6.5, "color": LIGHT[colour], "zorder": 5}
                axes.plot(
                    *zip(*chosen), linestyle="none", markerfacecolor=inside, markeredgecolor=edge,
                    label=name if finished else f"{name}, not finished", **style,
                )  # fmt: skip


def _draw_references(axes: Any, comparison: Comparison, axis: Axis) -> list[tuple[Any, str]]:
    """Draws lines and points, and returns the named points that are in view."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    named, series = [], dict[str, list[tuple[float, float]]]()
    for reference in comparison.references:
        x = reference.spent[axis]
        if reference.kind == "level":
            axes.axhline(reference.loss, color=FAINT, linewidth=0.9, linestyle=(0, (5, 4)))
        elif x is not None:
            series.setdefault(reference.series, []).append((x, reference.loss))
            if reference.label and left < x < right and low < reference.loss < high:
                named.append(((x, reference.loss), reference.label))
    for name, points in series.items():
        style = {"color": FAINT, "linewidth": 1, "marker": "D", "markersize": 3.5, "zorder": 1}
        axes.plot(*zip(*sorted(points)), linestyle="-" if name else "none", **style)
    return named


def _name(
    axes: Any,
    comparison: Comparison,
    axis: Axis,
    frontier: Sequence[tuple[Any, str]],
    references: Sequence[tuple[Any, str]],
) -> None:
    """Names of the frontier below and left of it, where no run can be; then the references."""
    labels = Labels(axes, [point for _, point in comparison.placed(axis)])
    for point, name in reversed(frontier):
        labels.place(point, name, [(-6, -6), (-6, -17)], NAMED)
    low, high = axes.get_ylim()
    for reference in comparison.references:
        if reference.kind == "level" and low < reference.loss < high:
            point = (axes.get_xlim()[1], reference.loss)
            edge = [(-3, 6), (-3, -6)]
            labels.place(point, reference.label, edge, PUBLISHED)
    for point, name in references:
        around = [(6, 6), (6, -6), (-6, 6), (-6, -6), (6, 16), (6, -16)]
        labels.place(point, name, around, PUBLISHED)


def _limit(axes: Any, axis: Axis, points: Sequence[tuple[float, float]]) -> None:
    """Room on the left for names; round numbers on both scales."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    xs, ys = zip(*points)
    span = max(math.log(max(xs) / min(xs)), math.log(3))
    axes.set_xlim(min(xs) * math.exp(-0.3 * span), max(xs) * math.exp(0.12 * span))
    height = max(math.log(max(ys) / min(ys)), 0.02)
    axes.set_ylim(min(ys) * math.exp(-0.15 * height), max(ys) * math.exp(0.15 * height))
    left, right = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(left, right, axis)))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, axis)))
    axes.yaxis.set_major_locator(FixedLocator(MaxNLocator(8).tick_values(*axes.get_ylim())))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(FixedLocator([]))
    axes.set_ylim(min(ys) * math.exp(-0.15 * height), max(ys) * math.exp(0.15 * height))


def log_ticks(low: float, high: float, axis: Axis) -> list[float]:
    """Four to nine round numbers between the ends of a log scale; hours as people divide them."""
    if axis == "hours":
        choices = [[tick for tick in ROUND_HOURS if low <= tick <= high]]
    else:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        choices = [
            [
                tick
                for tick in (factor * 10.0**decade for decade in decades for factor in factors)
                if low <= tick <= high
            ]
            for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
        ]
    ticks = next((ticks for ticks in choices if len(ticks) >= FEWEST_TICKS), choices[-1])
    return ticks[:: max(1, -(-len(ticks) // MOST_TICKS))]


def _tick(value: float, axis: Axis) -> str:
    if axis == "usd":
        return f"${value:,.10g}"
    if axis == "flops":
        return f"{value:.2g}".replace("e+", "e")
    if axis == "hours":
        return (
            spent_text(value, axis).replace("h00m", "h").replace("m00s", "m").replace("d00h", "d")
        )
    digits = spent_text(value, axis)
    return f"{float(digits[:-1]):g}{digits[-1]}" if digits[-1].isalpha() else digits


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
        self, point: tuple, text: str, shifts: Sequence[tuple[float, float]], style: dict[str, Any]
    ) -> None:
        """`shifts`: where to try, in points; a text shifted to the left ends there."""
        from matplotlib.patheffects import withStroke

        text = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
        x, y = self._axes.transData.transform(point) * self._per_pixel
        width, height = 0.56 * style["fontsize"] * len(text), 1.2 * style["fontsize"]
        for dx, dy in shifts:
            left = x + dx - (width if dx < 0 else 0)
            box = (left, y + dy - height / 2, left + width, y + dy + height / 2)
            outside = box[0] < self._view[0] or box[2] > self._view[2] or box[1] < self._view[1]
            if outside or any(_overlap(box, other) for other in self._taken):
                continue
            self._taken.append(box)
            self._axes.annotate(
                text, point, xytext=(dx, dy), textcoords="offset points",
                ha="right" if dx < 0 else "left", va="center", in_layout=False, **style,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip
            return


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
