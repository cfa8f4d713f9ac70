"""The description of a dataset."""

import json

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.pipeline import prepare
from gpt2dist.data.show import describe_dataset


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
