"""The learning curve of a run as a picture: loss and rate against tokens, and what they cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt2dist.human import human_count, human_duration, usd
from gpt2dist.track.drawing import GRID, INK, MUTED, save_png, say_instead, style_axes, white_figure
from gpt2dist.track.rows import Row

TRAIN, VAL, RATE = "#4c78a8", "#d1495b", "#8a6fb0"
SMOOTHING_SHARE = 0.03
"Window of the smoothed training loss, as a share of all rows; at most SMOOTHING_ROWS."
SMOOTHING_ROWS = 400

Point = tuple[float, float]


def draw_curve(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draws the rows of one run into a PNG, replaced in one move; any number of rows will do."""
    figure = white_figure(9, 5.4)
    if _points(rows, "lr"):
        loss_axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
        _draw_rate(rate_axes, rows)
        bottom = rate_axes
    else:
        loss_axes = bottom = figure.subplots()
    _draw_loss(loss_axes, rows)
    bottom.set_xlabel("training tokens", color=MUTED)
    bottom.xaxis.set_major_formatter(_tokens_label)
    if rows:
        _draw_price(loss_axes, rows)
    figure.suptitle(title, x=0.012, ha="left", color=INK, fontsize=13, fontweight="bold")
    save_png(figure, Path(path))


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Moving mean of the middle half of each window, so that single spikes leave no trace.

    The window shrinks towards the steep start and is one-sided at the end.
    """
    half = window // 2
    averages = []
    for at in range(len(values)):
        reach = min(half, at)
        near = sorted(values[at - reach : at + reach + 1])
        quarter = len(near) // 4
        averages.append(statistics.fmean(near[quarter : len(near) - quarter]))
    return averages


def _draw_loss(axes: Any, rows: Sequence[Row]) -> None:
    style_axes(axes)
    axes.set_ylabel("loss (nats per token)", color=MUTED)
    train, val = _points(rows, "loss"), _points(rows, "val_loss")
    if not train and not val:
        say_instead(axes, "no rows yet")
        return
    if train:
        axes.plot(*zip(*train), color=TRAIN, alpha=0.28, linewidth=0.8)
        tokens, losses = [list(column) for column in zip(*train)]
        smoothed = smooth(losses, min(SMOOTHING_ROWS, round(len(losses) * SMOOTHING_SHARE)))
        axes.plot(tokens, smoothed, color=TRAIN, linewidth=1.8, label="training", **_dot(train))
    if val:
        axes.plot(
            *zip(*val),
            color=VAL,
            linewidth=1.2,
            marker="o",
            markersize=5 if len(val) <= 40 else 2.5,
            markeredgecolor="white",
            markeredgewidth=0.8 if len(val) <= 40 else 0.3,
            label="validation",
        )
        _annotate_val(axes, val)
    _limit_view(axes, train, val)
    axes.legend(loc="upper right", frameon=False, labelcolor=INK)


def _annotate_val(axes: Any, val: Sequence[Point]) -> None:
    """Names the final validation loss, and the best one where that came earlier."""
    from matplotlib.patheffects import withStroke

    final, best = val[-1], min(val, key=lambda point: point[1])
    style = {
        "textcoords": "offset points",
        "color": VAL,
        "fontsize": 10,
        "fontweight": "bold",
        "path_effects": [withStroke(linewidth=3, foreground="white")],
    }
    axes.annotate(f"final\n{final[1]:.3f}", final, xytext=(9, 0), va="center", **style)
    if best[1] < final[1]:
        axes.annotate(f"best {best[1]:.3f}", best, xytext=(0, -9), ha="center", va="top", **style)


def _limit_view(axes: Any, train: Sequence[Point], val: Sequence[Point]) -> None:
    """Room for the annotations; the first hundredth of a long run may leave through the top."""
    points = sorted([*train, *val])
    first, last = points[0][0], points[-1][0]
    span = (last - first) or max(1.0, last)
    axes.set_xlim(first - 0.02 * span, last + 0.11 * span)
    start = first + 0.01 * (last - first) if len(train) >= 100 else first
    usual = sorted(loss for tokens, loss in train if tokens >= start)
    shown = usual[: len(usual) - len(usual) // 200]  # without spikes
    shown += [loss for tokens, loss in val if tokens >= start]
    low, high = min(shown), max(shown)
    room = max(0.05, high - low)
    axes.set_ylim(low - 0.12 * room, high + 0.06 * room)


def _draw_rate(axes: Any, rows: Sequence[Row]) -> None:
    style_axes(axes)
    points = _points(rows, "lr")
    axes.plot(*zip(*points), color=RATE, linewidth=1.4, **_dot(points))
    axes.fill_between(*zip(*points), color=RATE, alpha=0.12, linewidth=0)
    axes.set_ylabel("rate", color=MUTED)
    peak = max(rate for _, rate in points)
    axes.set_ylim(0, (peak or 1.0) * 1.15)
    axes.set_yticks([0, peak] if peak else [0], ["0", _power(peak)] if peak else ["0"])


def _draw_price(axes: Any, rows: Sequence[Row]) -> None:
    """A second scale on top: dollars where the machine has a price, else time."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    points = _points(rows, "usd")
    name, unit = "cost so far", 1.0
    text: Callable[[float], str] = _round_usd
    if not points or points[-1][1] <= 0:
        points = _points(rows, "seconds")
        name, text = "time so far", _round_duration
        total = points[-1][1] if points else 0.0
        unit = 3600.0 if total >= 7200 else 60.0 if total >= 120 else 1.0
    if len(points) < 2 or points[-1][1] <= points[0][1]:
        return
    units = MaxNLocator(nbins=7, steps=[1, 2, 5, 10]).tick_values(0, points[-1][1] / unit)
    ticks = [tick * unit for tick in units if points[0][1] <= tick * unit <= points[-1][1]]
    tokens, spent = zip(*points)
    top = axes.secondary_xaxis("top")
    top.set_xticks(np.interp(ticks, spent, tokens), [text(tick) for tick in ticks])
    top.tick_params(color=MUTED, labelcolor=MUTED, labelsize=9)
    top.spines["top"].set_color(GRID)
    top.set_xlabel(name, color=MUTED)


def _points(rows: Sequence[Row], field: str) -> list[Point]:
    """(tokens, field) of the rows that have both."""
    pairs = [(row.get("tokens"), row.get(field)) for row in rows]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _dot(points: Sequence[Point]) -> dict[str, Any]:
    """A line through one point needs a marker to be seen."""
    return {"marker": "o", "markersize": 4} if len(points) == 1 else {}


def _tokens_label(tokens: float, _: int) -> str:
    text = human_count(max(0, tokens))
    digits, letter = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "")
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + letter


def _round_usd(dollars: float) -> str:
    return usd(dollars).removesuffix(".00")


def _round_duration(seconds: float) -> str:
    return human_duration(seconds).removesuffix("00s").removesuffix("00m")


def _power(value: float) -> str:
    """`6e-4`."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
