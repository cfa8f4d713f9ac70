"""Sources: which units they are cut into, and which documents the units yield."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.corpus import documents, plan_units
from gpt2dist.errors import BadInput

TEXTS = [f"Document {i}: " + 'words, "quotes"\nand lines — é ' * (i % 7) for i in range(40)]


def texts_of(source, text_field="text", max_documents=None):
    data = DataConfig(source=str(source), text_field=text_field, max_documents=max_documents)
    return [text for unit in plan_units(data) for text in documents(unit, text_field)]


def jsonl(texts, field="text"):
    return "".join(json.dumps({"id": i, field: text}) + "\n" for i, text in enumerate(texts))


def as_csv(texts):
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["id", "text"])
    rows.writerows(enumerate(texts))
    return out.getvalue()


def parquet(path, texts, row_group_size=7):
    table = pa.table({"id": list(range(len(texts))), "text": texts})
    pq.write_table(table, path, row_group_size=row_group_size)


COMPRESS = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".zst": lambda content: zstandard.compress(content),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize(
    ("kind", "content"),
    [("jsonl", jsonl(TEXTS)), ("ndjson", jsonl(TEXTS)), ("csv", as_csv(TEXTS))],
)
def test_a_table_of_texts_reads_back_whatever_its_format(tmp_path, kind, content, suffix):
    path = tmp_path / f"corpus.{kind}{suffix}"
    path.write_bytes(COMPRESS[suffix](content.encode()))
    assert texts_of(path) == TEXTS


def test_parquet_reads_back(tmp_path):
    parquet(tmp_path / "corpus.parquet", TEXTS)
    assert texts_of(tmp_path / "corpus.parquet") == TEXTS


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_text_file_is_one_document_and_files_are_taken_by_name(tmp_path, suffix):
    for name, text in (("b.txt", "second"), ("a.md", "first"), ("sub/c.txt", "third\r\nline")):
        path = tmp_path / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(COMPRESS[suffix](text.encode()))
    (tmp_path / "ignored.bin").write_bytes(b"\x00")
    (tmp_path / ".hidden.txt").write_text("hidden")
    assert texts_of(tmp_path) == ["first", "second", "third\nline"]


def test_the_separator_of_gpt2_corpora_splits_a_text_file(tmp_path):
    path = tmp_path / "stories.txt"
    stories = ["One.\n", "\nTwo " + "long " * 400_000, "Three"]
    path.write_text("<|endoftext|>".join([*stories, "  \n"]))
    assert texts_of(path) == stories


def test_a_large_line_file_is_cut_at_every_possible_byte_without_loss(tmp_path):
    path = tmp_path / "large.jsonl"
    texts = [f"{i} " + "x" * (i * 7919 % 5000) for i in range(2000)]
    path.write_text(jsonl(texts))
    units = plan_units(DataConfig(source=str(path)))
    assert len(units) >= 8
    assert texts_of(path) == texts


def test_units_begin_at_lines_wherever_the_cut_falls(tmp_path):
    from gpt2dist.data.prepare.corpus import read_jsonl
    from gpt2dist.data.prepare.files import Unit

    path = tmp_path / "small.jsonl"
    path.write_text(jsonl(["a", "bb", "", "cc"]) + '\n{"text": "no newline at the end"}')
    size = path.stat().st_size
    expected = list(read_jsonl(Unit("jsonl", (str(path),), 0, size), "text"))
    assert expected == ["a", "bb", "", "cc", "no newline at the end"]
    for cut in range(1, size):
        halves = [Unit("jsonl", (str(path),), a, b) for a, b in ((0, cut), (cut, size))]
        assert [t for unit in halves for t in read_jsonl(unit, "text")] == expected


def test_a_large_parquet_file_is_cut_at_row_groups(tmp_path):
    texts = [f"{i} " + "y" * 3000 for i in range(1000)]
    parquet(tmp_path / "large.parquet", texts, row_group_size=50)
    units = plan_units(DataConfig(source=str(tmp_path / "large.parquet")))
    assert len(units) >= 8
    assert [(u.start, u.stop) for u in units][-1][1] == 20
    assert texts_of(tmp_path / "large.parquet") == texts


def test_globs_and_file_addresses(tmp_path):
    (tmp_path / "a1.txt").write_text("a1")
    (tmp_path / "a2.txt.gz").write_bytes(gzip.compress(b"a2"))
    (tmp_path / "b.jsonl").write_text(jsonl(["b"]) * 3)
    parquet(tmp_path / "c.parquet", ["c"])
    assert texts_of(f"{tmp_path}/a*") == ["a1", "a2"]
    everything = ["a1", "a2", "b", "b", "b", "c"]
    assert texts_of(f"file://{tmp_path}") == everything
    assert texts_of(f"file://{tmp_path}/*.jsonl") == ["b"] * 3
    assert texts_of(f"file://{tmp_path}/a2.txt.gz") == ["a2"]


def test_records_without_text_are_no_documents(tmp_path):
    path = tmp_path / "gaps.jsonl"
    path.write_text('{"text": null}\n\n{"text": "  "}\n{"text": "one"}\n{"text": ""}\n')
    assert texts_of(path) == ["one"]


def test_max_documents_takes_the_first_in_order(tmp_path):
    (tmp_path / "a.jsonl").write_text(jsonl(TEXTS[:15]))
    parquet(tmp_path / "b.parquet", TEXTS[15:])
    for most in (1, 14, 15, 16, 30, 40, 99):
        assert texts_of(tmp_path, max_documents=most) == TEXTS[:most]


def test_the_standard_library_is_many_modules_without_tests():
    units = plan_units(DataConfig())
    places = [place for unit in units for place in unit.places]
    assert len(units) >= 8
    assert any(place.endswith("/json/decoder.py") for place in places)
    assert not any("/test/" in place or "site-packages" in place for place in places)
    texts = [text for unit in units for text in documents(unit, "text")]
    assert sum(map(len, texts)) > 8_000_000


def test_the_plan_is_the_same_each_time():
    assert plan_units(DataConfig()) == plan_units(DataConfig())


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", "x", r"a\.pdf is of unknown kind; use \.txt"),
        (
            "a.jsonl",
            '{"body": "x"}\n',
            r"a\.jsonl:1 has no column data\.text_field=text; it has body",
        ),
        ("a.jsonl", '{"text": "x"}\n\n{"text": \n', r"a\.jsonl:3 is not a JSON object"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1 is not a JSON object"),
        ("a.jsonl", b'{"text": "\xff"}\n', r"a\.jsonl:1 is not a JSON object .*utf-8"),
        ("a.jsonl", '{"text": 5}\n', r"data\.text_field=text holds int, not text"),
        ("a.csv", "id,body\n1,x\n", r"a\.csv has no column data\.text_field=text; it has id, body"),
        ("a.txt", b"caf\xe9", r"a\.txt is not UTF-8 text \(byte 0xe9\)"),
        ("a.txt.gz", b"not gzip", r"a\.txt\.gz is damaged"),
        ("a.txt.gz", gzip.compress(b"text" * 99)[:-9], r"a\.txt\.gz is damaged"),
        ("a.jsonl.zst", b"not zstandard", r"a\.jsonl\.zst is damaged"),
        ("a.parquet", b"not parquet", r"a\.parquet is not a parquet file"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(BadInput, match=message) as caught:
        texts_of(path)
    assert "\n" not in str(caught.value)


def test_an_error_in_the_middle_of_a_large_file_names_its_byte(tmp_path):
    """The number of its line would take reading all that is before it."""
    path = tmp_path / "large.jsonl"
    lines = [json.dumps({"text": "z" * 2000})] * 1500
    lines[1234] = "{broken"
    path.write_text("\n".join(lines))
    assert len(plan_units(DataConfig(source=str(path)))) >= 8
    before = path.read_text().index("{broken")
    with pytest.raises(BadInput, match=rf"large\.jsonl at byte {before:,} is not a JSON object"):
        texts_of(path)


def test_a_parquet_without_the_column_is_refused_when_planned(tmp_path):
    pq.write_table(pa.table({"id": [1], "content": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="it has id, content"):
        plan_units(DataConfig(source=str(tmp_path)))


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.txt", "file:///nowhere/at/all"])
def test_a_source_that_matches_nothing_is_refused(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="no file there"):
        plan_units(DataConfig(source=source))


def test_an_unknown_cloud_scheme_is_refused():
    with pytest.raises(BadInput, match=r"ftp://host/file.txt cannot be opened"):
        plan_units(DataConfig(source="ftp://host/file.txt"))
