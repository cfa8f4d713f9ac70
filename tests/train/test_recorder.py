"""What rank 0 writes while the storage takes nothing: all of it later, in order, and whole."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.disk import AppendedFile
from gpt2dist.errors import StorageRefused
from gpt2dist.plan.placement import Machine, place
from gpt2dist.run_files import read_outcome, request_stop
from gpt2dist.track.ledger import Account, Attempt
from gpt2dist.track.rows import read_rows
from gpt2dist.train.core.loop import FAILED, INTERRUPTED, OUT_OF_BUDGET, RUNNING, Ending, TrainState
from gpt2dist.train.job import Job
from gpt2dist.train.recorder import MOST_WAITING, RunRecorder, StoragePatience
from tests.train.storage import files_end_at

NO_SPACE = 0  # bytes that a file may grow to


@pytest.fixture(autouse=True)
def again_at_once(monkeypatch):
    monkeypatch.setattr("gpt2dist.train.recorder.AGAIN_SECONDS", 0.0)


CPU = Machine(0, "", None, False, cpu_cores=2, cpu_has_bf16=False)


def recorder(run_dir: Path, *words: str) -> RunRecorder:
    run_dir.mkdir(exist_ok=True)
    config = resolve("debug", [*words, "cluster.device=cpu", "track.mlflow=false"])
    attempt = Attempt.starting("a", time.time(), (3600.0, "config"))  # a second costs a dollar
    job = Job(config, place(config, CPU, single_process=True), str(run_dir), "", attempt, False)
    return RunRecorder(job, 1, None)


def state(step: int) -> TrainState:
    return TrainState(step, step, step, "x", 1)


def row(step: int) -> dict:
    return {"step": step, "loss": 1 / step, "tokens_per_s": 1.0}


def steps(run_dir: Path) -> list[int]:
    return [row["step"] for row in read_rows(run_dir / "metrics.jsonl")]


def test_all_that_waits_is_written_in_order_and_whole_once_the_storage_is_back(tmp_path):
    writer = recorder(tmp_path)
    writer.row(row(1))
    ends_in_row_3 = (tmp_path / "metrics.jsonl").stat().st_size * 5 // 2
    with files_end_at(ends_in_row_3):
        for step in range(2, 40):
            assert writer.stop_reason(state(step), 0.0) == (RUNNING, "")
            writer.row(row(step))
            writer.note(f"note {step}")
            writer.sample(step, "a\nb" * step)
        with pytest.raises(StorageRefused, match=r"cannot write .*metrics\.jsonl: File too large"):
            writer.vouch(state(40))
        assert steps(tmp_path) == [1, 2], "the rest of the limit holds half a row"
        seen = Account.read(tmp_path / "ledger.json").seconds
    assert writer.vouch(state(40)).seconds > seen
    assert steps(tmp_path) == list(range(1, 40))
    events = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    notes = [event["note"] for event in events if "note" in event]
    assert [note for note in notes if note.startswith("note")] == [
        f"note {step}" for step in range(2, 40)
    ]
    assert sum("training goes on and tries again for 10 minutes" in note for note in notes) == 1
    samples = "".join(f"--- step {step}\n" + "a\nb" * step + "\n\n" for step in range(2, 40))
    assert (tmp_path / "samples.txt").read_text() == samples
    assert Account.read(tmp_path / "ledger.json").seconds > seen


def test_what_failed_first_is_not_overtaken_while_it_waits(tmp_path):
    file = AppendedFile(tmp_path / "lines")
    with files_end_at(10):
        file.append("12345\n")
        with pytest.raises(StorageRefused):
            file.append("67890abcdef\n")
        assert (tmp_path / "lines").read_text() == "12345\n6789", "what fitted is there"
    file.append("x\n")
    assert (tmp_path / "lines").read_text() == "12345\nx\n", "and is cut off"


def test_a_line_that_a_killed_process_cut_short_is_cut_off(tmp_path):
    (tmp_path / "lines").write_text("whole\nha")
    AppendedFile(tmp_path / "lines").append("next\n")
    assert (tmp_path / "lines").read_text() == "whole\nnext\n"


def test_a_budget_and_a_signal_end_a_run_also_while_it_waits(tmp_path):
    writer = recorder(tmp_path / "usd", "budget.usd=0.001")
    with files_end_at(NO_SPACE):
        writer.row(row(1))
        code, reason = writer.stop_reason(state(1), 1.0)
        assert (code, reason.split(":")[0]) == (OUT_OF_BUDGET, "budget.usd=0.00")
        writer.saved(state(1), "no room")
        ending = writer.unsaved(Ending("finished", "1 steps done", state(1)))
        assert ending.kind == "failed"
        assert ending.reason.endswith("; steps 1 to 1 are not saved: no room")
    writer = recorder(tmp_path / "stop")
    request_stop(tmp_path / "stop", "SIGTERM")
    with files_end_at(NO_SPACE):
        writer.row(row(1))
        assert writer.stop_reason(state(1), 1.0) == (INTERRUPTED, "SIGTERM")


def test_a_run_that_is_done_waits_for_its_last_checkpoint(tmp_path):
    writer = recorder(tmp_path)
    writer.saved(state(7), None)
    writer.saved(state(9), "no room")
    done = Ending("finished", "9 steps done", state(9))
    assert writer.unsaved(done) is None
    ending = writer.unsaved(Ending("interrupted", "SIGTERM", state(9)))
    assert ending.kind == "interrupted"
    assert ending.reason == "SIGTERM; steps 8 to 9 are not saved: no room"


def test_the_end_is_said_where_it_cannot_be_written(tmp_path):
    writer = recorder(tmp_path)
    with files_end_at(NO_SPACE), pytest.raises(StorageRefused, match=r"^too long$"):
        writer.finish(Ending("failed", "too long", state(1)))
    assert read_outcome(tmp_path) is None
    writer.finish(Ending("failed", "too long", state(1)))
    assert read_outcome(tmp_path) == {
        "kind": "failed",
        "reason": "too long",
        "step": 0,
        "exit_code": 1,
    }


def test_without_patience_the_first_refusal_ends_the_run(tmp_path, capsys):
    writer = recorder(tmp_path, "checkpoint.storage_patience_minutes=0")
    with files_end_at(NO_SPACE):
        writer.row(row(1))
        code, reason = writer.stop_reason(state(1), 0.0)
    assert code == FAILED
    assert "File too large" in reason
    assert capsys.readouterr().err == "", "the reason is said once, at the end"


class Refusing:
    def __init__(self) -> None:
        self.now, self.done, self.works = 0.0, [], False

    def write(self, what: object) -> None:
        if not self.works:
            raise StorageRefused("no")
        self.done.append(what)


def test_patience_lasts_its_minutes_from_the_first_refusal_and_begins_anew_after_each_success():
    disk, told = Refusing(), []
    patience = StoragePatience(2.0, told.append, clock=lambda: disk.now)
    for disk.now in (0.0, 60.0, 119.0):
        assert not patience.attempt("x", lambda: disk.write("x"))
        assert patience.over() is None
    disk.works, disk.now = True, 121.0
    assert patience.over()
    assert patience.attempt("x", lambda: disk.write("x"))
    assert patience.over() is None
    disk.works, disk.now = False, 122.0
    assert not patience.attempt("x", lambda: disk.write("x"))
    assert patience.over() is None
    disk.now = 242.0
    assert patience.over() == (
        "after 2 minutes (checkpoint.storage_patience_minutes): no; run the same command again "
        "once that is mended"
    )
    assert len(told) == 2


def test_one_thing_that_is_refused_is_not_forgotten_for_another_that_is_not():
    disk = Refusing()
    patience = StoragePatience(1.0, print, clock=lambda: disk.now)
    patience.learn("the checkpoint", "too large")
    disk.works, disk.now = True, 60.0
    assert patience.keep(lambda: disk.write("row"))
    assert "too large" in str(patience.over())


def test_what_waits_is_bounded():
    disk = Refusing()
    patience = StoragePatience(1440.0, print, clock=lambda: disk.now)
    for number in range(MOST_WAITING):
        patience.keep(lambda number=number: disk.write(number))
        assert patience.over() is None
    patience.keep(lambda: disk.write(MOST_WAITING))
    assert "20,001 rows and notes wait to be written: no" in str(patience.over())
    disk.works = True
    patience.flush()
    assert disk.done == list(range(MOST_WAITING + 1))


@pytest.mark.parametrize("what", ["renamed", "deleted", "deleted and made again"])
def test_a_folder_that_is_gone_ends_the_run_at_its_next_step_and_is_not_made_again(tmp_path, what):
    run_dir, moved = tmp_path / "run", tmp_path / "moved"
    writer = recorder(run_dir)
    run_dir.rename(moved)
    if what != "renamed":
        shutil.rmtree(moved)
    if what.endswith("again"):
        run_dir.mkdir()
    writer.row(row(1))
    code, reason = writer.stop_reason(state(1), 0.0)
    assert code == FAILED
    became = f"renamed to {moved}" if what == "renamed" else "deleted"
    assert reason.startswith(f"the run folder {run_dir} was {became} in mid-run")
    with pytest.raises(StorageRefused, match="in mid-run"):
        writer.vouch(state(1))
    with suppress(StorageRefused):
        writer.finish(Ending("failed", reason, state(1)))
    assert run_dir.exists() == what.endswith("again")
