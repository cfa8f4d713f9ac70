"""How long until something happens? `--help`, and from the shell to the first training step.

    python benchmarks/startup.py [--rounds 3]

The data are prepared before the clock starts; the run is `train debug` with two workers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds_of_help() -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "gpt2dist", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def seconds_to_first_step(data: str, *options: str) -> float:
    with tempfile.TemporaryDirectory() as runs:
        command = [
            sys.executable, "-m", "gpt2dist", "train", "debug", *options, f"paths.runs={runs}",
            f"paths.data={data}", "train.tokens=16384", "track.every_steps=1",
            "optim.warmup_steps=0", "eval.tokens=256",
        ]  # fmt: skip
        began = time.time()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = next(Path(runs).glob("*/metrics.jsonl")).read_text().splitlines()
    return json.loads(lines[0])["time"] - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = range(parser.parse_args().rounds)
    print(f"--help: median {statistics.median(seconds_of_help() for _ in rounds):.2f} s")
    with tempfile.TemporaryDirectory() as data:
        seconds_to_first_step(data)  # prepares the corpus and warms the disk cache
        ray = statistics.median(seconds_to_first_step(data) for _ in rounds)
        print(f"train debug, shell to first step done: median {ray:.1f} s", flush=True)
        local = statistics.median(seconds_to_first_step(data, "--local") for _ in rounds)
        print(f"train debug --local, shell to first step done: median {local:.1f} s")


if __name__ == "__main__":
    main()
