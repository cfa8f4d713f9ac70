"""Everything that a comparison says, computed once: terminal, files and page only show it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpt2dist.compare.read.references import Reference, references_for
from gpt2dist.compare.read.run_record import AXES, Axis, Run
from gpt2dist.compare.read.texts import in_bits, require_comparable
from gpt2dist.compare.stats.frontier import (
    Point,
    learning_curve,
    not_overtaken,
    pareto,
    reached_by,
    spent_to_reach,
)
from gpt2dist.compare.stats.groups import (
    Group,
    describe_target,
    describe_verdict,
    group_runs,
    varying,
    verdict,
)
from gpt2dist.plan.loss.predict import published_text

NATS, BITS = "nats per token", "bits per byte"


@dataclass(frozen=True)
class Reached:
    """What the target loss cost a run."""

    spent: float
    at_most: bool
    "Its first evaluation was below the target already."


@dataclass(frozen=True)
class Comparison:
    runs: tuple[Run, ...]
    "Best final loss first; runs without one last."
    unit: str
    groups: tuple[Group, ...]
    frontier: Mapping[Axis, tuple[int, ...]]
    "Indices into `runs` of those that nobody beats, cheapest first."
    references: tuple[Reference, ...]
    target_loss: float | None
    findings: tuple[str, ...]
    "Sentences on significance."
    notes: tuple[str, ...]
    "What makes the comparison doubtful, or is unknown."

    def final(self, run: Run) -> float | None:
        """Final validation loss in the comparison's unit."""
        return self._in_unit(run, run.final_val_loss)

    def best(self, run: Run) -> float | None:
        return self._in_unit(run, run.best_val_loss)

    def curve(self, run: Run, axis: Axis) -> list[Point]:
        return [(x, self._known(run, y)) for x, y in learning_curve(run, axis)]

    def reached(self, run: Run, axis: Axis = "usd") -> Reached | None:
        """None where the target was never reached, or what was spent is unknown."""
        if self.target_loss is None:
            return None
        target = self.target_loss / self._known(run, 1.0)
        crossed = spent_to_reach(run, target, axis)
        if crossed is not None:
            return Reached(crossed, at_most=False)
        first = reached_by(run, target, axis)
        return None if first is None else Reached(first, at_most=True)

    def placed(self, axis: Axis) -> list[tuple[int, Point]]:
        """Index, spending and final loss of the runs that have a place on a log axis."""
        found = []
        for index, run in enumerate(self.runs):
            x, y = run.spent(axis), self.final(run)
            if x is not None and x > 0 and y is not None:
                found.append((index, (x, y)))
        return found

    def _in_unit(self, run: Run, nats: float | None) -> float | None:
        return None if nats is None else self._known(run, nats)

    def _known(self, run: Run, nats: float) -> float:
        if self.unit == NATS:
            return nats
        assert run.tokens_per_byte is not None
        return nats * run.tokens_per_byte / math.log(2)


def compare_runs(
    runs: Sequence[Run], *, target_loss: float | None = None, force: bool = False
) -> Comparison:
    """Groups, frontier and findings; BadInput where losses do not compare, unless forced."""
    notes = require_comparable(runs, force=force)
    unit = BITS if in_bits(runs) else NATS
    bare = Comparison(tuple(runs), unit, (), {}, (), target_loss, (), ())
    ranked = tuple(sorted(runs, key=lambda run: _rank(bare.final(run), run.name)))
    groups = tuple(group_runs(ranked, bare.final))
    ordered = Comparison(ranked, unit, groups, {}, (), target_loss, (), ())
    return Comparison(
        runs=ranked,
        unit=unit,
        groups=groups,
        frontier={axis: _frontier(ordered, axis) for axis in AXES},
        references=tuple(references_for(ranked)),
        target_loss=target_loss,
        findings=tuple(_findings(groups, unit, target_loss)),
        notes=(*notes, *_notes(ranked, groups)),
    )


def frontier_of(comparison: Comparison, axis: Axis, ends: Sequence[tuple[int, Point]]) -> list[int]:
    """Indices of the runs that nobody beats, cheapest first; `ends` says where each one ended.

    A run that did not finish has to be better than finished runs were on their way, too: those had
    as low a loss for the same price, and learned on.
    """
    finished = [end for end in ends if comparison.runs[end[0]].ended == "finished"]
    others = [end for end in ends if comparison.runs[end[0]].ended != "finished"]
    if finished and others:
        curves = (comparison.curve(comparison.runs[index], axis) for index, _ in finished)
        others = [others[kept] for kept in not_overtaken([point for _, point in others], curves)]
    known = sorted(finished + others)
    return [known[kept][0] for kept in pareto([point for _, point in known])]


def interval_places(
    comparison: Comparison, axis: Axis
) -> list[tuple[Group, float, tuple[Run, ...]]]:
    """Where to draw the seeds' interval of a group: once per hardware, at the mean spending."""
    places = []
    for group in comparison.groups:
        for hardware in group.hardware if group.interval else ():
            runs = tuple(
                run
                for run in group.runs
                if run.hardware == hardware and run.ended == "finished" and run.spent(axis)
            )
            if len({run.seed for run in runs}) > 1:
                places.append((group, statistics.fmean(run.spent(axis) or 0 for run in runs), runs))
    return places


def _rank(loss: float | None, name: str) -> tuple[bool, float, str]:
    return loss is None, loss or 0.0, name


def _frontier(comparison: Comparison, axis: Axis) -> tuple[int, ...]:
    return tuple(frontier_of(comparison, axis, comparison.placed(axis)))


def _findings(groups: Sequence[Group], unit: str, target: float | None) -> list[str]:
    found = verdict(groups)
    lines = [describe_verdict(found, unit)] if found else []
    if target is not None:
        near = [group for group in groups if group.mean is not None and group.mean <= target]
        lines += [describe_target(group, target) for group in near[:3]]
    return lines


def _notes(runs: Sequence[Run], groups: Sequence[Group]) -> list[str]:
    notes = []
    unpriced = [run.name for run in runs if run.usd is None]
    if unpriced:
        notes.append(
            f"dollars unknown: {_names(unpriced)} ran on a machine without a price "
            "(cluster.usd_per_hour, GPT2DIST_USD_PER_HOUR, or cluster.watts and usd_per_kwh)"
        )
    unfinished = [run.name for run in runs if run.ended != "finished"]
    if unfinished:
        notes.append(f"not finished, left out of means: {_names(unfinished)}")
    keys = varying([group.runs[0] for group in groups]) if groups else []
    if keys:
        notes.append(f"groups differ in {', '.join(keys)}")
    if published_text(runs[0].text.source)[0] is None:
        notes.append(f"no published results on {runs[0].text.source} to compare with")
    return notes


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
