"""Fit the throughput model on published runs, and measure it on sources the fit has not seen.

    python benchmarks/fit_throughput.py           # write the constants and the tables of the docs
    python benchmarks/fit_throughput.py --check   # fail if the committed ones differ

Each constant starts from a prior (counted or published, with a log-scale width). The loss is a
pseudo-Huber of the log error; every source weighs the same, however many rows it published. There
is no chance in it: one start, fixed rules.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from pathlib import Path

import numpy as np
from throughput_runs import Published, even, published, read_rows
from throughput_tables import (
    accuracy_table,
    constants_table,
    headline,
    interval,
    left_out_table,
    scaling_table,
    source_table,
    spread,
)

from gpt2dist.plan.speed.roofline import Constants, step_seconds

ROOT = Path(__file__).resolve().parents[1]
CONSTANTS = ROOT / "gpt2dist" / "plan" / "speed" / "throughput_fit.csv"
DOCUMENTS = {
    ROOT / "README.md": ("headline",),
    ROOT / "docs" / "planner-throughput.md": (
        *("headline", "accuracy", "scaling", "sources", "constants", "left-out"),
    ),
}
"""What the fit writes into each, between a pair of markers."""

PRIORS = {
    "matmul_share": (0.85, 0.15, "rough: real shapes against the best one"),
    "matmul_limit_pflops": (2.5, 0.50, "guess: an H100 (0.79) gets three quarters of its ceiling"),
    "attention_share": (0.60, 0.30, "FlashAttention-2 paper, A100: half to 73 % of the peak"),
    "attention_share_v1": (0.45, 0.30, "the same paper: FlashAttention 1 is slower by 1.3 to 2"),
    "eager_bytes": (200.0, 0.40, "rough count: 60 to 100 tensors of one width, read or written"),
    "compiled_bytes": (120.0, 0.40, "rough count: pointwise chains fused"),
    "hand_written_bytes": (90.0, 0.40, "rough count: the bare minimum"),
    "score_bytes": (37.0, 0.40, "counted at full bandwidth: 56 under autocast"),
    "autocast_traffic": (1.5, 0.20, "rough: half of the tensors are twice as wide"),
    "forward_share": (0.30, 0.15, "1/3 by FLOPs; the backward pass is the less efficient one"),
    "pcie_share": (0.30, 0.50, "6.2 of 15.75 GB/s between two 3090 Ti without P2P (mli)"),
    "overlap": (0.60, 0.30, "guess: collectives take some of the GPU from the backward pass"),
    "hop_us": (3.0, 0.70, "guess: a few microseconds"),
    "gpu_spread": (0.04, 0.70, "guess: a few per cent"),
    "yearly_gain": (0.06, 0.70, "guess: of torch.compile; a plan has all of it"),
}
NAMES = tuple(name for name in PRIORS if name != "yearly_gain")
START = np.log([prior for prior, _, _ in PRIORS.values()])
WIDTH = np.array([width for _, width, _ in PRIORS.values()])

HUBER_SCALE = 0.2
"""Log errors beyond this count linearly: about what code bases differ by."""


def log_errors(logs: np.ndarray, data: Published) -> np.ndarray:
    """Log of published over predicted tokens/s, row by row."""
    compute, communication = step_seconds(data.work, constants_of(logs))
    predicted = compute + communication + data.work.optimizer_seconds
    return np.log(predicted / data.seconds) + data.age * np.exp(logs[-1])


def constants_of(logs: np.ndarray) -> Constants:
    return Constants(**dict(zip(NAMES, map(float, np.exp(logs)))))


def fit(data: Published, start: np.ndarray = START) -> np.ndarray:
    """Logs of the constants: Levenberg-Marquardt with reweighting."""
    weights = even(data.sources)

    def scaled(logs: np.ndarray) -> np.ndarray:
        return log_errors(logs, data) / HUBER_SCALE

    def loss(logs: np.ndarray) -> float:
        huber = 2 * (np.sqrt(1 + scaled(logs) ** 2) - 1)
        return float(weights @ huber + (((logs - START) / WIDTH) ** 2).sum())

    logs, best, damping = start.copy(), loss(start), 1e-3
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
    errors, whole = np.empty(len(groups)), fit(data)
    for group in dict.fromkeys(groups):
        unseen = np.array([g == group for g in groups])
        errors[unseen] = log_errors(fit(data.only(~unseen), whole), data.only(unseen))
    return errors


def compute() -> tuple[dict[str, float], dict[str, str]]:
    """Everything that is committed: the constants and interval, and the tables by marker."""
    rows = read_rows()
    data = published([row for row in rows if not row["left_out"]])
    logs = fit(data)
    fitted = dict(zip(PRIORS, map(float, np.exp(logs))))
    seen = log_errors(logs, data)
    unseen = left_out_errors(data, data.sources)
    project = left_out_errors(data, [row["framework"] for row in data.rows])
    low, high = interval(unseen, data.sources)
    constants = {name: fitted[name] for name in NAMES}
    constants |= {"low": float(np.exp(low)), "high": float(np.exp(high))}
    bound = [row for row in rows if row["left_out"].startswith("host-bound")]
    off = np.exp(-log_errors(logs, published(bound)))
    host = (
        f"The {len(bound)} host-bound rows that are left out are predicted {off.min():.1f} to "
        f"{off.max():.1f} times too fast. {spread(data, unseen)}"
    )
    return constants, {
        "headline": headline(data, unseen),
        "accuracy": f"{accuracy_table(data, unseen, project, seen)}\n\n{host}",
        "scaling": scaling_table(data, seen),
        "sources": source_table(data, unseen),
        "constants": constants_table(fitted, PRIORS),
        "left-out": left_out_table(rows),
    }


def as_csv(constants: dict[str, float]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("name", "value"))
    writer.writerows((name, f"{value:.9g}") for name, value in constants.items())
    return file.getvalue()


def with_tables(path: Path, tables: dict[str, str]) -> str:
    """The text of a document with what stands between each pair of its markers replaced."""
    text = path.read_text(encoding="utf-8")
    for name in DOCUMENTS[path]:
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        space = " " if name == "headline" else "\n"
        new = space.join((begin, tables[name], end))
        text, found = pattern.subn(lambda _, new=new: new, text)
        if found != 1:
            raise SystemExit(f"{path.name}: {found} pairs of markers {begin}, one is needed")
    return text


def check(constants: dict[str, float], tables: dict[str, str]) -> list[str]:
    """What differs from the committed files, one line each."""
    with CONSTANTS.open(encoding="utf-8") as file:
        committed = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    if committed.keys() != constants.keys():
        return [f"{CONSTANTS.name}: other constants than the model's"]
    return [
        f"{CONSTANTS.name}: {name} is {committed[name]}, the fit gives {value:.9g}"
        for name, value in constants.items()
        if abs(committed[name] / value - 1) > 1e-6
    ] + [
        f"{path.name}: what the fit gives differs"
        for path in DOCUMENTS
        if with_tables(path, tables) != path.read_text(encoding="utf-8")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    constants, tables = compute()
    if arguments.check:
        sys.exit("\n".join(check(constants, tables)) or 0)
    CONSTANTS.write_text(as_csv(constants), encoding="utf-8")
    for path in DOCUMENTS:
        path.write_text(with_tables(path, tables), encoding="utf-8")
    print(tables["headline"], tables["accuracy"], sep="\n\n")


if __name__ == "__main__":
    main()
