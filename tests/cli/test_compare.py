"""What `gpt2dist compare` refuses."""

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "no run at 'nobody'"),
        (["--loss", "0"], "--loss=0.0 must be a positive number"),
        (["a", "--sweep", "b"], "RUN and --sweep name runs in different ways"),
    ],
)
def test_bad_input_is_one_line_and_code_2(words, said, refused):
    assert said in refused(["compare", *words])
