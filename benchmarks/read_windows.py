"""Time per window of 1,024 tokens: our reader against `numpy.memmap`, warm and not in the cache.

    python benchmarks/read_windows.py [--rounds 40]

64 shards of 8 MB, 4,096 random windows, one process, in turns; the best round counts. Warm is this
process's own CPU time. For the rest the shards are dropped from the page cache before each round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from gpt2dist.data.serve.windows import Windows
from gpt2dist.data.shards import Dataset, Shard, Totals

SHARDS, SHARD_TOKENS, CONTEXT, WINDOWS = 64, 4_000_000, 1024, 4096


def dataset(folder: Path) -> Dataset:
    """Shards of random tokens, as `data prepare` would describe them."""
    draw = np.random.default_rng(0)
    shards = tuple(Shard(f"{i}.bin", "train", SHARD_TOKENS, 1, "") for i in range(SHARDS))
    for shard in shards:
        draw.integers(0, 50257, SHARD_TOKENS).astype("<u2").tofile(folder / shard.file)
    os.sync()  # what is not on the disk cannot be dropped
    totals = {"train": Totals(SHARDS, SHARDS * SHARD_TOKENS, 0), "val": Totals(0, 0, 0)}
    words = ("gpt2", 50257, 50256, "random", "text", None, 0.0, "", totals, shards, "", "", "")
    return Dataset(str(folder), *words)


def mapped(made: Dataset, indices: np.ndarray) -> np.ndarray:
    """The same windows from memory-mapped files, which are opened anew."""
    files = [np.memmap(Path(made.path) / shard.file, "<u2", "r") for shard in made.shards]
    per_shard = (SHARD_TOKENS - 1) // CONTEXT
    rows = np.empty((len(indices), CONTEXT + 1), np.uint16)
    for row, index in zip(rows, indices.tolist()):
        start = index % per_shard * CONTEXT
        row[:] = files[index // per_shard][start : start + CONTEXT + 1]
    return rows


def drop_from_cache(made: Dataset) -> None:
    for shard in made.shards:
        descriptor = os.open(Path(made.path) / shard.file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        made = dataset(Path(folder))
        indices = np.random.default_rng(1).integers(
            0, Windows(made, "train", CONTEXT).count, WINDOWS
        )
        ways = {
            "pread": lambda: Windows(made, "train", CONTEXT).gather(indices),
            "numpy.memmap": lambda: mapped(made, indices),
        }
        assert np.array_equal(*(read() for read in ways.values()))
        for state, clock, repeat in (
            ("warm", time.process_time, rounds),
            ("not in the cache", time.perf_counter, max(1, rounds // 8)),
        ):
            best = dict.fromkeys(ways, float("inf"))
            for _ in range(repeat):
                for name, read in ways.items():
                    if state != "warm":
                        drop_from_cache(made)
                    began = clock()
                    read()
                    best[name] = min(best[name], clock() - began)
            for name, seconds in best.items():
                print(f"{name:14}{state:18}{seconds / WINDOWS * 1e6:8.2f} us per window")


if __name__ == "__main__":
    main()
