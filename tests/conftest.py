"""One Ray and one small text for all tests of the session that need them."""

import os
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import numpy as np
import pytest

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "far", "away", "sun", "moon"]


@pytest.fixture(scope="session")
def ray_cluster():
    from gpt2dist.ray_session import ray_session

    with ray_session():
        yield


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Some 40,000 bytes of text over thirteen words, prepared by the command line."""
    from gpt2dist.cli.main import main

    folder = tmp_path_factory.mktemp("text")
    source = folder / "text"
    source.mkdir()
    draw = np.random.default_rng(0)
    for number in range(40):
        (source / f"{number}.txt").write_text(" ".join(draw.choice(WORDS, 250)))
    out = folder / "shards"
    words = ["data", "prepare", str(source), "--out", str(out), "--tokenizer", "bytes"]
    assert main([*words, "--val-fraction", "0.1", "--local"]) == 0
    return out
