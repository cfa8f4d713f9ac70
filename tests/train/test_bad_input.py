"""What cannot work is refused in one line that names key, value and remedy, and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from gpt2dist.cli.main import main
from gpt2dist.config.load import dump, resolve
from tests.train.command import (
    BATCH_TOKENS,
    TINY,
    TOTAL_STEPS,
    Command,
    final_tensors,
    last_step,
    rows_of,
    summary_of,
    wait_until,
)


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Runs `train` in this process, expects a refusal, returns its line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(*words: str, code: int = 2) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(["train", "debug", *TINY, "paths.runs=runs", *words]) == code
        said = capsys.readouterr()
        assert said.err.count("\n") == 1, said.err
        assert said.err.startswith("gpt2dist: ")
        assert "Traceback" not in said.err
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind"
        return said.err

    return run


@pytest.fixture
def damaged(shards, tmp_path) -> Path:
    """Shards of one's own, to be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def test_missing_shards(refused, tmp_path):
    line = refused("--local", f"paths.dataset={tmp_path / 'nowhere'}")
    assert f"{tmp_path / 'nowhere'} is not a dataset folder; `gpt2dist data prepare`" in line


def test_a_source_without_text(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    line = refused("--local", f"data.source={tmp_path / 'empty'}", "paths.data=data")
    assert str(tmp_path / "empty") in line


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *((name, f"--name={name!r} must be at most 100 letters, digits")
          for name in (".", "..", "../x", "/tmp", "a/b", "x" * 101, "é", "-x")),
        ("a\nb", "--name=a\\nb must be one line"),
        ("\x1b[2J", "--name=\\x1b[2J must be one line"),
        ("", "--name= must not be empty"),
    ],
)  # fmt: skip
def test_a_name_that_is_a_path_or_no_name(refused, name, says):
    assert says in refused("--local", f"--name={name}", "--fresh")


def test_a_folder_that_is_no_run_is_not_set_aside(refused, shards, tmp_path):
    (tmp_path / "runs" / "letters").mkdir(parents=True)
    (tmp_path / "runs" / "letters" / "mine.txt").write_text("keep")
    line = refused("--local", f"data.source={shards}", "--name=letters", "--fresh")
    assert "is none (no config.yaml)" in line


def test_a_refused_start_sets_nothing_aside(refused, shards, tmp_path):
    """The placement is found wanting after the old run was set aside, and the new one made."""
    words = [f"data.source={shards}", "--name=kept", "cluster.workers=4096"]
    folder = tmp_path / "runs" / "kept"
    folder.mkdir(parents=True)
    (folder / ".driver.lock").touch()
    (folder / "config.yaml").write_text(dump(resolve("debug", ["train.seed=5"])))
    before = (folder / "config.yaml").read_text()
    assert "cluster.workers=4096 is more than" in refused(*words, "--fresh")
    assert (folder / "config.yaml").read_text() == before


def test_dollars_without_a_price(refused, shards, monkeypatch):
    monkeypatch.delenv("GPT2DIST_USD_PER_HOUR", raising=False)
    line = refused("--local", f"data.source={shards}", "budget.usd=1")
    assert "budget.usd=1 cannot be kept: this machine has no price" in line


def test_truncated_shards(refused, damaged):
    shard = max(damaged.glob("*.bin"))
    os.truncate(shard, shard.stat().st_size - 10)
    line = refused("--local", f"data.source={damaged}")
    assert shard.name in line
    assert "prepare the dataset again" in line


def test_shards_replaced_by_others_of_the_same_size(damaged, tmp_path):
    """The run does not wait for the sums of its shards; it ends once one is wrong."""
    shard = max(damaged.glob("train-*.bin"))
    shard.write_bytes(bytes(shard.stat().st_size))
    words = ["train", "debug", "--local", *TINY, f"data.source={damaged}", f"paths.runs={tmp_path}"]
    command = Command(tmp_path, *words, "--name", "run").ends_with(2)
    assert command.stderr.count("\n") == 1, command.stderr
    assert f"{shard.name} does not have the sha256 of its manifest; restore it" in command.stderr
    assert "checkpoints after step 0 may have learned from it" in command.stderr
    assert summary_of(tmp_path / "run")["ended"] == "failed"


def test_shards_of_another_tokenizer(refused, shards):
    words = ["data.tokenizer=gpt2", "model.vocab=50257"]
    line = refused("--local", f"data.source={shards}", *words)
    assert "was prepared with data.tokenizer=bytes, but the config says data.tokenizer=gpt2" in line


def test_a_corpus_smaller_than_a_batch(refused, shards):
    words = ["train.batch_tokens=1048576", "train.tokens=1e8"]
    line = refused("--local", f"data.source={shards}", *words)
    assert "a batch needs 32,768 (1,048,576 tokens); lower train.batch_tokens" in line


def test_more_workers_than_cores(refused, shards):
    line = refused(f"data.source={shards}", "cluster.workers=4096")
    assert "cluster.workers=4096 is more than the" in line


def test_a_batch_that_the_workers_cannot_share(refused, shards):
    words = ["cluster.workers=2", "train.batch_tokens=160", "train.tokens=16000"]
    line = refused(f"data.source={shards}", *words)
    assert "nearest: 128 or 192" in line


def test_a_batch_that_micro_batches_do_not_fill(refused, shards):
    line = refused("--local", f"data.source={shards}", "cluster.micro_batch=3")
    assert "cluster.micro_batch=3 does not divide the 4 sequences of a worker" in line
    assert "nearest: 2" in line


def test_fp16_on_a_cpu(refused, shards):
    line = refused("--local", f"data.source={shards}", "cluster.precision=fp16")
    assert "cluster.precision=fp16 does not train on a CPU; use bf16 or fp32" in line


def test_the_folder_of_another_run(refused, shards, tmp_path):
    scratch = tmp_path / "runs"
    scratch.mkdir()
    words = ["--local", f"data.source={shards}", "--name", "taken"]
    first = ["train", "debug", *TINY, f"paths.runs={scratch}", "budget.tokens=256"]
    Command(scratch, *first, *words).ends_with(0)
    line = refused(*words, "optim.peak_lr=3e-3")
    assert "taken holds a different run (optim.peak_lr=0.002 there, 0.003 asked)" in line
    assert "--fresh" in line


@pytest.fixture(scope="module")
def halted(tmp_path_factory, shards) -> tuple[Path, list[str]]:
    """A run that its budget ended at step 50, with checkpoints of steps 40 and 50; its words."""
    runs = tmp_path_factory.mktemp("halted")
    words = ["train", "debug", "--local", *TINY, f"data.source={shards}"]
    budget = f"budget.tokens={50 * BATCH_TOKENS}"
    Command(runs, *words, f"paths.runs={runs}", "--name", "halted", budget).ends_with(0)
    return runs / "halted", words


def test_a_damaged_newest_checkpoint_is_skipped_and_not_called_the_one_to_resume_from(
    halted, tmp_path
):
    run_dir, words = halted
    copy = Path(shutil.copytree(run_dir, tmp_path / "run"))
    newest = copy / "checkpoints" / f"step-{TOTAL_STEPS - 1:08d}"
    shutil.copytree(copy / "checkpoints" / "step-00000050", newest)
    (weights,) = newest.glob("weights-*")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    command = Command(tmp_path, *words, f"paths.runs={tmp_path}", "--name", "run")
    wait_until(lambda: last_step(copy) >= 60, command.is_alive)
    os.kill(command.pid, signal.SIGTERM)
    command.ends_with(143)
    assert f"checkpoint {newest.name} is damaged and skipped" in command.stdout
    assert "continuing from step-00000050" in command.stdout
    resume_step = summary_of(copy)["resume_step"]
    assert 60 <= resume_step < TOTAL_STEPS - 1
    assert (copy / "checkpoints" / f"step-{resume_step:08d}").is_dir()


def test_a_full_disk_fails_in_one_line_and_keeps_what_was_saved(halted, tmp_path):
    run_dir, words = halted
    copy = Path(shutil.copytree(run_dir, tmp_path / "run"))
    saved = final_tensors(copy)
    largest = max(len(content) for content in saved.values())
    words = [*words, f"paths.runs={tmp_path}", "--name", "run"]
    command = Command(
        tmp_path, *words, "checkpoint.storage_patience_minutes=0", file_limit_bytes=largest // 2
    ).ends_with(1)
    assert command.stderr.count("\n") == 1, command.stderr
    assert "could not save the checkpoint of step 60" in command.stderr
    assert "older checkpoints are intact" in command.stderr
    assert final_tensors(copy) == saved
    assert not list(copy.glob("checkpoints/.*partial*"))
    assert rows_of(copy)[-1]["step"] == 60
    assert summary_of(copy)["ended"] == "failed"
    Command(tmp_path, *words).ends_with(0)
    assert summary_of(copy)["ended"] == "finished"


def test_a_run_folder_that_cannot_be_made(shards, tmp_path, capsys):
    (tmp_path / "runs").write_text("a file where the folder should be")
    words = ["train", "debug", "--local", *TINY, f"data.source={shards}"]
    assert main([*words, f"paths.runs={tmp_path / 'runs'}"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot write to the run folder" in said


def test_a_run_that_is_being_trained_is_not_trained_twice(halted, shards, tmp_path, capsys):
    import fcntl

    run_dir, words = halted
    copy = Path(shutil.copytree(run_dir, tmp_path / "run"))
    before = json.loads((copy / "ledger.json").read_text())
    with (copy / ".driver.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for more in ([], ["--fresh"]):
            assert main([*words, f"paths.runs={tmp_path}", "--name", "run", *more]) == 1
            said = capsys.readouterr().err
            assert said.count("\n") == 1
            assert "another process is training" in said
    assert json.loads((copy / "ledger.json").read_text()) == before
