"""What `gpt2dist config` prints, and the files and recipes that it refuses."""

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpt2-125m"], "gpt2-124m"),
        (["gpt2-xxl"], "did you mean gpt2-xl?"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["folder.yaml"], "folder.yaml"),
        (["broken.yaml"], "broken.yaml"),
        (["binary.yaml"], "binary.yaml"),
        (["list.yaml"], "list.yaml"),
    ],
)
def test_bad_input_is_one_line_and_code_2(words, said, refused, tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "broken.yaml").write_text("model: {layers: [}\n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "list.yaml").write_text("- model\n")
    assert said in refused(["config", *words])


def test_the_printed_config_is_a_file_that_can_be_trained(tmp_path, ask):
    printed = ask("config", "debug", "optim.peak_lr=1e-3")[1].out
    assert printed.startswith("# identity ")
    (tmp_path / "mine.yaml").write_text(printed)
    assert ask("config", str(tmp_path / "mine.yaml"))[1].out == printed
