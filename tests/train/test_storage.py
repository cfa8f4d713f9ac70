"""Whole runs on storage that fills up, takes no files, or is moved away in mid-run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from gpt2dist.cli.main import main
from tests.train.command import (
    TINY,
    Command,
    final_tensors,
    last_step,
    learned,
    summary_of,
    wait_until,
)
from tests.train.storage import closed, full, small_disk

GOES_ON = "training goes on and tries again for"


@pytest.fixture(scope="module")
def words(shards) -> list[str]:
    return ["train", "debug", "--local", *TINY, f"data.source={shards}"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, words) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    Command(runs, *words, f"paths.runs={runs}", "--name", "run").ends_with(0)
    return runs / "run"


def assert_learned_the_same(run_dir: Path, undisturbed: Path) -> None:
    assert learned(run_dir) == learned(undisturbed)
    assert final_tensors(run_dir) == final_tensors(undisturbed)


def attempts(run_dir: Path) -> list[dict]:
    return json.loads((run_dir / "ledger.json").read_text())["attempts"]


def is_told(command: Command) -> bool:
    """Through the events, as long as they can be written, else by the process itself."""
    return GOES_ON in command.stdout + command.stderr


def has_reached(step: int, command: Command, run_dir: Path) -> bool:
    """Once the rows of the start before, which are rolled back, are gone."""
    return "continuing from" in command.stdout and last_step(run_dir) >= step


def works_on(command: Command) -> None:
    """Waits until the process has computed for half a second more."""
    used = psutil.Process(command.pid).cpu_times().user
    wait_until(lambda: psutil.Process(command.pid).cpu_times().user > used + 0.5, command.is_alive)


@pytest.mark.slow
def test_a_disk_that_is_full_for_seconds_delays_nothing_and_for_long_ends_the_run(
    tmp_path, words, undisturbed
):
    with small_disk(tmp_path / "disk", 8) as disk:
        run_dir = disk / "run"
        again = [*words, f"paths.runs={disk}", "--name", "run"]

        impatient = Command(tmp_path, *again, "checkpoint.storage_patience_minutes=0.01")
        wait_until(lambda: last_step(run_dir) >= 25, impatient.is_alive)
        with full(disk):
            impatient.ends_with(1)
        assert is_told(impatient)
        last = impatient.stderr.splitlines()[-1]
        assert "after 0.01 minutes (checkpoint.storage_patience_minutes): " in last
        assert "No space left on device" in last
        assert "run the same command again once that is mended; steps 21 to " in last
        assert "Traceback" not in impatient.stderr

        signalled = Command(tmp_path, *again)
        wait_until(lambda: has_reached(45, signalled, run_dir), signalled.is_alive)
        with full(disk):
            wait_until(lambda: is_told(signalled), signalled.is_alive)
            os.kill(signalled.pid, signal.SIGTERM)
            signalled.ends_with(143)
        assert "Traceback" not in signalled.stderr
        (line,) = [line for line in signalled.stdout.splitlines() if "not saved" in line]
        assert line.startswith("interrupted: SIGTERM; steps ")
        assert "No space left on device" in line
        before = attempts(run_dir)

        patient = Command(tmp_path, *again)
        wait_until(lambda: has_reached(65, patient, run_dir), patient.is_alive)
        with full(disk):
            wait_until(lambda: is_told(patient), patient.is_alive)
            paid = attempts(run_dir)
            works_on(patient)
            assert attempts(run_dir) == paid
        patient.ends_with(0)
        assert_learned_the_same(run_dir, undisturbed)
        events = (run_dir / "events.jsonl").read_text().splitlines()
        notes = [event["note"] for event in map(json.loads, events) if "note" in event]
        assert any(GOES_ON in note for note in notes)
        assert attempts(run_dir)[:2] == before
        assert attempts(run_dir)[2]["last_seen_at"] > paid[2]["last_seen_at"]
        samples = (run_dir / "samples.txt").read_text()
        assert samples.endswith("\n\n")
        assert "--- step 120\nthe " in samples
        assert summary_of(run_dir)["ended"] == "finished"
        assert not list(run_dir.rglob(".*.partial"))


def test_a_folder_that_takes_no_files_is_left_on_a_signal(tmp_path, words):
    run_dir = tmp_path / "run"
    command = Command(tmp_path, *words, f"paths.runs={tmp_path}", "--name", "run")
    wait_until(lambda: last_step(run_dir) >= 25, command.is_alive)
    with closed(run_dir), closed(run_dir / "checkpoints"):
        os.kill(command.pid, signal.SIGTERM)
        command.ends_with(143)
    assert "Traceback" not in command.stderr
    assert "interrupted: SIGTERM; steps 21 to " in command.stdout
    assert "not saved" in command.stdout


def test_a_run_folder_renamed_in_mid_run_ends_the_run_and_goes_on_under_its_name(
    tmp_path, words, undisturbed
):
    run_dir, moved = tmp_path / "run", tmp_path / "moved"
    again = [*words, f"paths.runs={tmp_path}", "--name", "run"]
    command = Command(tmp_path, *again)
    wait_until(lambda: last_step(run_dir) >= 25, command.is_alive)
    run_dir.rename(moved)
    command.ends_with(1)
    assert command.stderr.count("\n") == 1, command.stderr
    assert f"the run folder {run_dir} was renamed to {moved} in mid-run" in command.stderr
    assert "rename it back and run the same command again" in command.stderr
    assert last_step(moved) < 120
    assert not run_dir.exists()
    moved.rename(run_dir)
    Command(tmp_path, *again).ends_with(0)
    assert_learned_the_same(run_dir, undisturbed)


def test_a_run_is_not_begun_in_a_folder_that_takes_no_files(tmp_path, words, capsys):
    (tmp_path / "run").mkdir()
    with closed(tmp_path / "run"):
        assert main([*words, f"paths.runs={tmp_path}", "--name", "run"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "cannot write" in said
    assert list((tmp_path / "run").iterdir()) == []
