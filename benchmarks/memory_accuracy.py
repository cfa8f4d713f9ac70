"""How far the memory formulas are from published runs they have not seen.

    python benchmarks/memory_accuracy.py           print the tables of docs/planner-memory.md
    python benchmarks/memory_accuracy.py --write   put them there

Three numbers are fitted (least squares of relative errors, closed form). What a run is compared
with was fitted without that run's source; languini's compiled runs, whose two numbers nothing
else determines, leave one GPU out instead.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from memory_published import (
    Fitted,
    predicted_gib,
    predicted_largest,
)
from memory_runs import PublishedRun, published_runs

DOCS = Path(__file__).parent.parent / "docs" / "planner-memory.md"
BEGIN, END = "<!-- memory_accuracy begin -->", "<!-- memory_accuracy end -->"
COMPILED = "languini compiled"
POOLED = ("languini eager", "torchtitan")
"""Frameworks whose runs determine the allocator's share: all else in them is counted."""


def target_gib(run: PublishedRun) -> float:
    gib = run.usable_gib if run.published_gib is None else run.published_gib
    assert gib is not None
    return gib


def fit_fragmentation(runs: Iterable[PublishedRun]) -> float:
    """Peaks are linear in it: one normal equation."""
    none, whole = Fitted(fragmentation=0), Fitted(fragmentation=1)
    numerator = denominator = 0.0
    for run in runs:
        base = predicted_gib(run, none) / target_gib(run)
        slope = predicted_gib(run, whole) / target_gib(run) - base
        numerator += slope * (1 - base)
        denominator += slope**2
    return numerator / denominator


def fit_compiled(runs: Iterable[PublishedRun], fragmentation: float) -> Fitted:
    """Peaks are linear in the two counts of languini's compiled model: two normal equations."""
    at = Fitted(fragmentation)
    ww = wa = aa = w1 = a1 = 0.0
    for run in runs:
        # Differences around a point near the solution: which moment is the peak depends on it.
        here = predicted_gib(run, at) / target_gib(run)
        w = predicted_gib(run, replace(at, compiled_width=at.compiled_width + 1))
        a = predicted_gib(run, replace(at, compiled_attention=at.compiled_attention + 1))
        w, a = w / target_gib(run) - here, a / target_gib(run) - here
        rest = 1 - here + w * at.compiled_width + a * at.compiled_attention
        ww, wa, aa = ww + w * w, wa + w * a, aa + a * a
        w1, a1 = w1 + w * rest, a1 + a * rest
    determinant = ww * aa - wa * wa
    return Fitted(
        fragmentation, (w1 * aa - a1 * wa) / determinant, (a1 * ww - w1 * wa) / determinant
    )


def fit(runs: tuple[PublishedRun, ...], without: PublishedRun | None = None) -> Fitted:
    """All fitted numbers, from runs that `without` has nothing to do with."""
    pooled = [run for run in runs if run.framework in POOLED]
    compiled = [run for run in runs if run.framework == COMPILED]
    if without is not None and without.framework == COMPILED:
        compiled = [run for run in compiled if run.gpu != without.gpu]
    elif without is not None:
        pooled = [run for run in pooled if run.source != without.source]
    return fit_compiled(compiled, fit_fragmentation(pooled))


def percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def tables() -> str:
    runs = published_runs()
    final = fit(runs)
    lines = [
        f"Fitted on all of them: fragmentation {final.fragmentation:.3f}, languini compiled "
        f"{final.compiled_width:.1f} d + {final.compiled_attention:.2f} per score.",
        "",
        "| run | framework | what | published GiB | predicted GiB | error |",
        "|---|---|---|---|---|---|",
    ]
    errors: dict[str, list[tuple[str, float]]] = {"exact": [], "peak": [], "largest": []}
    largest = []
    used = []
    for run in runs:
        fitted = fit(runs, without=run)
        predicted, target = predicted_gib(run, fitted), target_gib(run)
        error = predicted / target - 1
        if run.kind == "used":
            used.append((run, predicted_largest(run, fitted)))
            continue
        errors["exact" if run.kind == "activations" else "peak"].append((run.source, error))
        what = {"largest": f"card full at {run.fits}"}.get(run.kind, run.kind)
        lines.append(
            f"| {run.id} | {run.framework} | {what} | {target:.2f} | {predicted:.2f} "
            f"| {percent(error)} |"
        )
        if run.kind == "largest":
            size = predicted_largest(run, fitted)
            assert run.fits is not None
            errors["largest"].append((run.source, size / run.fits - 1))
            largest.append((run, size))
    lines += [
        "",
        "| largest micro-batch | published | predicted | error |",
        "|---|---|---|---|",
        *(
            f"| {run.id} | {run.fits} | {size} | {percent(size / (run.fits or 1) - 1)} |"
            for run, size in largest
        ),
        "",
        "| tuned by hand (lower bound) | used | predicted largest |",
        "|---|---|---|",
        *(f"| {run.id} | {run.fits} | {size} |" for run, size in used),
        "",
        "| | runs | median of absolute errors | 9 in 10 within | worst |",
        "|---|---|---|---|---|",
        summary("activations alone", [e for _, e in errors["exact"]]),
        summary("peak memory, every run", [e for _, e in errors["peak"]]),
        summary("peak memory, every source the same weight", by_source(errors["peak"])),
        summary("largest micro-batch", [e for _, e in errors["largest"]]),
    ]
    return "\n".join(lines)


def by_source(errors: list[tuple[str, float]]) -> list[float]:
    """Each source's median absolute error."""
    sources = dict.fromkeys(source for source, _ in errors)
    return [
        statistics.median(abs(error) for source, error in errors if source == name)
        for name in sources
    ]


def summary(name: str, errors: list[float]) -> str:
    sizes = sorted(abs(error) for error in errors)
    tenth = sizes[-(-9 * len(sizes) // 10) - 1]
    return (
        f"| {name} | {len(sizes)} | {100 * statistics.median(sizes):.1f} % "
        f"| {100 * tenth:.1f} % | {100 * sizes[-1]:.1f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="update docs/planner-memory.md")
    arguments = parser.parse_args()
    text = tables()
    if not arguments.write:
        print(text)
        return
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
