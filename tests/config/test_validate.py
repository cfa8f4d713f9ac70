"""Values that are fine one by one and cannot be together."""

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.errors import BadInput


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.heads=3",
            "model.width=128 is not a multiple of model.heads=3; nearest: 126 or 129",
        ),
        ("train.batch_tokens=5000", "multiple of model.context=256; nearest: 4,864 or 5,120"),
        ("data.tokenizer=bytes", "model.vocab=50257 does not match data.tokenizer=bytes"),
        ("optim.warmup_steps=9999", "is longer than the run of 64 steps"),
        ("cluster.watts=300", "needs cluster.usd_per_kwh"),
        ("cluster.purchase_usd=2500", "cluster.lifetime_hours make a price together"),
        ("cluster.lifetime_hours=2500", "cluster.lifetime_hours make a price together"),
        ("train.tokens=1e15", "are more than 99,999,999 steps; train fewer tokens or in larger"),
    ],
)
def test_impossible_combinations_are_one_line(override, message):
    with pytest.raises(BadInput) as caught:
        resolve("debug", [override])
    assert message in str(caught.value)
    assert "(in recipe debug)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_impossible_precisions_are_refused():
    with pytest.raises(BadInput, match="fp16 does not train on a CPU"):
        resolve("debug", ["cluster.device=cpu", "cluster.precision=fp16"])
    with pytest.raises(BadInput, match=r"engine with zero.stage=0 drifts"):
        resolve("debug", ["cluster.mixed_precision=engine", "zero.stage=0"])
