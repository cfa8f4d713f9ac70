from __future__ import annotations

import math

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.track.rows import RowWriter, read_rows


def steps(path):
    return [row["step"] for row in read_rows(path)]


def test_rows_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    rows = [{"step": 1, "loss": 0.1 + 0.2, "lr": 1e-17, "mfu": None}, {"step": 2, "loss": math.pi}]
    writer = RowWriter(path, None)
    for row in rows:
        writer.append(row)
    assert read_rows(path) == rows, "rows are readable while the run goes on"


def test_numbers_json_does_not_know_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = RowWriter(path, None)
    writer.append({"step": 1, "loss": math.nan, "grad_norm": math.inf, "deep": [-math.inf]})
    writer.append({"step": 2, "loss": 1.0})
    assert read_rows(path)[0] == {"step": 1, "loss": None, "grad_norm": None, "deep": [None]}
    assert steps(path) == [1, 2]


def test_scalars_of_torch_are_numbers(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "metrics.jsonl"
    writer = RowWriter(path, None)
    writer.append({"step": 1, "loss": torch.tensor(0.5), "bad": torch.tensor(math.nan)})
    assert read_rows(path) == [{"step": 1, "loss": 0.5, "bad": None}]


def test_resuming_neither_loses_nor_doubles_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = RowWriter(path, None)
    for step in (10, 20, 30, 40):
        writer.append({"step": step})
    writer = RowWriter(path, resume_step=25)
    assert steps(path) == [10, 20]
    writer.append({"step": 30})
    assert steps(path) == [10, 20, 30]


def test_a_run_that_begins_again_keeps_no_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = RowWriter(path, None)
    writer.append({"step": 10})
    RowWriter(path, None)
    assert read_rows(path) == []


@pytest.mark.parametrize("torn", [b'{"step": 30, "lo', b"\0\0\0\0", b'{"st\xc3', b'{"step": 30\n'])
def test_a_line_cut_short_by_a_crash_is_left_out_and_written_over(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 10}\n{"step": 20}\n' + torn)
    assert steps(path) == [10, 20]
    writer = RowWriter(path, resume_step=20)
    writer.append({"step": 30})
    assert steps(path) == [10, 20, 30]


def test_a_whole_last_row_without_its_line_end_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 10}\n{"step": 20}')
    writer = RowWriter(path, resume_step=20)
    writer.append({"step": 30})
    assert steps(path) == [10, 20, 30]


@pytest.mark.parametrize("damage", ["oops", "[1]", '{"loss": 1.0}', '{"step": "2"}'])
def test_damage_in_the_middle_is_named_by_file_and_line(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 10}}\n{damage}\n{{"step": 30}}\n')
    with pytest.raises(BadInput, match=r"metrics\.jsonl:2: not a row"):
        read_rows(path)


def test_a_folder_without_rows_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"no rows at .*metrics\.jsonl"):
        read_rows(tmp_path / "metrics.jsonl")
