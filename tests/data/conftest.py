"""Small datasets written with plain numpy, so that no test of a reader trusts our own writer."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest


def write_dataset(folder: Path, train: list[np.ndarray], val: list[np.ndarray]) -> Path:
    """A dataset folder of these uint16 token arrays, one shard each."""
    folder.mkdir()
    shards, totals = [], {}
    for split, parts in (("train", train), ("val", val)):
        for index, tokens in enumerate(parts):
            content = tokens.astype("<u2").tobytes()
            name = f"{split}-{index:05d}.bin"
            (folder / name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            shards.append(
                {
                    "file": name,
                    "split": split,
                    "tokens": len(tokens),
                    "documents": 1,
                    "sha256": sha256,
                }
            )
        tokens = sum(len(part) for part in parts)
        totals[split] = {"documents": len(parts), "tokens": tokens, "text_bytes": tokens}
    manifest = {
        "format": 1,
        "tokenizer": "bytes",
        "vocab": 257,
        "separator": 256,
        "source": "made by a test",
        "text_field": "text",
        "max_documents": None,
        "val_fraction": 0.1,
        "split_rule": "by hand",
        "totals": totals,
        "shards": shards,
        "tool": "a test",
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:00:01+00:00",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def dataset_of(tmp_path):
    """Writes a dataset folder of the uint16 arrays given for its two splits."""
    return lambda train, val: write_dataset(tmp_path / "dataset", train, val)


@pytest.fixture
def folder(dataset_of):
    """Three training shards of 97, 50 and 161 tokens and a validation shard of 90."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 257, 97 + 50 + 161 + 90)
    train = np.split(tokens[:308], [97, 147])
    return dataset_of(train, [tokens[308:]])
