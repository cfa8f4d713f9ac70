"""The helpers of these tests, and of those of `train`, can be imported by name."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "far", "away", "sun", "moon"]


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Some 40,000 bytes of text over thirteen words, prepared by the command line."""
    from gpt2dist.cli.main import main

    folder = tmp_path_factory.mktemp("text")
    source = folder / "text"
    source.mkdir()
    draw = random.Random(0)
    for number in range(40):
        (source / f"{number}.txt").write_text(" ".join(draw.choices(WORDS, k=250)))
    out = folder / "shards"
    words = ["data", "prepare", str(source), "--out", str(out), "--tokenizer", "bytes"]
    assert main([*words, "--val-fraction", "0.1", "--local"]) == 0
    return out
