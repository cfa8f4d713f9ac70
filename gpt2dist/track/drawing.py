"""The paper that every picture is drawn on: its colours, its axes and its file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2dist.disk import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2328", "#6e7781", "#e6e8eb"


def white_figure(width_inches: float, height_inches: float) -> Figure:
    """At 150 dots per inch, drawn without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = (width_inches, height_inches)
    figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(color=GRID, labelcolor=MUTED, labelsize=9, which="both")


def say_instead(axes: Any, text: str, fontsize: float = 12) -> None:
    """Why there is nothing to draw, in the middle of empty axes."""
    axes.set(xticks=[], yticks=[])
    place = {"transform": axes.transAxes, "ha": "center"}
    axes.text(0.5, 0.5, text, color=MUTED, fontsize=fontsize, **place)


def save_png(figure: Figure, path: Path) -> None:
    """Replaces the file in one move."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())
