"""Preparation: what lands in the folder, and that it never lands there by halves."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.finish import HASH_RULE, NO_RULE, TAIL_RULE
from gpt2dist.data.prepare.pipeline import dataset_dir, prepare
from gpt2dist.data.prepare.unit_shards import held_out
from gpt2dist.data.shards import load_dataset_folder
from gpt2dist.data.tokenizer import load_tokenizer
from gpt2dist.data.verify import verify
from gpt2dist.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

TEXTS = [f"{i}: " + "the quick brown fox " * (20 + i % 50) for i in range(3000)]


@pytest.fixture
def corpus(tmp_path):
    """A jsonl file of 3,000 documents and some 2.7 MB, which is 9 units."""
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def config(source, **changes):
    return DataConfig(**({"source": str(source), "val_fraction": 0.1} | changes))


def documents_of(folder, split, tokenizer="gpt2"):
    """Texts of a split, decoded from its shard files in order."""
    tokenizer = load_tokenizer(tokenizer)
    tokens = [np.fromfile(path, "<u2") for path in sorted(folder.glob(f"{split}-*.bin"))]
    tokens = np.concatenate(tokens)
    starts = np.flatnonzero(tokens == tokenizer.separator)
    assert starts[0] == 0, "each document begins with the separator"
    return [tokenizer.decode(part[1:].tolist()) for part in np.split(tokens, starts[1:])]


def shards_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.bin"))}


@pytest.mark.parametrize("tokenizer", ["gpt2", "bytes"])
def test_every_document_is_in_the_split_that_its_hash_says(corpus, tmp_path, tokenizer):
    out = tmp_path / "out"
    dataset = prepare(config(corpus, tokenizer=tokenizer), out, local=True)
    in_val = [held_out(text.encode(), 0.1) for text in TEXTS]
    assert 0.07 < np.mean(in_val) < 0.13
    for split, side in (("train", False), ("val", True)):
        expected = [text for text, val in zip(TEXTS, in_val) if val is side]
        assert documents_of(out, split, tokenizer) == expected
        totals = dataset.totals[split]
        assert totals.documents == len(expected)
        assert totals.text_bytes == sum(len(text.encode()) for text in expected)
        assert totals.tokens == sum(map(len, shards_of_split(out, split)))
    verify(dataset)
    assert dataset.split_rule == HASH_RULE
    assert load_dataset_folder(out) == dataset
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["manifest.json", *(shard.file for shard in dataset.shards)]
    )


def shards_of_split(folder, split):
    return [np.fromfile(path, "<u2") for path in folder.glob(f"{split}-*.bin")]


def test_ray_writes_the_same_bytes_as_one_process(corpus, tmp_path, ray_cluster):
    seen = []
    ours = prepare(config(corpus), tmp_path / "ray", progress=seen.append)
    prepare(config(corpus), tmp_path / "local", local=True)
    assert shards_of(tmp_path / "ray") == shards_of(tmp_path / "local")
    assert [state.units_done for state in seen] == list(range(1, seen[-1].units + 1))
    assert seen[-1].documents == len(TEXTS)
    assert seen[-1].tokens == ours.totals["train"].tokens + ours.totals["val"].tokens
    assert seen[-1].seconds_left == 0


def test_ray_tasks_report_the_users_mistake_in_one_line(corpus, tmp_path, ray_cluster):
    size = corpus.stat().st_size
    with corpus.open("a") as file:
        file.write("{broken\n")
    said = rf"corpus\.jsonl at byte {size:,} is not a JSON object"
    with pytest.raises(BadInput, match=said) as caught:
        prepare(config(corpus), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_prepared_folder_is_not_touched_again(corpus, tmp_path):
    first = prepare(config(corpus), tmp_path / "out", local=True)
    corpus.unlink()
    assert prepare(config(corpus), tmp_path / "out", local=True) == first
    with pytest.raises(BadInput, match=r"data\.val_fraction=0\.1, but .*data\.val_fraction=0\.2"):
        prepare(config(corpus, val_fraction=0.2), tmp_path / "out", local=True)
    # The folder can itself be the source.
    assert prepare(config(tmp_path / "out", val_fraction=0.5), tmp_path / "new") == first
    assert dataset_dir(tmp_path, config(tmp_path / "out")) == tmp_path / "out"


def test_one_document_gives_its_end_to_validation(tmp_path):
    text = "".join(f"Sentence number {i}. " for i in range(3000))
    (tmp_path / "book.txt").write_text(text)
    dataset = prepare(config(tmp_path / "book.txt"), tmp_path / "out", local=True)
    assert dataset.split_rule == TAIL_RULE
    train = np.concatenate(shards_of_split(tmp_path / "out", "train"))
    val = np.concatenate(shards_of_split(tmp_path / "out", "val"))
    assert len(val) == round(0.1 * (len(train) + len(val)))
    whole = np.concatenate([train, val])
    assert load_tokenizer("gpt2").decode(whole.tolist()) == "<|endoftext|>" + text
    assert (dataset.totals["train"].documents, dataset.totals["val"].documents) == (1, 0)
    both = dataset.totals["train"].text_bytes + dataset.totals["val"].text_bytes
    assert both == len(text)
    verify(dataset)


@pytest.mark.parametrize("fraction", [1e-9, 0.4, 0.999999])
def test_when_all_documents_fall_to_one_side_the_last_tokens_are_held_out(tmp_path, fraction):
    path = tmp_path / "few.jsonl"
    texts = [f"{i} " + "word " * 20_000 for i in range(20)]
    if fraction == 0.4:  # only documents that the hash holds out
        texts = [text for text in texts if held_out(text.encode(), fraction)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    dataset = prepare(config(path, val_fraction=fraction), tmp_path / "out", local=True)
    assert dataset.split_rule == TAIL_RULE
    parts = [
        np.fromfile(tmp_path / "out" / shard.file, "<u2")
        for split in ("train", "val")
        for shard in dataset.split(split)
    ]
    whole = np.concatenate(parts)
    expected = np.concatenate(load_tokenizer("gpt2").encode_documents(texts))
    assert np.array_equal(whole, expected)
    assert dataset.totals["val"].tokens == max(1, round(fraction * len(whole)))
    assert dataset.totals["train"].documents + dataset.totals["val"].documents == len(texts)
    verify(dataset)


@pytest.mark.parametrize(("fraction", "expected"), [(3 / 13, [7]), (0.4, [5, 7])])
def test_copies_of_a_text_never_stand_on_both_sides(tmp_path, fraction, expected):
    """Few texts, so that the hash puts all on one side; 0.4 would cut the first 6 in two."""
    texts = (f"{number} " + "word " * 30_000 for number in itertools.count(100))
    learned = list(itertools.islice((t for t in texts if not held_out(t.encode(), fraction)), 8))
    order = [learned[i] for i in (0, 1, 2, 3, 2, 4, 1, 6, 5, 6, 0, 7, 3)]
    path = tmp_path / "copies.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in order))
    dataset = prepare(config(path, val_fraction=fraction), tmp_path / "out", local=True)
    assert dataset.split_rule == TAIL_RULE
    held = [learned[i] for i in expected]
    assert documents_of(tmp_path / "out", "val") == held
    assert documents_of(tmp_path / "out", "train") == [text for text in order if text not in held]
    assert dataset.totals["val"].documents == len(held)
    assert dataset.totals["train"].text_bytes == sum(map(len, order)) - sum(map(len, held))
    verify(dataset)


def test_a_source_of_nothing_but_copies_is_refused(tmp_path):
    path = tmp_path / "copies.jsonl"
    path.write_text((json.dumps({"text": "the same " * 500}) + "\n") * 500)
    with pytest.raises(BadInput, match=r"copies\.jsonl ends in copies .* data\.val_fraction=0\.1 "):
        prepare(config(path), tmp_path / "out", local=True)
    assert prepare(config(path, val_fraction=0.0), tmp_path / "all", local=True).totals["train"]


def test_without_a_fraction_nothing_is_held_out(corpus, tmp_path):
    dataset = prepare(config(corpus, val_fraction=0.0), tmp_path / "out", local=True)
    assert dataset.split_rule == NO_RULE
    assert dataset.totals["val"].tokens == 0
    assert documents_of(tmp_path / "out", "train") == TEXTS


def test_a_source_without_text_is_refused(tmp_path):
    for name, content in (("empty.jsonl", ""), ("blank.jsonl", '{"text": " "}\n')):
        (tmp_path / name).write_text(content)
        with pytest.raises(BadInput, match=f"{name} holds no text"):
            prepare(config(tmp_path / name), tmp_path / name.partition(".")[0], local=True)


def test_a_folder_of_other_things_is_not_written_to(corpus, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(BadInput, match="home is not empty and not a dataset folder"):
        prepare(config(corpus), tmp_path / "home", local=True)


def test_default_folders_differ_by_settings_and_can_be_read(tmp_path):
    names = {
        dataset_dir(tmp_path, data).name
        for data in (
            DataConfig(),
            DataConfig(tokenizer="bytes"),
            DataConfig(val_fraction=0.1),
            DataConfig(source="hf:HuggingFaceFW/fineweb-edu:sample-10BT"),
            DataConfig(source="hf:HuggingFaceFW/fineweb-edu:sample-100BT"),
        )
    }
    assert len(names) == 5
    assert any(name.startswith("stdlib-gpt2-") for name in names)
    assert any(name.startswith("hf-huggingfacefw-fineweb-edu-sample-10bt-gpt2-") for name in names)


PREPARE = textwrap.dedent(
    """
    import os, signal, sys
    from gpt2dist.config.schema import DataConfig
    from gpt2dist.data.prepare.pipeline import prepare
    from gpt2dist.errors import RunFailure
    source, out, units, how, local = sys.argv[1:]
    due = [int(units)] if int(units) else []
    def count(state):
        if due and state.units_done >= due[0]:  # units may finish together
            due.clear()
            os.kill(os.getpid(), getattr(signal, how))
    try:
        prepare(DataConfig(source=source, val_fraction=0.1), out, progress=count,
                local=local == "local")
    except RunFailure as failure:
        sys.exit(f"one line: {failure}")
    """
)


def run_prepare(source, out, units=0, how="SIGKILL", local="local", limit_bytes=None):
    """Prepares in a process of its own that gets the signal `how` after so many units."""

    def limit():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.run(
        [sys.executable, "-c", PREPARE, str(source), str(out), str(units), how, local],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
        env=dict(os.environ, RAY_USAGE_STATS_ENABLED="0"),
    )


@pytest.mark.parametrize(
    ("how", "local"),
    [
        ("SIGKILL", "local"),
        ("SIGKILL", "ray"),
        ("SIGTERM", "local"),
        pytest.param("SIGINT", "ray", marks=pytest.mark.slow),
    ],
)
def test_a_killed_preparation_goes_on_to_the_same_bytes(corpus, tmp_path, how, local):
    whole, out = tmp_path / "whole", tmp_path / "out"
    prepare(config(corpus), whole, local=True)
    ended = run_prepare(corpus, out, units=3, how=how, local=local)
    assert ended.returncode != 0
    with pytest.raises(BadInput, match="unfinished"):
        load_dataset_folder(out)
    (out / ".train-00099.bin.abc.partial").write_bytes(b"half")
    (out / ".units" / ".00007.val.bin.abc.partial").write_bytes(b"half")
    finished = len(list((out / ".units").glob("0*.json")))
    seen = []
    prepare(config(corpus), out, local=True, progress=seen.append)
    assert finished >= 3
    assert len(seen) <= seen[-1].units - 3, "finished units were done again"
    assert shards_of(out) == shards_of(whole)
    assert not list(out.rglob(".*partial*"))


def test_a_shard_cut_short_after_its_unit_finished_is_made_again(corpus, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    prepare(config(corpus), whole, local=True)
    run_prepare(corpus, out, units=3)
    with (out / "train-00001.bin").open("r+b") as file:
        file.truncate(100)
    prepare(config(corpus), out, local=True)
    assert shards_of(out) == shards_of(whole)


def test_a_begun_folder_refuses_other_settings_and_changed_files(corpus, tmp_path):
    out = tmp_path / "out"
    run_prepare(corpus, out, units=2)
    with pytest.raises(BadInput, match=r"data\.tokenizer=gpt2, now data\.tokenizer=bytes; remove"):
        prepare(config(corpus, tokenizer="bytes"), out, local=True)
    with corpus.open("a") as file:
        file.write('{"text": "more"}\n')
    with pytest.raises(BadInput, match="names or sizes have changed"):
        prepare(config(corpus), out, local=True)


def test_two_preparations_of_one_folder_do_not_mix(corpus, tmp_path):
    code = PREPARE.replace(
        "os.kill(os.getpid(), getattr(signal, how))", "print(flush=True); sys.stdin.read()"
    )
    out = tmp_path / "out"
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(corpus), str(out), "2", "SIGKILL", "local"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with first:
        first.stdout.readline()  # it now waits in the middle of its work
        second = run_prepare(corpus, out)
        first.stdin.close()
    assert f"another process is preparing {out}" in second.stderr
    assert first.returncode == 0
    verify(load_dataset_folder(out))


def test_a_full_disk_is_one_line_and_no_manifest(corpus, tmp_path):
    """A limit on the size of files stands for the disk: the write fails in the same place."""
    out = tmp_path / "out"
    ended = run_prepare(corpus, out, limit_bytes=50_000)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"one line: cannot write {out}/")
    assert "make room there" in line
    assert not (out / "manifest.json").exists()
    assert not list(out.rglob(".*partial*"))
    prepare(config(corpus), out, local=True)
    verify(load_dataset_folder(out))
