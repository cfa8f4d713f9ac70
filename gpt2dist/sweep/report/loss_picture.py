"""The picture of a sweep: loss against every swept value, a dot per run, the mean of its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2dist.human import human_count
from gpt2dist.sweep.spec.sweep import Sweep, value_text
from gpt2dist.sweep.trial.trial import TrialRecord
from gpt2dist.track.drawing import INK, MUTED, save_png, say_instead, style_axes, white_figure

FINISHED, EARLY, BEST = "#4c78a8", "#8c959f", "#d1495b"
COLUMNS = 3
WORST_SHOWN_NATS = 2.0
"Losses further than this above the best one are arrowheads at the upper edge."
LOG_SPAN = 8.0
"Values that span more than this factor are drawn on a logarithmic axis."


def draw_sweep(
    sweep: Sweep, records: Sequence[TrialRecord], best_point: int | None, path: Path
) -> None:
    """Draws into a PNG, replaced in one move; trials without a validation loss are left out."""
    panels = sweep.names
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = white_figure(max(6.4, 4.6 * columns), 0.9 + 3.6 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    shown = [record for record in records if record.val_loss is not None]
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for number, (axes, path_name) in enumerate(zip(grid.flat, panels.items())):
        _panel(axes, path_name, shown, best_point)
        if number % columns == 0:
            axes.set_ylabel("validation loss (nats per token)", color=MUTED)
    figure.suptitle(sweep.name, x=0.012, ha="left", color=INK, fontsize=13, fontweight="bold")
    _legend(figure, shown, best_point)
    save_png(figure, path)


def _panel(
    axes: Any, path_name: tuple[str, str], records: Sequence[TrialRecord], best_point: int | None
) -> None:
    path, name = path_name
    style_axes(axes)
    axes.set_xlabel(name, color=INK)
    if not records:
        say_instead(axes, "no evaluation yet", fontsize=10)
        return
    place = _axis(axes, [record.trial.values[path] for record in records])
    last = [(place(r.trial.values[path]), r.val_loss or math.nan) for r in records]
    common = _common_tokens(records)
    dots = [(x, _loss_at(r, common)) for (x, _), r in zip(last, records) if common]
    top = _limit_view(axes, [loss for _, loss in (*last, *dots)])
    if dots:
        axes.plot(*zip(*_means(dots)), color=EARLY, linewidth=1, linestyle=":", zorder=1)
    for (x, loss), record in zip(last, records):
        style = {"color": FINISHED, "mec": "white", "mew": 0.8, "zorder": 4}
        if record.state != "finished":
            style = {"mfc": "white", "mec": EARLY, "mew": 1.2, "zorder": 2}
        elif record.trial.point == best_point:
            style |= {"color": BEST, "zorder": 5}
        marker = "o" if loss <= top else "^"  # an arrowhead at the edge: it lies above
        axes.plot(x, min(loss, top), marker, markersize=6, clip_on=False, **style)
    done = [dot for dot, record in zip(last, records) if record.state == "finished"]
    if len(set(done)) > 1:
        axes.plot(*zip(*_means(done)), color=FINISHED, linewidth=1.4, alpha=0.6, zorder=3)
    for x in {x for x, _ in done}:
        column = [loss for other, loss in done if other == x]
        axes.plot([x, x], [min(column), max(column)], color=FINISHED, linewidth=1.4, alpha=0.6)


def _common_tokens(records: Sequence[TrialRecord]) -> int | None:
    """Tokens that every trial was evaluated at, where some were stopped before the end."""
    if all(record.state == "finished" for record in records):
        return None
    sets = [{row["tokens"] for row in record.evaluations} for record in records]
    return max(set.intersection(*sets), default=None)


def _loss_at(record: TrialRecord, tokens: int | None) -> float:
    return next(r["val_loss"] for r in record.evaluations if r["tokens"] == tokens)


def _means(dots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean of each column, from left to right."""
    columns = sorted({x for x, _ in dots})
    return [(x, statistics.fmean(y for other, y in dots if other == x)) for x in columns]


def _axis(axes: Any, values: Sequence[Any]) -> Any:
    """Where a value lies: numbers on a plain or logarithmic axis, anything else side by side."""
    different = sorted(set(values), key=lambda value: (str(type(value)), value))
    if any(isinstance(v, (bool, str)) or v is None for v in different):
        axes.set_xticks(range(len(different)), [value_text(value) for value in different])
        axes.set_xlim(-0.5, len(different) - 0.5)
        return lambda value: float(different.index(value))
    if different[0] > 0 and different[-1] / different[0] >= LOG_SPAN:
        axes.set_xscale("log")
    if len(different) <= 6:
        axes.set_xticks(different, [value_text(value) for value in different])
        axes.minorticks_off()
    return float


def _limit_view(axes: Any, losses: Sequence[float]) -> float:
    """Shows what is near the best; returns the largest loss that has its place."""
    low = min(losses)
    near = [loss for loss in losses if loss <= low + WORST_SHOWN_NATS]
    room = max(0.02, max(near) - low)
    axes.set_ylim(low - 0.08 * room, max(near) + 0.08 * room)
    return max(near) + 0.04 * room


def _legend(figure: Any, records: Sequence[TrialRecord], best_point: int | None) -> None:
    from matplotlib.lines import Line2D

    entries = [("finished", {"color": FINISHED})]
    if best_point is not None:
        entries.append(("best point", {"color": BEST}))
    if any(record.state != "finished" for record in records):
        entries.append(("ended earlier", {"mfc": "white", "mec": EARLY}))
    handles = [
        Line2D([], [], linestyle="", marker="o", label=label, **style)  # type: ignore[arg-type]
        for label, style in entries
    ]
    common = _common_tokens(records)
    if common is not None:
        label = f"all after {human_count(common)} tokens"
        handles.append(Line2D([], [], linestyle=":", color=EARLY, label=label))
    place = {"loc": "outside lower center", "ncols": len(handles)}
    figure.legend(handles=handles, frameon=False, labelcolor=MUTED, **place)
