"""What `gpt2dist data` makes of text, shows and refuses."""

import pytest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "nowhere"], "nowhere is not a dataset folder"),
        (["prepare", "nowhere.txt", "--out", "x", "--local"], "nowhere.txt"),
        (["prepare", "stdlib", "--out", "x", "--val-fraction", "1"], "--val-fraction=1"),
        (["prepare", "stdlib", "--out", "x", "--max-documents", "0"], "must be at least 1"),
        (["prepare", "", "--out", "x"], "SOURCE= must not be empty"),
    ],
)
def test_bad_input_is_one_line_and_code_2(words, said, refused):
    assert said in refused(["data", *words])


def test_prepared_shards_are_shown_and_hold_their_sums(ask, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat " * 200)
    words = ["data", "prepare", "text.txt", "--out", "shards", "--tokenizer", "bytes", "--local"]
    code, made = ask(*words, "--val-fraction", "0")
    assert code == 0
    code, shown = ask("data", "show", "shards", "--verify")
    assert code == 0
    assert shown.out.splitlines()[-1] == "every shard has its recorded sha256"
    assert made.out.endswith(shown.out.removesuffix("every shard has its recorded sha256\n"))
