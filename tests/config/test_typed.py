"""Trees and words become the types that the schema declares, or one line that names the key."""

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.errors import BadInput


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 10**9),
        ("1_000_000", 10**6),
        ("2.0", 2),
        ("8192", 8192),
        ("10B", 10**10),
        ("10b", 10**10),
        ("300M", 3 * 10**8),
        ("2.5k", 2500),
        ("1.3T", 13 * 10**11),
        ("4,864", 4864),
    ],
)
def test_whole_numbers_may_be_written_as_people_write_them(text, value, tmp_path):
    assert resolve("gpt2-124m", [f"budget.tokens={text}"]).budget.tokens == value
    (tmp_path / "mine.yaml").write_text(f"budget: {{tokens: '{text}'}}\n")
    assert resolve(str(tmp_path / "mine.yaml")).budget.tokens == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.peak_lr=fast", "optim.peak_lr='fast' is not a number"),
        ("optim.peak_lr=6M", "optim.peak_lr='6M' is not a number"),
        ("model.layers=2.5", "model.layers=2.5 is not a whole number"),
        ("train.tokens=10X", "train.tokens='10X' is not a whole number"),
        ("train.tokens=1,5M", "train.tokens='1,5M' is not a whole number"),
        ("train.tokens=.inf", "train.tokens=inf is not a whole number"),
        ("train.tokens=null", "train.tokens=None is not a whole number"),
        ("train.tokens=1e999999999", "is not a whole number"),
        ("track.mlflow=1", "track.mlflow=1 is not true or false"),
        ("zero.stage=4", "zero.stage=4 is none of 0, 1, 2, 3"),
        ("optim.schedule=cosin", "is none of cosine, linear, wsd, constant"),
        ("model=3", "unknown config key model"),
    ],
)
def test_a_wrong_type_is_one_line(override, message):
    with pytest.raises(BadInput) as caught:
        resolve("debug", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
