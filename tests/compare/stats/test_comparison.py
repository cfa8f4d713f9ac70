"""From run folders to what the command says and writes."""

from __future__ import annotations

import csv
import io
import json
import math
import random

import pytest

from gpt2dist.compare.command import CompareRequest, compare, read_runs
from gpt2dist.compare.read.run_folders import _read_rows, read_run
from gpt2dist.compare.stats.comparison import BITS, NATS, compare_runs
from gpt2dist.config.load import identity, load_dumped
from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.pipeline import dataset_dir, prepare
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.track.rows import RowWriter, read_rows


def comparison(runs_dir, **options):
    force = options.pop("force", False)
    loss = options.pop("loss", None)
    runs = read_runs(CompareRequest(runs_dir=str(runs_dir), **options))
    return compare_runs(runs, target_loss=loss, force=force)


def said(runs_dir, **options):
    lines: list[str] = []
    assert compare(CompareRequest(runs_dir=str(runs_dir), **options), lines.append) == 0
    return "\n".join(lines)


def final(loss):
    return ((1, 5.0), (8, loss))


def test_a_run_is_read_as_its_files_say(make):
    folder = make("one", usd_per_hour=7.2, seconds=1000.0, workers=4)
    run = read_run(folder)
    config = load_dumped(folder / "config.yaml")
    assert run.identity == identity(config)
    assert (run.final_val_loss, run.best_val_loss) == (3.0, 3.0)
    assert run.usd == pytest.approx(2.0)
    assert run.gpu_hours == pytest.approx(4 * 1000 / 3600)
    assert run.tokens == 16 * config.train.batch_tokens
    assert [(point.step, point.val_loss) for point in run.evaluations] == [(1, 5), (4, 4), (16, 3)]
    assert run.evaluations[1].usd == pytest.approx(0.5)


def test_one_identity_on_other_hardware_is_one_group_and_one_seed(make, runs_dir):
    make("on-a100", curve=final(3.0), usd_per_hour=14.32, workers=8)
    make(
        "on-3090s",
        "zero.stage=2",
        "cluster.micro_batch=1",
        curve=final(3.02),
        usd_per_hour=0.8,
        device="NVIDIA GeForce RTX 3090",
        workers=4,
    )
    found = comparison(runs_dir)
    assert len(found.groups) == 1
    assert len({run.identity for run in found.runs}) == 1
    assert found.groups[0].finals == (pytest.approx(3.01),)
    assert found.groups[0].interval is None, "one seed, however many machines"
    assert found.groups[0].hardware == ["4 x NVIDIA GeForce RTX 3090", "8 x NVIDIA A100-SXM4-80GB"]


def test_seeds_are_one_group_with_mean_interval_and_verdict(make, runs_dir):
    for seed, loss in enumerate((3.00, 3.01, 3.02)):
        make(f"low-{seed}", f"train.seed={seed}", curve=final(loss))
        make(f"high-{seed}", f"train.seed={seed}", "optim.peak_lr=3e-3", curve=final(loss + 0.1))
    found = comparison(runs_dir, loss=3.06)
    low, high = found.groups
    assert low.mean == pytest.approx(3.01)
    reach = 4.3027 * 0.01 / math.sqrt(3)  # t of two degrees of freedom at 97.5 %
    assert (low.interval.low, low.interval.high) == pytest.approx(
        (3.01 - reach, 3.01 + reach), 1e-5
    )
    assert high.label == "peak_lr=0.003"
    assert "0.1000 nats per token below peak_lr=0.003: significant" in found.findings[0]
    assert "is below 3.06" in found.findings[1]


def test_one_seed_each_is_not_called_significant(make, runs_dir):
    make("a", curve=final(3.0))
    make("b", "optim.peak_lr=3e-3", curve=final(3.5))
    assert "cannot tell that from chance" in comparison(runs_dir).findings[0]


def test_only_finished_runs_count_for_means(make, runs_dir):
    make("done", "train.seed=0", curve=final(3.0))
    make("stopped", "train.seed=1", curve=final(4.0), ended="budget")
    make("killed", "train.seed=2", curve=final(5.0), summary=False)
    found = comparison(runs_dir)
    assert found.groups[0].finals == (3.0,)
    assert {run.name: run.ended for run in found.runs}["killed"] == "unfinished"
    assert any("not finished" in note for note in found.notes)


def test_a_run_without_a_price_is_unknown_and_not_free(make, runs_dir):
    make("free", curve=final(3.0), usd_per_hour=None)
    make("paid", "train.seed=1", curve=final(3.5), usd_per_hour=2.0)
    found = comparison(runs_dir, loss=4.0)
    assert [found.runs[index].name for index in found.frontier["usd"]] == ["paid"]
    assert "free" in [found.runs[index].name for index in found.frontier["hours"]]
    text = said(runs_dir, loss=4.0)
    row = next(line for line in text.splitlines() if line.startswith("free"))
    assert row.split().count("unknown") == 2, "what it cost, and what the loss cost"
    assert "$0" not in row
    tree = json.loads(said(runs_dir, json=True, loss=4.0))
    assert tree["runs"][0]["run"] == "free"
    assert tree["runs"][0]["usd"] is None
    assert tree["runs"][0]["usd_to_loss_4"] is None


def test_half_a_run_without_a_price_has_no_price(make, runs_dir):
    folder = make("moved")
    account = json.loads((folder / "ledger.json").read_text())
    account["attempts"].append(
        account["attempts"][0] | {"attempt_id": "2", "price_source": "own machine"}
    )
    (folder / "ledger.json").write_text(json.dumps(account))
    assert read_run(folder).usd is None


def test_a_run_that_goes_on_after_its_summary_is_read_from_its_rows(make):
    folder = make("resumed", curve=((1, 5.0), (4, 4.0)), ended="budget")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "tokens": 65536, "val_loss": 3.5, "seconds": 2000, "usd": 2}\n')
    run = read_run(folder)
    assert (run.ended, run.final_val_loss, run.tokens) == ("unfinished", 3.5, 65536)


def test_csv_and_json_say_the_same_and_leave_unknowns_empty(make, runs_dir, tmp_path):
    make("gpu", predicted={"usd": 0.9, "hours": 0.25})
    make("cpu", "train.seed=1", device="AMD EPYC", gpu=False, usd_per_hour=None)
    tree = json.loads(said(runs_dir, json=True, csv=str(tmp_path / "out.csv"), loss=3.5))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["run"] for row in rows] == [run["run"] for run in tree["runs"]]
    for row, run in zip(rows, tree["runs"]):
        assert row == {key: "" if value is None else str(value) for key, value in run.items()}
    by_name = {run["run"]: run for run in tree["runs"]}
    assert by_name["gpu"]["predicted_usd"] == 0.9
    assert (by_name["cpu"]["gpus"], by_name["cpu"]["gpu_hours"]) == (0, None)


def test_predictions_stand_beside_what_came_of_them(make, runs_dir):
    make("one", predicted={"usd": 0.5, "hours": 1000 / 3600, "peak_gib": 10.0})
    row = next(line for line in said(runs_dir).splitlines() if "->" in line and "one" in line)
    assert "$0.50 -> $1.00 (+100%)" in row
    assert "16m40s -> 16m40s (+0%)" in row
    assert "10.0 GiB -> 12.5 GiB (+25%)" in row


def test_trials_of_a_sweep_are_found_and_runs_set_aside_are_not(make, runs_dir):
    make("sweeps/lr/trial-0", "optim.peak_lr=1e-3")
    make("sweeps/lr/trial-1", "optim.peak_lr=2e-3")
    make("alone")
    make("alone.old-20260101-000000", "train.seed=9")
    names = lambda **options: {run.name for run in comparison(runs_dir, **options).runs}  # noqa: E731
    assert names(sweep="lr") == {"trial-0", "trial-1"}
    assert names() == {"alone"}
    assert names(runs=["alone", str(runs_dir / "sweeps/lr/trial-1")]) == {"alone", "trial-1"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"runs": ["nothing"]}, "no run at 'nothing'; runs in .*: one"),
        ({"runs": ["."]}, "is a folder but no run's"),
        ({"sweep": "none"}, "no sweep 'none'"),
        ({"runs": ["one"], "sweep": "s"}, "RUN and --sweep"),
        ({"axis": "miles"}, "--x miles is none of usd, hours, tokens, flops"),
        ({"loss": -1.0}, "--loss -1.0 must be above 0"),
    ],
)
def test_bad_requests_are_named(make, runs_dir, options, complaint):
    make("one")
    with pytest.raises(BadInput, match=complaint):
        said(runs_dir, **options)


def test_an_empty_folder_of_runs_is_said(runs_dir):
    with pytest.raises(BadInput, match="no runs in"):
        said(runs_dir)


@pytest.mark.parametrize("damage", [b'{"step": 2, "tok\n', b"\0\0\0\0\n", b"loss 3.5\n"])
def test_a_damaged_row_is_named_by_file_and_line(make, damage):
    folder = make("one")
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join([lines[0], damage, *lines[2:]]))
    with pytest.raises(BadInput, match=r"one/metrics\.jsonl:2: not a row"):
        read_run(folder)


@pytest.mark.parametrize("seed", range(20))
def test_rows_picked_without_parsing_are_those_that_parsing_finds(tmp_path, seed):
    rng = random.Random(seed)
    path = tmp_path / "metrics.jsonl"
    writer = RowWriter(path, None)
    for step in range(1, rng.randint(2, 60)):
        row = {"step": step, "tokens": step * 10, "loss": rng.random()}
        writer.append(row | ({"val_loss": rng.random()} if rng.random() < 0.3 else {}))
    every = read_rows(path)
    expected = [row for row in every if "val_loss" in row or row is every[-1]]
    assert _read_rows(path) == expected


def test_a_last_row_cut_short_is_left_out(make):
    folder = make("one")
    content = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(content + b'{"step": 17, "tokens": 1392')
    assert read_run(folder).steps == 16


def test_a_damaged_ledger_or_config_is_named(make):
    folder = make("one")
    (folder / "ledger.json").write_text('{"attempts": [')
    with pytest.raises(RunFailure, match=r"ledger\.json is damaged"):
        read_run(folder)
    (folder / "config.yaml").write_text("model: {layers: many}")
    with pytest.raises(BadInput, match=r"model\.layers='many' is not a whole number"):
        read_run(folder)


def test_different_text_is_refused_and_shown_when_forced(make, runs_dir):
    make("a", "data.source=a.txt")
    make("b", "data.source=b.txt")
    with pytest.raises(BadInput, match=r"data\.source=a\.txt .*data\.source=b\.txt .*--force"):
        comparison(runs_dir)
    found = comparison(runs_dir, force=True)
    assert found.unit == "nats per token"
    assert "do not compare" in found.notes[0]


def test_samples_of_one_published_corpus_compare_with_a_note(make, runs_dir):
    make("a", "data.source=hf:HuggingFaceFW/fineweb-edu:sample-10BT")
    make("b", "data.source=hf:HuggingFaceFW/fineweb-edu:sample-100BT")
    assert "validation text differs" in comparison(runs_dir).notes[0]


def test_tokenizers_compare_in_bits_per_byte_of_the_same_text(make, runs_dir, tmp_path):
    """Bits are nats per token over ln 2, times tokens per byte of the held-out text."""
    documents = [f"Document number {number} of the text. " * 20 for number in range(60)]
    source = tmp_path / "text.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    totals_of = {}
    for name in ("gpt2", "bytes"):
        data = DataConfig(source=str(source), tokenizer=name, val_fraction=0.3)
        dataset = prepare(data, dataset_dir(tmp_path / "data", data), local=True)
        totals_of[name] = dataset.totals["val"]
        make(
            name,
            f"data.source={source}",
            f"data.tokenizer={name}",
            "data.val_fraction=0.3",
            f"model.vocab={dataset.vocab}",
            f"paths.data={tmp_path / 'data'}",
            curve=final(2.0),
        )
    with pytest.raises(BadInput, match="--force to compare in bits per byte"):
        comparison(runs_dir)
    found = comparison(runs_dir, force=True)
    assert found.unit == BITS
    by_name = {run.name: found.final(run) for run in found.runs}
    assert totals_of["bytes"].text_bytes == totals_of["gpt2"].text_bytes > 0
    totals = totals_of["bytes"]
    # A byte is a token there, and each document has one separator.
    expected = 2.0 / math.log(2) * (totals.text_bytes + totals.documents) / totals.text_bytes
    assert by_name["bytes"] == pytest.approx(expected)
    assert by_name["gpt2"] < by_name["bytes"] / 2, "its tokens are several bytes long"


def test_summaries_say_how_many_bytes_a_token_is_where_no_dataset_is_at_hand(make, runs_dir):
    make("gpt2", curve=final(3.0), val_tokens_per_byte=0.25)
    make("bytes", "data.tokenizer=bytes", "model.vocab=257", curve=final(1.0),
         val_tokens_per_byte=1.001)  # fmt: skip
    found = comparison(runs_dir, force=True)
    bits = {run.name: found.final(run) for run in found.runs}
    assert found.unit == BITS
    assert bits == pytest.approx({"gpt2": 0.75 / math.log(2), "bytes": 1.001 / math.log(2)})


def test_losses_of_runs_that_say_nothing_of_bytes_stay_in_nats(make, runs_dir):
    make("gpt2", curve=final(3.0), val_tokens_per_byte=0.25)
    make("bytes", "data.tokenizer=bytes", "model.vocab=257", curve=final(1.0))
    with pytest.raises(BadInput, match="1 of 2 runs have neither a summary"):
        comparison(runs_dir)
    assert comparison(runs_dir, force=True).unit == NATS


def test_references_are_those_of_the_text_that_was_learned(make, runs_dir):
    make("a", "data.source=hf:HuggingFaceFW/fineweb:sample-10BT")
    by_label = {entry.label: entry for entry in comparison(runs_dir).references}
    assert by_label["GPT-2 124M"].loss == 3.424958, "on FineWeb, not on OpenWebText"
    llm_c = by_label["llm.c 124M"]
    # 19,560 steps of 524,288 tokens in 0.76 h.
    assert llm_c.spent["hours"] == 0.76
    assert llm_c.spent["tokens"] == pytest.approx(19560 * 524288, rel=1e-3)
    assert "$" in llm_c.source


def test_own_text_has_no_references_and_says_so(make, runs_dir):
    make("a")
    found = comparison(runs_dir)
    assert found.references == ()
    assert any("no published results" in note for note in found.notes)
