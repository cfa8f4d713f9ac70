"""How far the predictions are off, as the tables of docs/planner-throughput.md."""

from __future__ import annotations

from collections import Counter

import numpy as np
from throughput_runs import RELIABLE, Published, even

SCALED = (
    ("gollem-124M-1xH100-acc1", "gollem-124M-2xH100-acc1"),
    ("gollem-124M-1xH100-acc1", "gollem-124M-8xH100-acc1"),
    ("gollem-124M-1xH100-acc8", "gollem-124M-4xH100-acc2"),
    ("mn-t3-1xH200-ortho", "mn-t3-8xH200-normuon"),
    ("buildnanogpt-124M-1xA100-fused", "buildnanogpt-124M-8xA100-karpathy"),
    ("rasbt-124M-1xA100-b32", "rasbt-124M-4xA100"),
    ("llmq-qwen0.5B-1xH100SXM-bf16", "llmq-qwen0.5B-8xH100SXM-bf16"),
    ("llmq-qwen0.5B-1xRTX4090-bf16", "llmq-qwen0.5B-4xRTX4090-bf16"),
    ("nanochat-d12-2x3090-250W-b4", "nanochat-d12-4x3090-250W-b4"),
    ("foundry-125m-T2048-8xa100_40gb-bf16-mb26", "foundry-125m-T2048-128xa100_40gb-bf16-mb26"),
)
"""Rows of one code base on few and on many GPUs."""


def interval(errors: np.ndarray, sources: list[str]) -> tuple[float, float]:
    """The 80 % range of log errors, every source counting the same."""
    weights = even(sources)
    return quantile(errors, weights, 0.1), quantile(errors, weights, 0.9)


def in_range(data: Published, errors: np.ndarray) -> np.ndarray:
    """Whether each error lies in the interval that the other sources' errors give."""
    inside = np.empty(len(errors), bool)
    for source in dict.fromkeys(data.sources):
        own = np.array([s == source for s in data.sources])
        low, high = interval(errors[~own], data.only(~own).sources)
        inside[own] = (low <= errors[own]) & (errors[own] <= high)
    return inside


def quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Smallest value that at least `share` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(reached, share - 1e-12)])


def shares(errors: np.ndarray, inside: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Median relative error, and the share of the values in the range."""
    relative = np.abs(np.exp(-errors) - 1)
    return quantile(relative, weights, 0.5), float(weights[inside].sum() / weights.sum())


def accuracy_table(
    data: Published, unseen: np.ndarray, project: np.ndarray, seen: np.ndarray
) -> str:
    """Median error and share in the range, with each source weighing the same, then per row."""
    good = np.array([row["reliability"] in RELIABLE for row in data.rows])
    every = np.full(len(good), True)
    lines = [
        "| rows | sources | rows | median error, sources even | in the range | per row | in it |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, errors, mask in (
        ("**all**", unseen, every),
        ("reliable (A, A-, B+)", unseen, good),
        ("all, whole code base left out", project, every),
        ("all, in the fit", seen, every),
    ):
        sources = data.only(mask).sources
        cells = [
            f"{median:.1%} | {inside:.1%}"
            for weights in (even(sources), np.ones(mask.sum()))
            for median, inside in [shares(errors[mask], in_range(data, errors)[mask], weights)]
        ]
        lines.append(f"| {what} | {len(set(sources))} | {mask.sum()} | {' | '.join(cells)} |")
    return "\n".join(lines)


def headline(data: Published, unseen: np.ndarray) -> str:
    """What the README says."""
    inside = in_range(data, unseen)
    median, covered = shares(unseen, inside, even(data.sources))
    row_median, row_covered = shares(unseen, inside, np.ones(len(unseen)))
    return (
        f"{len(set(data.sources))} sources of equal weight, each left out of the fit: median error "
        f"{median:.1%}, {covered:.0%} of the values in the 80 % range; per row ({len(unseen)}): "
        f"{row_median:.1%}, {row_covered:.0%}"
    )


def spread(data: Published, unseen: np.ndarray) -> str:
    """How far sources differ from each other, and rows from their source."""
    sources = np.array(data.sources)
    means = {source: unseen[sources == source].mean() for source in dict.fromkeys(data.sources)}
    within = unseen - np.array([means[source] for source in data.sources])
    return (
        f"Standard deviation of the log error: {np.std(list(means.values())):.2f} between sources, "
        f"{np.sqrt(np.average(within**2, weights=even(data.sources))):.2f} within one."
    )


def scaling_table(data: Published, seen: np.ndarray) -> str:
    """Tokens/s per GPU against the same code on fewer GPUs: published, and in the fit."""
    named = {row["id"]: row for row in data.rows}
    errors = dict(zip(named, seen))
    speeds = {name: float(row["tokens_per_s"]) / int(row["gpus"]) for name, row in named.items()}
    lines = ["| source | GPUs | published | predicted |", "|---|---|---|---|"]
    for few, many in SCALED:
        published_share = speeds[many] / speeds[few]
        predicted = published_share * np.exp(errors[few] - errors[many])
        counts = f"{named[few]['gpus']} to {named[many]['gpus']} {named[many]['gpu']}"
        lines.append(
            f"| {named[many]['source']} | {counts} | {published_share:.2f} | {predicted:.2f} |"
        )
    return "\n".join(lines)


def source_table(data: Published, unseen: np.ndarray) -> str:
    lines = ["| source | reliability | rows | median error | bias |", "|---|---|---|---|---|"]
    for source in dict.fromkeys(data.sources):
        mask = np.array([s == source for s in data.sources])
        grades = "/".join(sorted({r["reliability"] for r in data.only(mask).rows}))
        median = np.median(np.abs(np.exp(-unseen[mask]) - 1))
        bias = np.exp(-unseen[mask].mean()) - 1
        lines.append(f"| {source} | {grades} | {mask.sum()} | {median:.1%} | {bias:+.1%} |")
    return "\n".join(lines)


def constants_table(
    constants: dict[str, float], priors: dict[str, tuple[float, float, str]]
) -> str:
    lines = ["| constant | fitted | prior | where the prior is from |", "|---|---|---|---|"]
    for name, (prior, width, origin) in priors.items():
        spread = f"{prior:g} x/÷ {np.exp(width):.2f}"
        lines.append(f"| `{name}` | {constants[name]:.3g} | {spread} | {origin} |")
    return "\n".join(lines)


def left_out_table(rows: list[dict[str, str]]) -> str:
    reasons = Counter(row["left_out"] for row in rows if row["left_out"])
    lines = ["| rows | why they are left out |", "|---|---|"]
    return "\n".join([*lines, *(f"| {n} | {reason} |" for reason, n in reasons.most_common())])
