"""The description of a dataset."""

import json
from dataclasses import replace

import pytest

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.pipeline import prepare
from gpt2dist.data.serve.windows import Windows
from gpt2dist.data.shards import Totals, load_dataset_folder
from gpt2dist.data.show import describe_dataset, remarks


def test_the_description_tells_what_the_folder_holds(tmp_path):
    path = tmp_path / "corpus.jsonl"
    texts = [f"Story {i}. " + "Once upon a time. " * 40 for i in range(200)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = DataConfig(source=str(path), tokenizer="bytes", val_fraction=0.1)
    dataset = prepare(data, tmp_path / "out", local=True)
    text = describe_dataset(dataset, batch_tokens=1024)
    train = dataset.totals["train"]
    (row,) = [line.split() for line in text.splitlines() if line.startswith("train")]
    assert row == ["train", f"{train.documents:,}", f"{train.tokens:,}", "1.00", "1"]
    assert str(path) in text
    assert f"{train.tokens / 1024:,.1f} steps of 1,024 tokens" in text
    assert "<|endoftext|>Story 0. Once upon a time." in text


@pytest.mark.parametrize(
    ("held", "noted"), [(1, True), (9, True), (11, False), (50, False), (49_000, True)]
)
def test_the_share_that_was_reached_is_said_and_noted_when_far_from_what_was_asked(
    folder, held, noted
):
    """The fixture's manifest asks for a tenth."""
    totals = {"train": Totals(1, 200, 200), "val": Totals(1, held, held)}
    dataset = replace(load_dataset_folder(folder), totals=totals)
    share = f"{held / (200 + held):.2%}"
    found = [line for line in remarks(dataset, context=16) if "val_fraction" in line]
    assert bool(found) is noted
    assert all(
        f"data.val_fraction=0.1 has held out {share} of all tokens" in line for line in found
    )
    said = describe_dataset(dataset)
    assert f"held out   {share} of all tokens (val_fraction 0.1): by hand" in said
    assert ("note       data.val_fraction" in said) is noted


def test_shards_without_a_window_are_named(folder):
    dataset = load_dataset_folder(folder)
    assert Windows(dataset, "train", 97).count == 1, "of the shard of 161"
    train, val = list(remarks(dataset, context=97))[-2:]
    assert train.startswith("2 of 3 train shards are shorter than one window of model.context=97")
    assert train.endswith("train-00000.bin has 97 tokens, all of them 147")
    assert val.startswith("1 of 1 val shards")
    assert "shards" not in " ".join(remarks(dataset, context=49))
    assert f"note       {train}" in describe_dataset(dataset, context=97)
