"""How long comparing many runs takes, and how much memory: 1,000 runs of 1,000 rows by default.

    python benchmarks/compare_speed.py [--runs 1000] [--rows 1000] [--every 25]

Writes run folders as training leaves them into a temporary folder, then runs the comparison in a
process of its own: tables, CSV, PNG and HTML. Prints seconds and the peak of its memory.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from gpt2dist.config.load import dump, resolve
from gpt2dist.track.attempts import Attempt
from gpt2dist.track.ledger import Account
from gpt2dist.track.summary import RunEnd, summarize

SIZES = ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m")
RATES = 50
MEASURED = """
import resource, sys
from gpt2dist.compare.command import CompareRequest, compare
compare(CompareRequest(runs_dir=sys.argv[1], loss=3.3, **eval(sys.argv[2])), lambda line: None)
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def write_runs(folder: Path, runs: int, rows: int, every: int) -> int:
    """Runs of four sizes, fifty rates and as many seeds as it takes; returns their bytes."""
    written = 0
    base = {size: resolve(size) for size in SIZES}
    for number in range(runs):
        size = SIZES[number % len(SIZES)]
        config = base[size]
        config = replace(
            config,
            optim=replace(config.optim, peak_lr=1e-4 * (1 + number // len(SIZES) % RATES)),
            train=replace(config.train, seed=number // (len(SIZES) * RATES)),
        )
        run = folder / f"{size}-{number:04d}"
        run.mkdir(parents=True)
        seconds = 3600.0 * (1 + number % 7)
        attempt = Attempt("1", 1.7e9, 1.7e9 + seconds, 1, 14.32, "config", "host")
        records = [_row(config.train.batch_tokens, step, rows, seconds, every, number)
                   for step in range(1, rows + 1)]  # fmt: skip
        (run / "config.yaml").write_text(dump(config))
        (run / "ledger.json").write_text(json.dumps({"attempts": [asdict(attempt)]}))
        text = "".join(json.dumps(row) + "\n" for row in records)
        (run / "metrics.jsonl").write_text(text)
        written += len(text)
        summary = summarize(
            config,
            records,
            Account([attempt]),
            RunEnd(run.name, "finished", "", "NVIDIA A100-SXM4-80GB", 8, "bf16"),
        )
        (run / "summary.json").write_text(json.dumps(summary))
    return written


def _row(
    batch_tokens: int, step: int, rows: int, seconds: float, every: int, number: int
) -> dict[str, object]:
    spent = seconds * step / rows
    row: dict[str, object] = {
        "step": step * 10,
        "tokens": step * 10 * batch_tokens,
        "loss": 3.0 + 7.123456789012345 / math.sqrt(step),
        "grad_norm": 0.51234567890123,
        "lr": 0.0006 * (1 - step / rows),
        "skipped": 0,
        "tokens_per_s": 1234567.890123456,
        "step_s": 0.4246753246753247,
        "data_wait_s": 5.729340009565931e-05,
        "mfu": 0.4712345678901234,
        "gpu_peak_gib": 61.23456789012345,
        "host_gib": 4.016704559326172,
        "seconds": spent,
        "usd": spent * 14.32 / 3600,
        "time": 1.7e9 + spent,
    }
    if step % every == 0:
        row["val_loss"] = 3.0 + (number % 13) / 100 + 7 / math.sqrt(step)
    return row


def measure(folder: Path, outputs: dict[str, str]) -> tuple[float, float, float]:
    """Wall and CPU seconds of a whole process, interpreter included, and its peak MiB."""
    started = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, str(folder), repr(outputs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder.parent)
    seconds = time.perf_counter() - started
    cpu_seconds, peak_mib = map(float, done.stdout.split())
    return seconds, cpu_seconds, peak_mib


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--every", type=int, default=25, help="rows between two evaluations")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "runs"
        size = write_runs(folder, arguments.runs, arguments.rows, arguments.every)
        print(f"{arguments.runs:,} runs of {arguments.rows:,} rows, {size / 1e6:,.0f} MB of rows")
        everything = {name: str(Path(temporary) / f"out.{name}") for name in ("csv", "png", "html")}
        for what, outputs in (("tables", {}), ("tables, CSV, PNG, HTML", everything)):
            seconds, cpu, mib = min(measure(folder, outputs) for _ in range(3))
            print(f"{what:<24}{seconds:6.2f} s, {cpu:.2f} s of CPU{mib:6.0f} MiB   (best of 3)")
        print(f"HTML: {Path(everything['html']).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
