"""What a run folder has lost is said, and what can be had back is put there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2dist.config.load import dump, resolve
from gpt2dist.config.schema import Config
from gpt2dist.track.mlflow_log import sync
from gpt2dist.track.mlflow_uri import default_uri
from gpt2dist.track.rows import read_rows, write_rows
from gpt2dist.train.run_folder import restore_rows, vouched

STEPS = range(5, 51, 5)


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """A run with rows to step 50 and a checkpoint of step 47."""
    folder = tmp_path / "runs" / "one"
    state = folder / "checkpoints" / "step-00000047" / "state.json"
    state.parent.mkdir(parents=True)
    record = {"step": 47, "seconds": 94.0, "usd": 0.94, "rows": 9}
    state.write_text(json.dumps({"format": 1, "files": {}, "state": record}))
    write_rows(
        folder / "metrics.jsonl",
        [
            {
                "step": step,
                "tokens": step * 8192,
                "loss": 1 / step,
                "mfu": None,
                "skipped": 0,
                "seconds": step * 2.0,
                "usd": step / 100,
                "time": 1.7e9 + step / 3,
            }
            | ({"val_loss": 2 / step} if step % 20 == 0 else {})
            for step in STEPS
        ],
    )
    return folder


@pytest.fixture
def config(tmp_path, run_dir) -> Config:
    base = resolve("debug", ["track.every_steps=5"])
    config = replace(base, paths=replace(base.paths, runs=str(tmp_path / "runs")))
    (run_dir / "config.yaml").write_text(dump(config))
    return config


def restored(run_dir, config) -> list[str]:
    said: list[str] = []
    known = vouched(run_dir)
    assert known is not None
    restore_rows(run_dir, config, known, said.append)
    return said


def test_a_whole_folder_is_left_alone_and_asks_nobody(run_dir, config, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no store at all")
    before = (run_dir / "metrics.jsonl").stat()
    assert restored(run_dir, config) == []
    assert (run_dir / "metrics.jsonl").stat() == before


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_lost_rows_come_back_as_mlflow_holds_them(run_dir, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = run_dir / "metrics.jsonl"
    whole = read_rows(path)
    sync(run_dir, config, default_uri(tmp_path / "runs"))
    of_mlflow = [
        {key: value for key, value in row.items() if value is not None}
        | {"time": pytest.approx(row["time"], abs=0.0005)}
        for row in whole
    ]
    for kept in ([], whole[:4], whole[:2] + whole[5:]):
        write_rows(path, kept)
        said = restored(run_dir, config)
        rows = read_rows(path)
        assert [row["step"] for row in rows] == [s for s in STEPS if s <= 47 or len(kept) == 7]
        for row, original, stored in zip(rows, whole, of_mlflow):
            assert row == (original if original in kept else stored)
            assert isinstance(row["tokens"], int)
        lost = 9 - len([row for row in kept if row["step"] <= 47])
        (line,) = said
        assert f"lacks {lost} of the 9 rows that checkpoint step-00000047 vouches for" in line
        assert f"; {lost} are back, as MLflow holds them" in line
        assert restored(run_dir, config) == []


def test_rows_that_nobody_holds_are_named(run_dir, config):
    path = run_dir / "metrics.jsonl"
    rows = read_rows(path)
    write_rows(path, rows[2:4] + rows[6:])
    first, second = restored(run_dir, config)
    assert "lacks 4 of the 9 rows" in first
    assert "0 are back, as MLflow holds them (there is no mlflow.json)" in first
    assert second == "WARNING: no rows from step 1 to 14 and from step 21 to 34: they are lost"
    path.unlink()
    assert "no rows from step 1 to 47: they are lost" in restored(run_dir, config)[1]


def test_a_checkpoint_of_an_early_version_misses_a_file_that_is_gone(run_dir, config):
    (state,) = run_dir.glob("checkpoints/*/state.json")
    record = json.loads(state.read_text())
    del record["state"]["rows"]
    state.write_text(json.dumps(record))
    assert restored(run_dir, config) == []
    (run_dir / "metrics.jsonl").unlink()
    assert "lacks 1 of the 1 rows" in restored(run_dir, config)[0]


def test_the_newest_checkpoint_that_is_whole_vouches(run_dir):
    newer = run_dir / "checkpoints" / "step-00000050"
    newer.mkdir()
    (newer / "state.json").write_text('{"format": 1, "files": {}, "state": {"step": 50')
    known = vouched(run_dir)
    assert known is not None
    assert (known.by, known.spent.usd) == ("checkpoint step-00000047", 0.94)
