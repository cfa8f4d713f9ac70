"""Everything that a comparison says, computed once: terminal, files and page only show it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpt2dist.compare.read.references import Reference, references_for
from gpt2dist.compare.read.run_record import AXES, Axis, Point, Run, Text, bits_per_byte
from gpt2dist.compare.stats.frontier import not_overtaken, pareto, reached_by, spent_to_reach
from gpt2dist.compare.stats.groups import Group, describe_target, group_runs, varying, verdict
from gpt2dist.errors import BadInput
from gpt2dist.human import human_count
from gpt2dist.plan.loss.predict import published_text

NATS, BITS = "nats per token", "bits per byte"
MOST_COLOURS = 8


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
    target_loss: float | None
    groups: tuple[Group, ...] = ()
    frontier: Mapping[Axis, tuple[int, ...]] = field(default_factory=dict)
    "Indices into `runs` of those that nobody beats, cheapest first."
    references: tuple[Reference, ...] = ()
    findings: tuple[str, ...] = ()
    "Sentences on significance."
    notes: tuple[str, ...] = ()
    "What makes the comparison doubtful, or is unknown."

    def final(self, run: Run) -> float | None:
        """Final validation loss in the comparison's unit."""
        return self._in_unit(run, run.final_val_loss)

    def best(self, run: Run) -> float | None:
        return self._in_unit(run, run.best_val_loss)

    def curve(self, run: Run, axis: Axis) -> list[Point]:
        factor = self._in_unit(run, 1.0) or 1.0
        return [(x, y * factor) for x, y in run.curve(axis)]

    def reached(self, run: Run) -> Reached | None:
        """None where the target was never reached, or the dollars are unknown."""
        if self.target_loss is None:
            return None
        curve = self.curve(run, "usd")
        crossed = spent_to_reach(curve, self.target_loss)
        if crossed is not None:
            return Reached(crossed, at_most=False)
        first = reached_by(curve, self.target_loss)
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
        return nats if self.unit == NATS else bits_per_byte(nats, run.tokens_per_byte)


def compare_runs(
    runs: Sequence[Run], *, target_loss: float | None = None, force: bool = False
) -> Comparison:
    """Groups, frontier and findings; BadInput where losses do not compare, unless forced."""
    notes = require_comparable(runs, force=force)
    bare = Comparison(tuple(runs), BITS if in_bits(runs) else NATS, target_loss)
    ranked = sorted(
        runs, key=lambda run: (bare.final(run) is None, bare.final(run) or 0.0, run.name)
    )
    groups = tuple(group_runs(ranked, bare.final))
    ordered = replace(bare, runs=tuple(ranked), groups=groups)
    return replace(
        ordered,
        frontier={axis: frontier_of(ordered, axis, ordered.placed(axis)) for axis in AXES},
        references=tuple(_references({run.text for run in runs})),
        findings=tuple(_findings(groups, bare.unit, target_loss)),
        notes=(*notes, *_notes(ranked, groups)),
    )


def require_comparable(runs: Sequence[Run], *, force: bool) -> list[str]:
    """Notes on what differs; BadInput where texts or tokenizers differ and nobody forces it."""
    by_text: dict[Text, list[Run]] = {}
    for run in runs:
        by_text.setdefault(run.text, []).append(run)
    if len(by_text) > 1:
        kinds = "; ".join(f"{text} ({_names(found, 2)})" for text, found in by_text.items())
        if not force:
            raise BadInput(f"losses on different text do not compare: {kinds}; {_way_out(runs)}")
        return [
            f"different text or tokenizers: {kinds}. "
            + (
                "Losses are in bits per byte of the validation text, which no tokenizer changes"
                if in_bits(runs)
                else "Losses are in nats per token and do not compare: not every run's summary or "
                "dataset on this machine says how many bytes its tokens are"
            )
        ]
    if len({run.validation for run in runs}) > 1:
        return [
            "validation text differs (data.source, data.val_fraction, data.max_documents or "
            "eval.tokens): small differences in loss may come from that alone"
        ]
    return []


def in_bits(runs: Sequence[Run]) -> bool:
    """Whether losses of these runs are shown in bits per byte: texts differ, bytes are known."""
    return len({run.text for run in runs}) > 1 and all(run.tokens_per_byte for run in runs)


def _way_out(runs: Sequence[Run]) -> str:
    if in_bits(runs):
        return "name runs of one text, or give --force to compare in bits per byte"
    unknown = sum(run.tokens_per_byte is None for run in runs)
    return (
        f"name runs of one text, or give --force to show them all the same (not in bits per byte: "
        f"{unknown} of {len(runs)} runs have neither a summary with the bytes of their tokens nor "
        "their dataset on this machine)"
    )


def frontier_of(
    comparison: Comparison, axis: Axis, ends: Sequence[tuple[int, Point]]
) -> tuple[int, ...]:
    """Indices of the runs that nobody beats, cheapest first; `ends` says where each one ended.

    A run that did not finish has to be better than finished runs were on their way, too: those had
    as low a loss for the same price, and learned on. One that has not ended is nowhere yet.
    """
    ends = [end for end in ends if comparison.runs[end[0]].ended != "unfinished"]
    finished = [end for end in ends if comparison.runs[end[0]].ended == "finished"]
    others = [end for end in ends if comparison.runs[end[0]].ended != "finished"]
    if finished and others:
        curves = (comparison.curve(comparison.runs[index], axis) for index, _ in finished)
        others = [others[kept] for kept in not_overtaken([point for _, point in others], curves)]
    known = sorted(finished + others)
    return tuple(known[kept][0] for kept in pareto([point for _, point in known]))


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


def series_of(comparison: Comparison) -> tuple[list[str], list[int]]:
    """Names of the series that share a colour, and the series of each run.

    Runs of one size, or of one setting where all sizes are equal; at most MOST_COLOURS.
    """
    runs = comparison.runs
    sizes = sorted({run.params for run in runs})
    if 1 < len(sizes) <= MOST_COLOURS:
        names = [f"{human_count(size)} parameters" for size in sizes]
        return names, [sizes.index(run.params) for run in runs]
    families = {group.family: index for index, group in enumerate(comparison.groups)}
    if 1 < len(families) <= MOST_COLOURS:
        return [group.label for group in comparison.groups], [families[run.family] for run in runs]
    return ["runs"], [0] * len(runs)


def _references(texts: set[Text]) -> list[Reference]:
    if len(texts) != 1:
        return []
    text = texts.pop()
    return references_for(text.source, text.tokenizer)


def _findings(groups: Sequence[Group], unit: str, target: float | None) -> list[str]:
    found = verdict(groups, unit)
    lines = [found] if found else []
    if target is not None:
        near = [group for group in groups if group.mean is not None and group.mean <= target]
        lines += [describe_target(group, target) for group in near[:3]]
    return lines


def _notes(runs: Sequence[Run], groups: Sequence[Group]) -> list[str]:
    notes = []
    unpriced = [run for run in runs if run.usd is None]
    if unpriced:
        notes.append(
            f"dollars unknown: {_names(unpriced)} ran on a machine without a price "
            "(cluster.usd_per_hour, GPT2DIST_USD_PER_HOUR, or cluster.watts and usd_per_kwh)"
        )
    lossless = [run for run in runs if run.final_val_loss is None]
    if lossless:
        notes.append(f"no finite validation loss, on no frontier: {_names(lossless)}")
    going = [run for run in runs if run.ended == "unfinished"]
    if going:
        notes.append(f"running or killed, on no frontier until they end: {_names(going)}")
    unfinished = [run for run in runs if run.ended != "finished"]
    if unfinished:
        notes.append(f"not finished, left out of means: {_names(unfinished)}")
    keys = varying([group.runs[0] for group in groups]) if groups else []
    if keys:
        notes.append(f"groups differ in {', '.join(keys)}")
    if published_text(runs[0].text.source)[0] is None:
        notes.append(f"no published results on {runs[0].text.source} to compare with")
    return notes


def _names(runs: Sequence[Run], most: int = 3) -> str:
    shown = ", ".join(run.name for run in runs[:most])
    return shown if len(runs) <= most else f"{shown} and {len(runs) - most} more"
