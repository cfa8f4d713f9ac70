"""Which runs share a colour: those of one size, or of one setting where all sizes are equal."""

from __future__ import annotations

from gpt2dist.compare.stats.comparison import Comparison
from gpt2dist.human import human_count

LIGHT = ("#2f6fb5", "#d0660a", "#23855a", "#8352b5", "#c2375a", "#0f8494", "#85740d", "#5f6b7a")
DARK = ("#6cabf2", "#f0a252", "#5cc48f", "#b98fe6", "#f2748f", "#4cc3d2", "#d1bf52", "#a9b3c1")
"For white and for dark paper, the same order."


def series_of(comparison: Comparison) -> tuple[list[str], list[int]]:
    """Names of the series, and the series of each run; at most as many as there are colours."""
    runs = comparison.runs
    sizes = sorted({run.params for run in runs})
    if 1 < len(sizes) <= len(LIGHT):
        names = [f"{human_count(size)} parameters" for size in sizes]
        return names, [sizes.index(run.params) for run in runs]
    families = {group.family: index for index, group in enumerate(comparison.groups)}
    if 1 < len(families) <= len(LIGHT):
        return [group.label for group in comparison.groups], [families[run.family] for run in runs]
    return ["runs"], [0] * len(runs)
