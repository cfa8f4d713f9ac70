"""Runs that learned the same thing, on other hardware or from another seed, and how sure that is.

Means of seeds and their differences are tested with Student's t.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2dist.compare.read.run_record import Run

SIGNIFICANT_P = 0.01
"What the rules of KellerJordan/modded-nanogpt ask of a record (README, submission rules, 2025-01)."
SHOWN_SETTINGS = 4

LossOf = Callable[[Run], float | None]


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Test:
    """Whether one mean lies below another mean, or below a number."""

    t: float
    "Positive where the mean is lower."
    df: float
    p: float
    "One-sided: how often chance alone would show so large a difference."


@dataclass(frozen=True)
class Group:
    """Runs of one identity but for the seed, on whatever hardware."""

    label: str
    family: str
    settings: Mapping[str, Any]
    "What differs between the groups of this comparison."
    runs: tuple[Run, ...]
    finals: tuple[float, ...]
    "Final loss of each seed that finished; runs of one seed on several machines are averaged."
    interval: Interval | None
    "95 %, Student's t over the seeds; None below two."

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.finals) if self.finals else None

    @property
    def hardware(self) -> list[str]:
        return sorted({run.hardware for run in self.runs})

    def tree(self) -> dict[str, Any]:
        """As JSON and the page have it."""
        return {
            "label": self.label,
            "settings": dict(self.settings),
            "runs": [run.name for run in self.runs],
            "hardware": self.hardware,
            "finished_seeds": len(self.finals),
            "mean_final_val_loss": self.mean,
            "low": self.interval.low if self.interval else None,
            "high": self.interval.high if self.interval else None,
        }


def group_runs(runs: Sequence[Run], loss_of: LossOf) -> list[Group]:
    """Groups, best mean first; those without a finished run last."""
    families: dict[str, list[Run]] = {}
    for run in runs:
        families.setdefault(run.family, []).append(run)
    settings = varying([members[0] for members in families.values()])
    groups = [
        _group(tuple(members), {key: members[0].settings[key] for key in settings}, loss_of)
        for members in families.values()
    ]
    return sorted(groups, key=lambda group: (group.mean is None, group.mean or 0.0, group.label))


def varying(runs: Sequence[Run]) -> list[str]:
    """Keys of the settings that are not equal in all of these runs."""
    first = runs[0].settings
    return [key for key in first if any(run.settings[key] != first[key] for run in runs)]


def verdict(groups: Sequence[Group], unit: str) -> str | None:
    """The two best groups held against each other: by how much, how sure, and what is missing.

    None below two groups with a finished run.
    """
    ranked = [(group, group.mean) for group in groups if group.mean is not None]
    if len(ranked) < 2:
        return None
    (best, low), (second, high) = ranked[:2]
    if high == low:
        return f"{best.label} and {second.label} are level at {low:.4f} {unit}"
    gap = f"{best.label} is {high - low:.4f} {unit} below {second.label}"
    test = welch(best.finals, second.finals)
    if test is None:
        counts = f"{len(best.finals)} and {len(second.finals)}"
        return (
            f"{gap}, but {counts} finished seeds cannot tell that from chance: "
            "repeat both with train.seed=1, 2, ..."
        )
    sure = "significant" if test.p < SIGNIFICANT_P else "not significant"
    return (
        f"{gap}: {sure} at p < {SIGNIFICANT_P} (Welch's t = {test.t:.2f}, "
        f"{test.df:.1f} degrees of freedom, one-sided p = {_p(test.p)}, "
        f"{len(best.finals)} against {len(second.finals)} seeds)"
    )


def describe_target(group: Group, target: float) -> str:
    """Whether the mean loss of a group is below a target, as modded-nanogpt's rules ask."""
    assert group.mean is not None
    seeds = f"{len(group.finals)} seed" + ("s" if len(group.finals) != 1 else "")
    test = below(group.finals, target)
    start = f"{group.label}: mean {group.mean:.4f} of {seeds}"
    if test is None:
        return f"{start}; two or more seeds tell whether its mean is below {target:g}"
    sure = "is" if test.p < SIGNIFICANT_P else "is not shown to be"
    return f"{start} {sure} below {target:g} (one-sided t test, p = {_p(test.p)})"


def t_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t."""
    from scipy.special import stdtr

    return float(stdtr(df, -t))


def t_quantile(tail: float, df: float) -> float:
    """The t that is exceeded with probability `tail`."""
    from scipy.special import stdtrit

    return -float(stdtrit(df, tail))


def confidence_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Mean and two-sided t interval of a normal sample; None below two values."""
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = t_quantile((1 - confidence) / 2, len(values) - 1) * error
    return Interval(mean, mean - reach, mean + reach)


def welch(lower: Sequence[float], higher: Sequence[float]) -> Test | None:
    """Welch's test that the mean of `lower` is below that of `higher`, variances unequal.

    B. L. Welch, Biometrika 34 (1947) 28-35; degrees of freedom after Satterthwaite, Biometrics
    Bulletin 2 (1946) 110-114. None below two values each, or where neither sample varies.
    """
    if len(lower) < 2 or len(higher) < 2:
        return None
    a, b = (statistics.variance(sample) / len(sample) for sample in (lower, higher))
    if a + b == 0:
        return None
    t = (statistics.fmean(higher) - statistics.fmean(lower)) / math.sqrt(a + b)
    df = (a + b) ** 2 / (a * a / (len(lower) - 1) + b * b / (len(higher) - 1))
    return Test(t, df, t_tail(t, df))


def below(values: Sequence[float], target: float) -> Test | None:
    """One-sample t test that the mean is below `target`; None below two values or any spread."""
    if len(values) < 2 or statistics.stdev(values) == 0:
        return None
    df = len(values) - 1
    t = (target - statistics.fmean(values)) * math.sqrt(len(values)) / statistics.stdev(values)
    return Test(t, df, t_tail(t, df))


def _group(runs: tuple[Run, ...], settings: Mapping[str, Any], loss_of: LossOf) -> Group:
    by_seed: dict[int, list[float]] = {}
    for run in runs:
        loss = loss_of(run)
        if run.ended == "finished" and loss is not None:
            by_seed.setdefault(run.seed, []).append(loss)
    finals = tuple(statistics.fmean(losses) for _, losses in sorted(by_seed.items()))
    return Group(
        label=_label(runs, settings),
        family=runs[0].family,
        settings=settings,
        runs=runs,
        finals=finals,
        interval=confidence_interval(finals),
    )


def _label(runs: Sequence[Run], settings: Mapping[str, Any]) -> str:
    if len(runs) == 1 or not settings or len(settings) > SHOWN_SETTINGS:
        return runs[0].name if len(runs) == 1 else f"{runs[0].name} +{len(runs) - 1}"
    return " ".join(f"{key.partition('.')[2]}={_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"
