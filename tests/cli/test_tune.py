"""What `gpt2dist tune` refuses."""

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.yaml"], "no such config file: nowhere.yaml"),
        (["sweep.yaml"], "sweep.yaml must name what it varies"),
    ],
)
def test_bad_input_is_one_line_and_code_2(words, said, refused, tmp_path):
    (tmp_path / "sweep.yaml").write_text("space: {optim.peak_lr: {grid: [1e-3]}}\n")
    assert said in refused(["tune", *words])
