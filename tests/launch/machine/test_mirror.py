"""Runs in a bucket: equal when copied, and never mistaken for whole when they are not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2dist.disk import partial_of
from gpt2dist.launch.machine.bucket import Bucket, copy
from gpt2dist.launch.machine.mirror import pull, push
from gpt2dist.run_files import JOURNAL_FILE, SWEEPS

RUN = "gpt2-124m-69e8053c"


def save_checkpoint(run_dir: Path, step: int, content: bytes) -> None:
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name in ("optimizer-00-00.safetensors", "weights-00-00.safetensors"):
        (folder / name).write_bytes(content + name.encode())
        files[name] = hashlib.sha256(content + name.encode()).hexdigest()
    (folder / "state.json").write_text(json.dumps({"step": step, "files": files}))


def advance(run_dir: Path, step: int) -> None:
    """What a run writes up to a checkpoint, and a little further."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.yaml").write_text("recipe: gpt2-124m\n")
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step}) + "\n" + json.dumps({"step": step + 1}) + "\n")
    save_checkpoint(run_dir, step, f"step {step}".encode())


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def require_sound(bucket: Path) -> None:
    """Every checkpoint with a readable state.json is whole; half a one is skipped as damaged."""
    for state in bucket.glob("*/checkpoints/*/state.json"):
        try:
            record = json.loads(state.read_text())
        except ValueError:
            continue
        for name, sha256 in record["files"].items():
            assert hashlib.sha256((state.parent / name).read_bytes()).hexdigest() == sha256


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def test_a_run_comes_back_from_the_bucket_as_it_was(runs, tmp_path):
    advance(runs / RUN, 100)
    advance(runs / RUN, 200)
    (runs / RUN / ".driver.lock").touch()
    push(runs, Bucket.open(str(tmp_path / "bucket")))
    assert pull(Bucket.open(str(tmp_path / "bucket")), tmp_path / "elsewhere", RUN)
    there = tree(tmp_path / "elsewhere" / RUN)
    here = tree(runs / RUN)
    del here[".driver.lock"]
    assert there == here


def test_a_pull_that_was_killed_leaves_nothing_to_the_next(runs, tmp_path):
    """Neither files of checkpoints that are gone from the bucket, nor the space they take."""
    advance(runs / RUN, 200)
    push(runs, Bucket.open(str(tmp_path / "bucket")))
    target = tmp_path / "elsewhere" / RUN
    stale, neighbour = partial_of(target), partial_of(target.with_name(f"{RUN}-2"))
    for partial in (stale, neighbour, target.with_name(f".pulling-{RUN}")):
        save_checkpoint(partial, 100, b"of a checkpoint that the bucket has no more")
    assert pull(Bucket.open(str(tmp_path / "bucket")), target.parent, RUN)
    assert tree(target) == tree(runs / RUN)
    assert not stale.exists()
    assert neighbour.exists()


def test_what_is_there_already_is_not_sent_again(runs, tmp_path):
    bucket = Bucket.open(str(tmp_path / "bucket"))
    advance(runs / RUN, 100)
    assert push(runs, bucket) == 5
    assert push(runs, bucket) == 0
    with (runs / RUN / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    assert push(runs, bucket) == 1


def test_rotated_checkpoints_leave_the_bucket_too(runs, tmp_path):
    bucket = Bucket.open(str(tmp_path / "bucket"))
    for step in (100, 200):
        advance(runs / RUN, step)
    push(runs, bucket)
    for path in (runs / RUN / "checkpoints" / "step-00000100").iterdir():
        path.unlink()
    (runs / RUN / "checkpoints" / "step-00000100").rmdir()
    push(runs, bucket)
    assert not any("step-00000100" in name for name in bucket.files())
    assert tree(tmp_path / "bucket" / RUN) == tree(runs / RUN)


def test_a_step_that_was_trained_again_replaces_the_first(runs, tmp_path):
    bucket = Bucket.open(str(tmp_path / "bucket"))
    advance(runs / RUN, 100)
    push(runs, bucket)
    save_checkpoint(runs / RUN, 100, b"otherwise")
    push(runs, Bucket.open(str(tmp_path / "bucket")))
    assert tree(tmp_path / "bucket" / RUN) == tree(runs / RUN)
    require_sound(tmp_path / "bucket")


class LostConnection(Bucket):
    """The real bucket, whose line drops in the middle of the n-th file or removal."""

    left = 0

    def send(self, source, name):
        self._count()
        if self.left == 0:
            half = source.read_bytes()[: source.stat().st_size // 2]
            target = Path(f"{self.base}/{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(half)
            raise OSError("connection reset")
        super().send(source, name)

    def write(self, content, name):
        self._count()
        if self.left == 0:
            raise OSError("connection reset")
        return super().write(content, name)

    def remove(self, name):
        self._count()
        if self.left == 0:
            raise OSError("connection reset")
        super().remove(name)

    def _count(self):
        self.left -= 1


@pytest.mark.parametrize("files", range(1, 9))
def test_an_upload_cut_short_anywhere_leaves_no_false_checkpoint(runs, tmp_path, files):
    place = str(tmp_path / "bucket")
    advance(runs / RUN, 100)
    push(runs, Bucket.open(place))
    save_checkpoint(runs / RUN, 100, b"trained again")
    advance(runs / RUN, 200)
    bucket = LostConnection.open(place)
    bucket.left = files
    with pytest.raises(OSError, match="connection reset"):
        push(runs, bucket)
    require_sound(tmp_path / "bucket")
    push(runs, Bucket.open(place))
    assert tree(tmp_path / "bucket" / RUN) == tree(runs / RUN)


SWEEP = f"{SWEEPS}/lr_124m"
"As the sweep itself names its folder; the mirror may not import that."


def tell(sweep: Path, **event) -> None:
    sweep.mkdir(parents=True, exist_ok=True)
    with (sweep / JOURNAL_FILE).open("a") as file:
        file.write(json.dumps(event) + "\n")


def go_on(sweep: Path) -> None:
    """The first trial ends, the second is half done; both as a sweep writes them."""
    advance(sweep / "000-peak_lr-3e-4", 200)
    tell(sweep, event="state", trial=0, state="finished")
    tell(sweep, event="trial", trial=1)
    advance(sweep / "001-peak_lr-6e-4", 100)
    (sweep / "ledger.json").write_text('{"attempts": []}')


def begin(sweep: Path) -> None:
    tell(sweep, event="sweep")
    tell(sweep, event="trial", trial=0)
    advance(sweep / "000-peak_lr-3e-4", 100)


def test_a_sweep_comes_back_from_the_bucket_with_all_its_trials(runs, tmp_path):
    begin(runs / SWEEP)
    go_on(runs / SWEEP)
    (runs / SWEEP / ".sweep.lock").touch()
    bucket = Bucket.open(str(tmp_path / "bucket"))
    push(runs, bucket)
    assert push(runs, bucket) == 0
    elsewhere = tmp_path / "elsewhere"
    assert pull(Bucket.open(str(tmp_path / "bucket")), elsewhere, SWEEP)
    expected = tree(runs / SWEEP)
    del expected[".sweep.lock"]
    assert tree(elsewhere / SWEEP) == expected
    assert not pull(Bucket.open(str(tmp_path / "bucket")), elsewhere, SWEEP)


@pytest.mark.parametrize("files", range(1, 13))
def test_a_journal_in_the_bucket_never_promises_what_is_not_there(runs, tmp_path, files):
    place = str(tmp_path / "bucket")
    begin(runs / SWEEP)
    push(runs, Bucket.open(place))
    go_on(runs / SWEEP)
    bucket = LostConnection.open(place)
    bucket.left = files
    with pytest.raises(OSError, match="connection reset"):
        push(runs, bucket)
    there = tmp_path / "bucket" / SWEEP
    journal = (there / "journal.jsonl").read_text()
    if '"finished"' in journal:
        assert tree(there / "000-peak_lr-3e-4") == tree(runs / SWEEP / "000-peak_lr-3e-4")
    push(runs, Bucket.open(place))
    assert tree(there) == tree(runs / SWEEP)


def test_a_trial_that_ends_during_the_upload_is_not_called_finished(runs, tmp_path):
    begin(runs / SWEEP)

    class Slow(Bucket):
        """The real bucket; while it sends the first file, the sweep goes on."""

        def send(self, source, name):
            super().send(source, name)
            if not (runs / SWEEP / "001-peak_lr-6e-4").exists():
                go_on(runs / SWEEP)

    push(runs, Slow.open(str(tmp_path / "bucket")))
    there = tmp_path / "bucket" / SWEEP
    assert "finished" not in (there / "journal.jsonl").read_text()
    assert not (there / "001-peak_lr-6e-4").exists(), "the journal there says nothing of it"


def test_mlflows_database_stays_where_it_is_written(runs, tmp_path):
    advance(runs / RUN, 100)
    (runs / "mlflow.db").write_bytes(b"half a page")
    (runs / RUN / "mlflow.db").write_bytes(b"half a page")
    push(runs, Bucket.open(str(tmp_path / "bucket")))
    assert not list((tmp_path / "bucket").rglob("*.db"))


def test_a_run_that_is_here_is_not_overwritten(runs, tmp_path):
    advance(runs / RUN, 100)
    push(runs, Bucket.open(str(tmp_path / "bucket")))
    advance(runs / RUN, 200)
    before = tree(runs)
    assert not pull(Bucket.open(str(tmp_path / "bucket")), runs, RUN)
    assert tree(runs) == before


def test_an_empty_bucket_starts_a_new_run(tmp_path):
    assert not pull(Bucket.open(str(tmp_path / "bucket")), tmp_path / "runs", RUN)
    assert not (tmp_path / "runs" / RUN).exists()


def test_shards_are_copied_with_their_manifest_last(tmp_path, monkeypatch):
    import pyarrow.fs

    (tmp_path / "shards" / "train").mkdir(parents=True)
    for name in ("manifest.json", "train/00.bin", "zzz.bin"):
        (tmp_path / "shards" / name).write_bytes(name.encode())
    order, original = [], pyarrow.fs.copy_files

    def noting(source, target, **rest):
        order.append(source.rpartition("/")[2])
        return original(source, target, **rest)

    monkeypatch.setattr(pyarrow.fs, "copy_files", noting)
    assert copy(str(tmp_path / "shards"), str(tmp_path / "copy")) == 3
    assert order[-1] == "manifest.json"
    assert tree(tmp_path / "copy") == tree(tmp_path / "shards")


def test_shards_go_to_s3_and_back(tmp_path, s3):
    (tmp_path / "shards" / "train").mkdir(parents=True)
    for name in ("manifest.json", "train/00.bin"):
        (tmp_path / "shards" / name).write_bytes(name.encode() * 1000)
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for source, target in (
        (str(tmp_path / "shards"), "s3://mine/shards"),
        ("s3://mine/shards", str(tmp_path / "back")),
    ):
        words = [sys.executable, "-m", "gpt2dist.launch.machine.mirror", "copy", source, target]
        done = subprocess.run(words, env={**home, **s3}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "back") == tree(tmp_path / "shards")


def test_an_address_that_leads_nowhere_is_one_line(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gpt2dist.launch.machine.mirror",
            "pull",
            "nowhere://x",
            str(tmp_path),
            RUN,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("gpt2dist: bucket nowhere://x cannot be opened")
    assert done.stderr.count("\n") == 1
