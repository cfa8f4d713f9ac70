"""Dataset folders: what is read, and what is refused."""

import json

import pytest

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.shards import load_dataset_folder, require, write_manifest
from gpt2dist.data.verify import verify
from gpt2dist.errors import BadInput


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_written_manifest_reads_back_the_same(folder):
    dataset = load_dataset_folder(folder)
    assert [shard.tokens for shard in dataset.split("train")] == [97, 50, 161]
    assert dataset.totals["val"].tokens == 90
    write_manifest(dataset)
    assert load_dataset_folder(folder) == dataset
    verify(dataset)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "no manifest.json, so it is not"),
        (lambda f: (f / "manifest.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "manifest.json").write_text('{"format": 1}'), "is damaged"),
        (
            lambda f: edit_manifest(f, sha257="0"),
            "is damaged .*unexpected .* 'sha257'",
        ),
        (lambda f: edit_manifest(f, format=2), "format=2, this version reads format=1"),
        (lambda f: (f / "train-00001.bin").unlink(), "train-00001.bin is missing"),
        (lambda f: (f / "val-00000.bin").write_bytes(b"ab"), "2 bytes, its manifest says 180"),
        (lambda f: (f / "val-00000.bin").write_bytes(b""), "0 bytes, its manifest says 180"),
    ],
)
def test_a_damaged_folder_is_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(BadInput, match=message):
        load_dataset_folder(folder)


def test_a_manifest_vouches_for_itself(folder):
    write_manifest(load_dataset_folder(folder))
    edit_manifest(folder, val_fraction=0.2)
    with pytest.raises(BadInput, match=r"manifest.json is damaged \(.* recorded sha256\); restore"):
        load_dataset_folder(folder)


def test_an_unfinished_folder_says_how_to_go_on(folder):
    (folder / "manifest.json").unlink()
    (folder / ".units").mkdir()
    with pytest.raises(BadInput, match=r"unfinished .*run the same `gpt2dist data prepare` again"):
        load_dataset_folder(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nowhere is not a dataset folder"):
        load_dataset_folder(tmp_path / "nowhere")


def test_an_empty_shard_is_refused_even_if_the_manifest_agrees(folder):
    tree = json.loads((folder / "manifest.json").read_text())
    tree["shards"][3]["tokens"] = 0
    edit_manifest(folder, shards=tree["shards"])
    (folder / "val-00000.bin").write_bytes(b"")
    with pytest.raises(BadInput, match=r"val-00000.bin has 0 bytes"):
        load_dataset_folder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "gpt2"}, r"data\.tokenizer=bytes, but .*data\.tokenizer=gpt2"),
        ({"source": "other"}, r"data\.source=made by a test, but .*data\.source=other"),
        ({"val_fraction": 0.2}, r"data\.val_fraction=0\.1, but .*data\.val_fraction=0\.2"),
        ({"max_documents": 5}, r"data\.max_documents=None, but .*data\.max_documents=5"),
        ({"text_field": "body"}, r"data\.text_field=text, but .*data\.text_field=body"),
    ],
)
def test_a_config_of_another_dataset_is_refused(folder, changes, message):
    settings = {"source": "made by a test", "tokenizer": "bytes", "val_fraction": 0.1}
    dataset = load_dataset_folder(folder)
    require(dataset, DataConfig(**settings))
    with pytest.raises(BadInput, match=message):
        require(dataset, DataConfig(**(settings | changes)))


def test_a_vocabulary_that_is_not_its_tokenizers_is_refused(folder):
    edit_manifest(folder, vocab=320)
    settings = {"source": "made by a test", "tokenizer": "bytes", "val_fraction": 0.1}
    with pytest.raises(BadInput, match=r"manifest\.json says vocab=320, bytes has another"):
        require(load_dataset_folder(folder), DataConfig(**settings))


def test_a_source_that_is_the_folder_only_has_to_agree_on_the_tokenizer(folder):
    dataset = load_dataset_folder(folder)
    require(dataset, DataConfig(source=str(folder), tokenizer="bytes", val_fraction=0.9))
    with pytest.raises(BadInput, match=r"data\.tokenizer=gpt2"):
        require(dataset, DataConfig(source=str(folder), tokenizer="gpt2"))
