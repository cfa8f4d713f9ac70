"""Rows as they arrive, whoever writes them and however they are cut."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from gpt2dist.run_files import (
    Tail,
    checkpoint_folder,
    checkpoint_folders,
    read_outcome,
    request_stop,
    step_of,
    write_error,
    write_outcome,
)
from tests.train.storage import closed


def test_the_tail_gives_every_line_once_however_the_writes_are_cut(tmp_path):
    path = tmp_path / "rows.jsonl"
    content = "".join(json.dumps({"step": step, "text": "ü" * step}) + "\n" for step in range(50))
    data, cuts = content.encode(), random.Random(0)
    tail, found, at = Tail(path), [], 0
    assert list(tail.lines()) == []
    with path.open("ab", buffering=0) as file:
        while at < len(data):
            step = cuts.randrange(1, 40)
            file.write(data[at : at + step])
            at += step
            found += [row["step"] for row in tail.lines()]
    assert found == list(range(50))


def test_a_replaced_file_is_read_from_its_beginning(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    tail, late = Tail(path), Tail(path, from_end=True)
    assert [row["step"] for row in tail.lines()] == [1, 2]
    assert list(late.lines()) == []
    other = tmp_path / "other"
    other.write_text('{"step": 1}\nno row\n{"step": 9}\n{"st')
    other.replace(path)
    assert [row["step"] for row in tail.lines()] == [1, 9]
    assert [row["step"] for row in late.lines()] == [1, 9]


def test_checkpoints_are_found_newest_first_and_by_their_step(tmp_path):
    for step in (5, 100, 20):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step-00000300.1-ab.partial").mkdir()
    assert [step_of(folder) for folder in checkpoint_folders(tmp_path)] == [100, 20, 5]


def test_the_first_outcome_stays(tmp_path):
    assert read_outcome(tmp_path) is None
    write_outcome(tmp_path, kind="failed", reason="the first")
    write_outcome(tmp_path, kind="failed", reason="a later one")
    assert read_outcome(tmp_path) == {"kind": "failed", "reason": "the first"}


def test_a_trace_that_cannot_be_written_does_not_hide_what_broke(tmp_path):
    with closed(tmp_path):
        write_error(tmp_path, ValueError("the reason"))
    assert list(tmp_path.iterdir()) == []
    write_error(tmp_path, ValueError("the reason"))
    assert "ValueError: the reason" in (tmp_path / "error.log").read_text()


def test_a_tail_waits_for_a_file_that_cannot_be_read_now(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\n')
    tail = Tail(path)
    assert [row["step"] for row in tail.lines()] == [1]
    path.rename(tmp_path / "aside")
    path.mkdir()  # opens, as a server that is away does, with an error other than "no such file"
    assert list(tail.lines()) == []
    path.rmdir()
    (tmp_path / "aside").rename(path)
    with path.open("a") as file:
        file.write('{"step": 2}\n')
    assert [row["step"] for row in tail.lines()] == [2]


def test_all_who_ask_a_run_to_stop_at_once_succeed(tmp_path):
    """A sweeper and a signal's handler, where whoever lost the race would raise."""
    together = Barrier(8, timeout=2)

    def ask(name: str) -> None:
        for _ in range(20):
            together.wait()
            request_stop(tmp_path, name)

    names = [f"SIG{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, names)) == [None] * 8
    assert (tmp_path / ".stop").read_text() in names
    assert [path.name for path in tmp_path.iterdir()] == [".stop"]
