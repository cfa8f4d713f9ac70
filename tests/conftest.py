"""One Ray and one small text for all tests of the session that need them."""

import os
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray reads it once, when it is imported

import pytest

from tests.train.command import prepare_text


@pytest.fixture(scope="session")
def ray_cluster():
    from gpt2dist.ray_session import ray_session

    with ray_session():
        yield


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    return prepare_text(tmp_path_factory.mktemp("text"))
