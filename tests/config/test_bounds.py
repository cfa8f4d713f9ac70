"""No number of the config is without bounds, and each is refused just beyond them."""

import dataclasses
import math
import re
from typing import get_type_hints

import pytest

from gpt2dist.config.bounds import Bound, bounds_of
from gpt2dist.config.load import from_tree, resolve
from gpt2dist.config.schema import Config
from gpt2dist.config.typed import base_type, key_paths, key_type
from gpt2dist.errors import BadInput

NUMBERS = [path for path in key_paths() if base_type(key_type(path))[0] in (int, float)]


def refusal(path, value):
    section, _, key = path.partition(".")
    with pytest.raises(BadInput) as caught:
        from_tree({section: {key: value}}, "mine.yaml")
    said = str(caught.value)
    assert said.startswith(f"{path}=")
    assert said.endswith("(in mine.yaml)")
    assert len(said) < 200
    return said


@pytest.mark.parametrize("path", NUMBERS)
def test_every_number_has_bounds_and_keeps_them(path):
    (bound,) = bounds_of(key_type(path))
    assert isinstance(bound, Bound)
    assert math.isfinite(bound.high)
    assert bound.says in refusal(path, bound.low - 1)
    refusal(path, bound.high * 2)
    refusal(path, 10**400)
    refusal(path, math.nan)
    refusal(path, math.inf)
    if bound.open_low:
        assert bound.says in refusal(path, bound.low)
    if bound.open_high:
        assert bound.says in refusal(path, bound.high)


def test_the_defaults_are_within_their_bounds():
    for section, kind in get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            from_tree({section: dataclasses.asdict(kind())}, "the defaults")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.tokens=0", "train.tokens=0 must be at least 1"),
        ("optim.peak_lr=-1", "optim.peak_lr=-1.0 must be a positive number"),
        ("optim.peak_lr=.nan", "must be a positive number"),
        ("model.dropout=1", "model.dropout=1.0 must be at least 0 and below 1"),
        ("budget.usd=0", "budget.usd=0.0 must be a positive number"),
        ("train.tokens=1e300", "train.tokens=1.00e+300 must be at most 1e+15 (Llama 3"),
        ("train.tokens=1e30", "train.tokens=1.00e+30 must be at most 1e+15 (Llama 3"),
        ("model.layers=1e9", "model.layers=1000000000 must be at most 1,000 (GPT-3"),
        ("train.seed=18446744073709551616", "must be at most 4,294,967,295"),
        ("data.source=", "data.source= must not be empty"),
        ("paths.runs=' '", "paths.runs=  must not be empty"),
        ("paths.runs=\udcff", "must be one line of UTF-8 text"),
        ("eval.sample_prompt=\udcff", "eval.sample_prompt=\\udcff is not UTF-8 text"),
        ('track.experiment="a\\nb"', "track.experiment=a\\nb must be one line"),
        (f"data.source=a/{'x' * 256}/b", "is too long"),
        ("track.uri=http://me:hunter2@host:5000", "track.uri=http://host:5000 holds a password"),
        ("track.uri=postgresql://me:hunt/er2@db/x", "use $MLFLOW_TRACKING_URI for the whole"),
        ("track.uri=https://hunter2@host", "holds a password"),
        ("track.uri=mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter2", "holds a password"),
        ("data.source=s3://me:hunter2@bucket/text", "data.source=s3://bucket/text holds a passw"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(override, message):
    with pytest.raises(BadInput) as caught:
        resolve("debug", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not re.search("hunt|er2", str(caught.value))


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "https://host/a?b=c", "postgresql://me@db:5432/x?sslmode=require",
     "sqlite:////data/a@b/mlflow.db", "databricks", "databricks://profile"],
)  # fmt: skip
def test_an_address_without_a_password_is_kept_as_it_is(uri):
    assert resolve("debug", [f"track.uri={uri}"]).track.uri == uri


def test_the_seed_of_every_step_fits_torch():
    """The loop seeds dropout with (seed x 1,000,003 + step) x 4,099 + rank."""
    import torch

    largest = {path: bounds_of(key_type(path))[0].high for path in NUMBERS}
    seed, steps = largest["train.seed"], largest["optim.warmup_steps"]
    torch.manual_seed((seed * 1_000_003 + steps) * 4099 + 4098)
