"""What `gpt2dist train` refuses before anything slow is imported."""

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["debug", "optim.peek_lr=1"], "optim.peek_lr; did you mean optim.peak_lr?"),
        (["debug", "train.seed=many"], "train.seed"),
        (["debug", "train.seed"], "train.seed"),
        (["debug", "model.heads=3"], "model.width=128 is not a multiple of model.heads=3"),
        (["debug", "train.tokens=1e300"], "train.tokens=1.00e+300 must be at most 1e+15"),
        (["gpt2-125m"], "gpt2-124m"),
    ],
)
def test_bad_input_is_one_line_and_code_2(words, said, refused):
    assert said in refused(["train", *words])
