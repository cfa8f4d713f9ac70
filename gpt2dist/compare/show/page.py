"""The comparison as one HTML file: data, style and script inside, nothing fetched from anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from gpt2dist.compare.read.run_record import AXES, Axis, Run
from gpt2dist.compare.show.picture import DARK, LIGHT, ROUND_HOURS
from gpt2dist.compare.stats.comparison import Comparison, frontier_of, interval_places, series_of

CURVE_POINTS, CURVE_POINTS_OF_MANY = 120, 24
"Of one learning curve; the second where there are more than MANY_RUNS."
MANY_RUNS = 200
WORDS = ("name", "recipe", "seed", "ended", "params", "hardware", "gpus")
NUMBERS = ("gpu_hours", "tokens_per_s", "mfu", "peak_gib")
"Of a run, as it knows them."


def page(comparison: Comparison, axis: Axis) -> str:
    """A whole HTML document that opens on `axis`."""
    parts = {
        "STYLE": _part("page.css"),
        "SCRIPT": _part("page.js"),
        "DATA": embedded(page_tree(comparison, axis)),
    }
    text = _part("page.html")
    for name, content in parts.items():
        before, _, after = text.partition(f"/*{name}*/")
        text = before + content + after
    return text


def embedded(tree: Any) -> str:
    """JSON that cannot end its script element, nor start anything in it, whatever names it holds.

    The HTML parser looks for `<`; U+2028 and U+2029 end lines in old JavaScript.
    """
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def page_tree(comparison: Comparison, axis: Axis) -> dict[str, Any]:
    """All that the page shows. The frontier is given, not computed there again."""
    names, series = series_of(comparison)
    return {
        "unit": comparison.unit,
        "axis": axis,
        "text": sorted({str(run.text) for run in comparison.runs}),
        "target": comparison.target_loss,
        "series": names,
        "light": list(LIGHT),
        "dark": list(DARK),
        "round_hours": [_short(hours) for hours in ROUND_HOURS],
        "runs": [_run(comparison, run, colour) for run, colour in zip(comparison.runs, series)],
        "frontier": {
            "final": dict(comparison.frontier),
            "best": {name: _best_frontier(comparison, name) for name in AXES},
        },
        "groups": [group.tree() for group in comparison.groups if len(group.runs) > 1],
        "intervals": {name: _intervals(comparison, name, series) for name in AXES},
        "references": [
            {
                "kind": reference.kind,
                "label": reference.label,
                "series": reference.series,
                "loss": reference.loss,
                "x": {name: _short(reference.spent[name]) for name in AXES},
                "source": reference.source,
            }
            for reference in comparison.references
        ],
        "findings": list(comparison.findings),
        "notes": list(comparison.notes),
    }


def _intervals(comparison: Comparison, axis: Axis, series: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "label": group.label,
            "x": _short(x),
            **{name: _short(getattr(group.interval, name)) for name in ("mean", "low", "high")},
            "seeds": len(group.finals),
            "series": series[comparison.runs.index(runs[0])],
        }
        for group, x, runs in interval_places(comparison, axis)
    ]


def _best_frontier(comparison: Comparison, axis: Axis) -> tuple[int, ...]:
    """The frontier if each run were judged by its best validation loss."""
    placed = [
        (index, x, comparison.best(comparison.runs[index]))
        for index, (x, _) in comparison.placed(axis)
    ]
    known = [(index, (x, best)) for index, x, best in placed if best is not None]
    return frontier_of(comparison, axis, known)


def _run(comparison: Comparison, run: Run, colour: int) -> dict[str, Any]:
    reached = comparison.reached(run)
    return {
        **{name: getattr(run, name) for name in WORDS},
        **{name: _short(getattr(run, name)) for name in NUMBERS},
        "series": colour,
        "x": {name: _short(run.spent(name)) for name in AXES},
        "final": _short(comparison.final(run)),
        "best": _short(comparison.best(run)),
        "reached": _short(reached.spent) if reached else None,
        "at_most": bool(reached and reached.at_most),
        "predicted": {name: _short(value) for name, value in run.predicted.items()},
        "curve": {
            name: [[_short(x), _short(y)] for x, y in _thinned(comparison, run, name)]
            for name in AXES
        },
    }


def _thinned(comparison: Comparison, run: Run, axis: Axis) -> Sequence[tuple[float, float]]:
    """The curve with at most so many points, the first and the last among them."""
    curve = comparison.curve(run, axis)
    most = CURVE_POINTS if len(comparison.runs) <= MANY_RUNS else CURVE_POINTS_OF_MANY
    if len(curve) <= most:
        return curve
    return [curve[round(i * (len(curve) - 1) / (most - 1))] for i in range(most)]


def _short(value: float | None) -> float | None:
    """Seven digits are more than a screen shows."""
    return None if value is None else float(f"{value:.7g}")


def _part(name: str) -> str:
    return files("gpt2dist.compare.show").joinpath(name).read_text(encoding="utf-8")
