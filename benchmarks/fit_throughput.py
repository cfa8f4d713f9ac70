"""Fit the throughput model on published runs, and measure it on sources the fit has not seen.

    python benchmarks/fit_throughput.py           # write the constants and the tables of the docs
    python benchmarks/fit_throughput.py --check   # fail if the committed ones differ

Each constant starts from a prior (counted or published, with a log-scale width). The loss is a
pseudo-Huber of the log error; a source with n rows weighs sqrt(n), GPT-2's own shapes twice as much
as near ones. There is no chance in it: one start, fixed rules.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.machine.hardware import Hardware, gpu_named
from gpt2dist.plan.speed.roofline import Constants, Work, step_seconds
from gpt2dist.plan.speed.throughput import CLOCK_EXPONENT, describe

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "gpt2dist" / "plan" / "speed" / "published_throughput.csv"
CONSTANTS = ROOT / "gpt2dist" / "plan" / "speed" / "throughput_fit.csv"
DOCS = ROOT / "docs" / "planner-throughput.md"

PRIORS = {
    "matmul_share": (0.85, 0.15, "rough: real shapes against the best one"),
    "matmul_share_hopper": (0.75, 0.20, "rough: few shapes reach its ceiling"),
    "attention_share": (0.60, 0.30, "FlashAttention-2 paper, A100: half to 73 % of the peak"),
    "attention_share_v1": (0.45, 0.30, "the same paper: FlashAttention 1 is slower by 1.3 to 2"),
    "eager_bytes": (200.0, 0.40, "rough count: 60 to 100 tensors of one width, read or written"),
    "compiled_bytes": (120.0, 0.40, "rough count: pointwise chains fused"),
    "hand_written_bytes": (90.0, 0.40, "rough count: the bare minimum"),
    "score_bytes": (56.0, 0.40, "counted, at full bandwidth"),
    "forward_share": (0.30, 0.15, "1/3 by FLOPs; the backward pass is the less efficient one"),
    "pcie_share": (0.30, 0.50, "6.2 of 15.75 GB/s between two 3090 Ti without P2P (mli)"),
    "overlap": (0.60, 0.30, "guess: most of it"),
    "hop_us": (3.0, 0.70, "guess: a few microseconds"),
}
NAMES = tuple(PRIORS)
START = np.log([prior for prior, _, _ in PRIORS.values()])
WIDTH = np.array([width for _, width, _ in PRIORS.values()])

HUBER_SCALE = 0.12
"""Log errors beyond this count linearly."""

UNALIGNED_HEAD = 2.0
"""A vocabulary that is no multiple of 8 and not padded slows the head's products: nanoGPT's step of
124M got 25 % faster by padding 50257 to 50304 (A. Karpathy, February 2023); the head is 0.3 of it.
gpt2dist pads."""

GPT2_WEIGHT = 2.0
"""What GPT-2's own shapes weigh against near ones: they are what is planned here."""

RELIABLE = ("A", "A-", "B+")
"""Raw logs and authors' own tables."""


@dataclass(frozen=True)
class Published:
    rows: list[dict[str, str]]
    work: Work
    "One array element per row."
    seconds: np.ndarray

    def only(self, mask: np.ndarray) -> Published:
        work = Work(**{f.name: getattr(self.work, f.name)[mask] for f in fields(Work)})
        return Published([r for r, m in zip(self.rows, mask) if m], work, self.seconds[mask])

    @property
    def sources(self) -> list[str]:
        return [row["source"] for row in self.rows]


def read_rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def published(rows: list[dict[str, str]]) -> Published:
    works, seconds = zip(*map(work_of, rows))
    arrays = {f.name: np.array([getattr(w, f.name) for w in works], float) for f in fields(Work)}
    return Published(rows, Work(**arrays), np.array(seconds))


def work_of(row: dict[str, str]) -> tuple[Work, float]:
    """A published row as Work, and the seconds of one of its steps."""
    model = ModelConfig(
        **{k: int(row[k]) for k in ("layers", "heads", "width", "context", "vocab")}
    )
    gpu, nodes = gpu_named(row["gpu"]), int(row["nodes"])
    hardware = Hardware(gpu, int(row["gpus"]) // nodes, nodes)
    layout = Layout(
        gpus_per_node=hardware.gpus_per_node,
        nodes=nodes,
        micro_batch=int(row["micro_batch"]),
        accumulation=max(1, round(float(row["accumulation"]))),
        precision=row["precision"],
        # What is sent is 16-bit in every one of these code bases.
        mixed_precision="engine",
        kernels=row["kernels"],
        zero_stage=int(row["zero_stage"]),
        recompute=row["recompute"] == "yes",
        fused_attention=row["attention"] != "stored",
        offload=row["offload"],
    )
    attention_flops = 12 * model.layers * model.width * model.context
    matmul_weights = (float(row["flops_per_token"]) - attention_flops) / 6
    work = describe(
        model,
        hardware,
        layout,
        internode_gbs=float(row["internode_gbs"] or 12.5),
        overlaps=row["overlap"] == "yes",
        block_weights=(matmul_weights - model.vocab * model.width) / model.layers,
        attention_v1=row["attention"] == "flash 1",
    )
    if row["watts"]:
        slower = (float(row["watts"]) / gpu.watts) ** CLOCK_EXPONENT
        work = replace(work, flops_per_s=work.flops_per_s * slower)
    micro_tokens = layout.micro_batch * model.context
    if model.vocab % 8:
        head_flops = 6 * micro_tokens * model.vocab * model.width
        work = replace(work, matmul_flops=work.matmul_flops + (UNALIGNED_HEAD - 1) * head_flops)
    tokens = micro_tokens * layout.accumulation * hardware.gpus
    return work, tokens / float(row["tokens_per_s"])


def log_errors(logs: np.ndarray, data: Published) -> np.ndarray:
    """Log of published over predicted tokens/s, row by row."""
    compute, communication = step_seconds(data.work, constants_of(logs))
    return np.log((compute + communication + data.work.optimizer_seconds) / data.seconds)


def constants_of(logs: np.ndarray) -> Constants:
    return Constants(**dict(zip(NAMES, map(float, np.exp(logs)))))


def fit(data: Published) -> np.ndarray:
    """Logs of the constants: Levenberg-Marquardt with reweighting, from the priors."""
    counts = Counter(data.sources)
    twice = np.array([GPT2_WEIGHT if row["gpt2_shape"] == "yes" else 1.0 for row in data.rows])
    weights = twice * np.array([counts[source] ** -0.5 for source in data.sources])

    def scaled(logs: np.ndarray) -> np.ndarray:
        return log_errors(logs, data) / HUBER_SCALE

    def loss(logs: np.ndarray) -> float:
        huber = 2 * (np.sqrt(1 + scaled(logs) ** 2) - 1)
        return float(weights @ huber + (((logs - START) / WIDTH) ** 2).sum())

    logs, best, damping = START.copy(), loss(START), 1e-3
    for _ in range(500):
        errors = scaled(logs)
        robust = weights / np.sqrt(1 + errors**2)
        slopes = np.stack(
            [(scaled(logs + d) - scaled(logs - d)) / 2e-5 for d in 1e-5 * np.eye(len(logs))], axis=1
        )
        curvature = slopes.T @ (robust[:, None] * slopes) + np.diag(WIDTH**-2)
        gradient = slopes.T @ (robust * errors) + (logs - START) / WIDTH**2
        for _ in range(20):
            move = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
            if (new := loss(logs - move)) < best:
                break
            damping *= 5
        else:
            return logs
        logs, best, damping = logs - move, new, max(damping / 5, 1e-9)
    raise SystemExit("fit: no minimum after 500 steps")


def left_out_errors(data: Published, groups: list[str]) -> np.ndarray:
    """Log errors of each group under the constants fitted on all the others."""
    errors = np.empty(len(groups))
    for group in dict.fromkeys(groups):
        unseen = np.array([g == group for g in groups])
        errors[unseen] = log_errors(fit(data.only(~unseen)), data.only(unseen))
    return errors


def quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Smallest value that at least `share` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(reached, share - 1e-12)])


def even(sources: list[str]) -> np.ndarray:
    """Weights under which every source counts the same."""
    counts = Counter(sources)
    return np.array([1 / counts[source] for source in sources])


def fields_of(errors: np.ndarray, weights: np.ndarray) -> str:
    relative = np.abs(np.exp(-errors) - 1)
    within = weights[relative <= 0.3].sum() / weights.sum()
    return f"{quantile(relative, weights, 0.5):.1%} | {within:.1%}"


def accuracy_table(data: Published, unseen: np.ndarray, project: np.ndarray, host: str) -> str:
    """Median error and share within 30 %, per row and with each source weighing the same."""
    seen = log_errors(fit(data), data)
    good = np.array([row["reliability"] in RELIABLE for row in data.rows])
    every = np.full(len(good), True)
    lines = [
        "| rows | | number | median error | within 30 % | median, sources even | within 30 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, errors, mask in (
        ("**reliable (A, A-, B+)**", unseen, good),
        ("all", unseen, every),
        ("reliable, whole code base left out", project, good),
        ("all, whole code base left out", project, every),
        ("reliable, in the fit", seen, good),
    ):
        sources = data.only(mask).sources
        lines.append(
            f"| {what} | {len(set(sources))} sources | {mask.sum()} "
            f"| {fields_of(errors[mask], np.ones(mask.sum()))} "
            f"| {fields_of(errors[mask], even(sources))} |"
        )
    return "\n".join([*lines, "", host])


def source_table(data: Published, unseen: np.ndarray) -> str:
    lines = ["| source | reliability | rows | median error | bias |", "|---|---|---|---|---|"]
    for source in dict.fromkeys(data.sources):
        mask = np.array([s == source for s in data.sources])
        grades = "/".join(sorted({r["reliability"] for r in data.only(mask).rows}))
        median = np.median(np.abs(np.exp(-unseen[mask]) - 1))
        bias = np.exp(-unseen[mask].mean()) - 1
        lines.append(f"| {source} | {grades} | {mask.sum()} | {median:.1%} | {bias:+.1%} |")
    return "\n".join(lines)


def constants_table(constants: dict[str, float]) -> str:
    lines = ["| constant | fitted | prior | where the prior is from |", "|---|---|---|---|"]
    for name, (prior, width, origin) in PRIORS.items():
        spread = f"{prior:g} x/÷ {np.exp(width):.2f}"
        lines.append(f"| `{name}` | {constants[name]:.3g} | {spread} | {origin} |")
    return "\n".join(lines)


def left_out_table(rows: list[dict[str, str]]) -> str:
    reasons = Counter(row["left_out"] for row in rows if row["left_out"])
    lines = ["| rows | why they are left out |", "|---|---|"]
    return "\n".join([*lines, *(f"| {n} | {reason} |" for reason, n in reasons.most_common())])


def compute() -> tuple[dict[str, float], dict[str, str]]:
    """Everything that is committed: the constants and interval, and the tables by marker."""
    rows = read_rows()
    data = published([row for row in rows if not row["left_out"]])
    constants = {name: getattr(constants_of(fit(data)), name) for name in NAMES}
    unseen = left_out_errors(data, data.sources)
    project = left_out_errors(data, [row["framework"] for row in data.rows])
    good = np.array([row["reliability"] in RELIABLE for row in data.rows])
    for name, share in (("low", 0.1), ("high", 0.9)):
        constants[name] = float(np.exp(quantile(unseen, even(data.sources), share)))
    bound = [row for row in rows if row["left_out"].startswith("host-bound")]
    off = np.exp(-log_errors(fit(data), published(bound)))
    misses = (np.abs(np.exp(-unseen[good]) - 1) > 0.3).sum() + len(bound)
    host = (
        f"The {len(bound)} host-bound rows that are left out are predicted {off.min():.1f} to "
        f"{off.max():.1f} times too fast; with them counted as misses, "
        f"{1 - misses / (good.sum() + len(bound)):.1%} of the reliable rows are within 30 %."
    )
    return constants, {
        "accuracy": accuracy_table(data, unseen, project, host),
        "sources": source_table(data, unseen),
        "constants": constants_table(constants),
        "left-out": left_out_table(rows),
    }


def as_csv(constants: dict[str, float]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("name", "value"))
    writer.writerows((name, f"{value:.9g}") for name, value in constants.items())
    return file.getvalue()


def with_tables(text: str, tables: dict[str, str]) -> str:
    """`text` with what stands between each pair of markers replaced."""
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text, found = pattern.subn(lambda _, new=f"{begin}\n{table}\n{end}": new, text)
        if found != 1:
            raise SystemExit(f"{DOCS.name}: {found} pairs of markers {begin}, one is needed")
    return text


def check(constants: dict[str, float], tables: dict[str, str]) -> list[str]:
    """What differs from the committed files, one line each."""
    with CONSTANTS.open(encoding="utf-8") as file:
        committed = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    if committed.keys() != constants.keys():
        return [f"{CONSTANTS.name}: other constants than the model's"]
    wrong = [
        f"{CONSTANTS.name}: {name} is {committed[name]}, the fit gives {value:.9g}"
        for name, value in constants.items()
        if abs(committed[name] / value - 1) > 1e-6
    ]
    text = DOCS.read_text(encoding="utf-8")
    return wrong + (
        [f"{DOCS.name}: its tables differ"] if with_tables(text, tables) != text else []
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    constants, tables = compute()
    if arguments.check:
        sys.exit("\n".join(check(constants, tables)) or 0)
    CONSTANTS.write_text(as_csv(constants), encoding="utf-8")
    text = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(with_tables(text, tables), encoding="utf-8")
    print(tables["accuracy"])


if __name__ == "__main__":
    main()
