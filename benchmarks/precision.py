"""Is bf16 worth its default on this CPU? bf16 against fp32 in the same loop.

    python benchmarks/precision.py [--rounds 3] [--steps 15] [RECIPE] [a.b=value ...]

Runs `gpt2dist train --local` in turn with either precision; the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def tokens_per_s(recipe: str, overrides: list[str], precision: str, steps: int, data: str) -> float:
    with tempfile.TemporaryDirectory() as runs:
        command = [
            sys.executable, "-m", "gpt2dist", "train", recipe, "--local", *overrides,
            f"cluster.precision={precision}", f"paths.runs={runs}", f"paths.data={data}",
            f"train.tokens={steps * 8192}", "train.batch_tokens=8192", "optim.warmup_steps=1",
            "track.every_steps=1", "eval.every_steps=null", "eval.tokens=1024",
            "eval.sample_every_steps=null", "checkpoint.every_steps=null",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = next(Path(runs).glob("*/metrics.jsonl")).read_text().splitlines()
    return statistics.median(json.loads(line)["tokens_per_s"] for line in lines[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("recipe", nargs="?", default="debug")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as data:
        for number in range(1, arguments.rounds + 1):
            half, full = (
                tokens_per_s(arguments.recipe, arguments.overrides, name, arguments.steps, data)
                for name in ("bf16", "fp32")
            )
            ratios.append(half / full)
            print(
                f"round {number}: bf16 {half:,.0f} tokens/s, fp32 {full:,.0f} tokens/s, "
                f"ratio {half / full:.2f}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
