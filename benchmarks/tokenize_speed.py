"""Tokens per second and core: our path from a JSONL file to shards, against `datasets.map`.

Both read the same file of the standard library's source, tokenise with tiktoken's GPT-2 encoding
and write uint16 token files, one process each, in turns in the same run:

    python benchmarks/tokenize_speed.py [--rounds 3] [--megabytes 24]

The rival is the script that most people write: `load_dataset("json")`, `map` with
`encode_ordinary`, then one flat memory-mapped file. Best of the rounds counts, start-up does not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import tiktoken

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.corpus import documents, plan_units
from gpt2dist.data.prepare.pipeline import prepare
from gpt2dist.data.tokenizer import load_tokenizer


def write_corpus(path: Path, megabytes: float) -> int:
    """Writes modules of the standard library until there are so many; returns their number."""
    written = count = 0
    with path.open("w") as file:
        while written < megabytes * 1e6:
            for unit in plan_units(DataConfig()):
                for text in documents(unit, "text"):
                    # Numbered, so that no document repeats another.
                    written += file.write(json.dumps({"text": f"# {count}\n{text}"}) + "\n")
                    count += 1
                    if written >= megabytes * 1e6:
                        return count
    return count


def ours(corpus: Path, folder: Path) -> int:
    data = DataConfig(source=str(corpus), val_fraction=0.0)
    return prepare(data, folder / "ours", local=True).totals["train"].tokens


def datasets_map(corpus: Path, folder: Path) -> int:
    encoding = tiktoken.get_encoding("gpt2")

    def process(example):
        ids = [encoding.eot_token, *encoding.encode_ordinary(example["text"])]
        return {"ids": ids, "len": len(ids)}

    rows = datasets.load_dataset(
        "json", data_files=str(corpus), split="train", cache_dir=str(folder / "cache")
    )
    tokens = rows.map(process, remove_columns=["text"])
    total = int(np.sum(tokens["len"], dtype=np.uint64))
    out = np.memmap(folder / "train.bin", np.uint16, "w+", shape=(total,))
    at = 0
    for shard in range(8):
        batch = tokens.shard(8, shard, contiguous=True).with_format("numpy")
        joined = np.concatenate(batch["ids"][:])
        out[at : at + len(joined)] = joined
        at += len(joined)
    out.flush()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=24)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    load_tokenizer("gpt2")
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        count = write_corpus(corpus, options.megabytes)
        for turn in range(options.rounds):
            totals = set()
            for way in (ours, datasets_map):
                place = Path(folder) / f"{way.__name__}-{turn}"
                place.mkdir()
                began = time.perf_counter()
                tokens = way(corpus, place)
                seconds = time.perf_counter() - began
                best[way.__name__] = max(best.get(way.__name__, 0.0), tokens / seconds)
                totals.add(tokens)
            assert len(totals) == 1, f"the two ways disagree: {totals}"
    print(f"{count:,} documents, {options.megabytes:g} MB, {tokens:,} tokens, one process")
    print(f"{'way':<14}{'tokens/s':>12}{'ratio':>8}")
    for name, speed in best.items():
        print(f"{name:<14}{speed:>12,.0f}{speed / best['datasets_map']:>8.2f}")


if __name__ == "__main__":
    main()
