"""Hugging Face datasets, from copies that the tests make: no network."""

import os
import subprocess
import sys

import datasets
import pytest

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.corpus import documents, plan_units
from gpt2dist.errors import BadInput

TEXTS = [f"text {i} " + "w" * (i % 50) for i in range(300)]


def texts_of(source, max_documents=None, text_field="text"):
    data = DataConfig(source=source, text_field=text_field, max_documents=max_documents)
    return [text for unit in plan_units(data) for text in documents(unit, text_field)]


def test_a_saved_dataset_reads_back(tmp_path):
    saved = datasets.Dataset.from_dict({"text": TEXTS})
    saved.save_to_disk(tmp_path / "plain")
    datasets.DatasetDict({"train": saved, "test": saved.select([0])}).save_to_disk(tmp_path / "d")
    for name in ("plain", "d"):
        assert texts_of(f"hf:{tmp_path}/{name}") == TEXTS
        assert texts_of(f"hf:{tmp_path}/{name}", max_documents=7) == TEXTS[:7]


def test_a_large_saved_dataset_is_cut_into_units(tmp_path):
    texts = [f"{i} " + "v" * 3000 for i in range(1000)]
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "large")
    assert len(plan_units(DataConfig(source=f"hf:{tmp_path}/large"))) >= 8
    assert texts_of(f"hf:{tmp_path}/large") == texts


def test_a_folder_of_parquet_files_streams_one_unit_per_shard(tmp_path):
    for index in range(3):
        part = datasets.Dataset.from_dict({"text": TEXTS[index * 100 : index * 100 + 100]})
        part.to_parquet(tmp_path / f"train-{index:05d}-of-00003.parquet")
    source = f"hf:{tmp_path}"
    assert len(plan_units(DataConfig(source=source))) == 3
    assert texts_of(source) == TEXTS
    # Fewer shards than quotas of 10,000 would fill: dealt evenly, in order.
    assert texts_of(source, max_documents=6) == TEXTS[:6]


def test_more_documents_than_a_quota_come_from_several_shards(tmp_path):
    for index in range(2):
        texts = [f"{index} {i}" for i in range(10_050)]
        part = datasets.Dataset.from_dict({"text": texts})
        part.to_parquet(tmp_path / f"train-{index:05d}-of-00002.parquet")
    found = texts_of(f"hf:{tmp_path}", max_documents=10_010)
    assert found == [f"0 {i}" for i in range(10_000)] + [f"1 {i}" for i in range(10)]


def test_a_missing_column_names_those_there_are(tmp_path):
    datasets.Dataset.from_dict({"title": ["x"], "body": ["y"]}).save_to_disk(tmp_path / "d")
    with pytest.raises(BadInput, match=r"data\.text_field=text; it has title, body"):
        texts_of(f"hf:{tmp_path}/d")


def test_a_missing_train_split_names_those_there_are(tmp_path):
    part = datasets.Dataset.from_dict({"text": ["x"]})
    datasets.DatasetDict({"test": part}).save_to_disk(tmp_path / "d")
    with pytest.raises(BadInput, match="has no split train; it has test"):
        texts_of(f"hf:{tmp_path}/d")


def test_an_unreachable_dataset_is_one_line_with_a_remedy():
    code = (
        "from gpt2dist.config.schema import DataConfig\n"
        "from gpt2dist.data.prepare.corpus import plan_units\n"
        "plan_units(DataConfig(source='hf:nobody/nothing:config'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert "BadInput: data.source=hf:nobody/nothing:config could not be opened" in last
    assert "hf auth login" in last
