"""Does the whole stack cost speed? Ray + DeepSpeed + Ray Data + tracking against bare PyTorch.

    python benchmarks/stack_vs_bare.py [--rounds 3] [--steps 30]

Both train the debug recipe's model on the same shards with the same dtype, micro-batch, threads
and fused AdamW, in turn, each in a process of its own; the ratio is taken pair by pair.
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

MICRO, CONTEXT, BATCH = 16, 256, 32
WARMUP_STEPS = 5


def bare(dataset: str, steps: int) -> float:
    """Tokens per second of a loop without any framework: memmap, autocast, AdamW."""
    import numpy as np
    import torch

    from gpt2dist.config.load import resolve
    from gpt2dist.model.gpt2 import GPT2
    from gpt2dist.model.optim import build_adamw
    from gpt2dist.train.machine import probe_machine

    machine = probe_machine()
    torch.set_num_threads(machine.cpu_cores)
    config = resolve("debug")
    torch.manual_seed(0)
    model = GPT2(config.model)
    optimizer = build_adamw(model, config.optim, "cpu")
    tokens = np.memmap(sorted(Path(dataset).glob("train-*.bin"))[0], "<u2", "r")
    random = np.random.default_rng(0)
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        for _ in range(BATCH // MICRO):
            starts = random.integers(0, len(tokens) - CONTEXT - 1, MICRO)
            rows = np.stack([tokens[s : s + CONTEXT + 1] for s in starts]).astype(np.int64)
            batch = torch.from_numpy(rows)
            with torch.autocast("cpu", torch.bfloat16, enabled=machine.cpu_has_bf16):
                loss = model(batch[:, :-1], batch[:, 1:])
            (loss / (BATCH * CONTEXT)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - began)
    return BATCH * CONTEXT / statistics.median(seconds[WARMUP_STEPS:])


def stack(dataset: str, steps: int) -> tuple[float, float]:
    """Tokens per second and data-wait share of `gpt2dist train debug` with one worker."""
    with tempfile.TemporaryDirectory() as runs:
        command = [
            sys.executable, "-m", "gpt2dist", "train", "debug", f"paths.runs={runs}",
            f"paths.dataset={dataset}", "cluster.workers=1", f"cluster.micro_batch={MICRO}",
            f"train.tokens={steps * BATCH * CONTEXT}", "track.every_steps=1",
            "eval.every_steps=null", "eval.sample_every_steps=null", "checkpoint.every_steps=null",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = next(Path(runs).glob("*/metrics.jsonl")).read_text().splitlines()
    rows = [json.loads(line) for line in lines][WARMUP_STEPS:]
    wait = sum(row["data_wait_s"] for row in rows) / sum(row["step_s"] for row in rows)
    return statistics.median(row["tokens_per_s"] for row in rows), wait


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--bare", metavar="DATASET", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        print(bare(arguments.bare, arguments.steps))
        return
    with tempfile.TemporaryDirectory() as folder:
        dataset = f"{folder}/stdlib"
        prepare = ["-m", "gpt2dist", "data", "prepare", "stdlib", "--out", dataset]
        prepare += ["--val-fraction", "0.02"]  # as the debug recipe describes its data
        subprocess.run([sys.executable, *prepare], check=True, stdout=subprocess.DEVNULL)
        ratios, waits = [], []
        for number in range(1, arguments.rounds + 1):
            command = [sys.executable, __file__, "--bare", dataset, "--steps", str(arguments.steps)]
            plain = float(subprocess.run(command, check=True, capture_output=True).stdout)
            whole, wait = stack(dataset, arguments.steps)
            ratios.append(whole / plain)
            waits.append(wait)
            print(
                f"round {number}: bare {plain:,.0f} tokens/s, stack {whole:,.0f} tokens/s, "
                f"ratio {whole / plain:.3f}, data wait {wait:.2%}",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.3f}, data wait {statistics.median(waits):.2%}")


if __name__ == "__main__":
    main()
