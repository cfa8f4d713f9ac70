"""A run in one process: what it leaves, and that stops, kills and budgets change nothing of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from gpt2dist.cli.main import main
from gpt2dist.config.load import resolve
from gpt2dist.disk import locked, partial_of
from gpt2dist.run_files import RANK_LOCK
from gpt2dist.track.ledger import Account
from gpt2dist.train.run_folder import taken
from tests.train.command import (
    BATCH_TOKENS,
    DEADLINE_SECONDS,
    TINY,
    TOTAL_STEPS,
    Command,
    final_tensors,
    last_step,
    learned,
    rows_of,
    summary_of,
    take_one_core,
    wait_until,
)

DOCUMENTED = set(
    re.findall(
        r"^\| `(\w+)` \|",
        (Path(__file__).parents[2] / "docs" / "runs.md")
        .read_text()
        .split("## Rows")[1]
        .split("```")[0],
        re.MULTILINE,
    )
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def tiny(runs, shards) -> list[str]:
    """The words of the command line that every run here begins with."""
    return ["train", "debug", "--local", *TINY, f"data.source={shards}", f"paths.runs={runs}"]


@pytest.fixture(scope="module")
def undisturbed(runs, tiny) -> Path:
    """A whole run in a new Python, whose imports were counted."""
    words = [sys.executable, "-X", "importtime", "-m", "gpt2dist", *tiny, "--name", "undisturbed"]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=DEADLINE_SECONDS, preexec_fn=take_one_core
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (runs / "undisturbed" / "imported").write_text(done.stderr)
    (runs / "undisturbed" / "said").write_text(done.stdout)
    return runs / "undisturbed"


def assert_learned_the_same(run_dir: Path, undisturbed: Path) -> None:
    """Not nearly: every row and every bit of weights and moments."""
    assert learned(run_dir) == learned(undisturbed)
    assert final_tensors(run_dir) == final_tensors(undisturbed)


def test_a_run_leaves_what_the_docs_promise(undisturbed):
    names = {path.name for path in undisturbed.iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "ledger.json", "events.jsonl", "samples.txt",
                     "summary.json", "curve.png", "checkpoints"}  # fmt: skip
    height, width, _ = imread(undisturbed / "curve.png").shape
    assert height > 100
    assert width > 100
    samples = (undisturbed / "samples.txt").read_text()
    assert samples.count("--- step") == 2
    assert "--- step 120\nthe " in samples
    assert not list((undisturbed / "checkpoints").glob(".*partial*"))


def test_rows_hold_every_documented_field_and_nothing_else(undisturbed):
    rows = rows_of(undisturbed)
    assert [row["step"] for row in rows] == list(range(5, TOTAL_STEPS + 1, 5))
    assert [row["tokens"] for row in rows] == [row["step"] * BATCH_TOKENS for row in rows]
    for row in rows:
        evaluated = {"val_loss"} if row["step"] % 20 == 0 else set()
        assert set(row) == DOCUMENTED - {"val_loss"} | evaluated
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert rows[-1]["val_loss"] < rows[3]["val_loss"] - 0.5


def test_the_summary_agrees_with_the_rows(undisturbed):
    summary, rows = summary_of(undisturbed), rows_of(undisturbed)
    evaluated = [row for row in rows if "val_loss" in row]
    best = min(evaluated, key=lambda row: row["val_loss"])
    assert summary["ended"] == "finished"
    assert summary["steps"] == summary["total_steps"] == rows[-1]["step"] == TOTAL_STEPS
    assert summary["tokens"] == rows[-1]["tokens"]
    assert summary["final_loss"] == rows[-1]["loss"]
    assert summary["final_val_loss"] == rows[-1]["val_loss"]
    assert (summary["best_val_loss"], summary["best_step"]) == (best["val_loss"], best["step"])
    assert summary["seconds"] >= rows[-1]["seconds"]
    assert (summary["attempts"], summary["workers"], summary["precision"]) == (1, 1, "fp32")


def test_dollars_on_a_machine_without_a_price_are_unknown_not_none(undisturbed):
    summary, said = summary_of(undisturbed), (undisturbed / "said").read_text()
    assert (summary["usd"], summary["usd_per_hour"]) == (None, None)
    assert {row["usd"] for row in rows_of(undisturbed)} == {None}
    assert "accumulated, price unknown\n" in said
    assert ", cost unknown (cluster.usd_per_hour=... sets a price), 1 attempt" in said
    assert "$0" not in said


def test_the_summary_says_how_many_tokens_a_byte_of_the_validation_text_is(undisturbed, shards):
    """A byte is a token, and each document ends with one separator."""
    lengths = [path.stat().st_size for path in (shards.parent / "text").iterdir()]
    separators_per_byte = summary_of(undisturbed)["val_tokens_per_byte"] - 1
    assert 1 / max(lengths) <= separators_per_byte <= 1 / min(lengths)


def test_a_local_run_imports_neither_ray_nor_mlflow(undisturbed):
    # A package has modules below it; the attempt to import one that is hidden has none.
    packages = set(re.findall(r"\| +(\w+)\.", (undisturbed / "imported").read_text()))
    assert packages >= {"torch", "deepspeed"}
    assert not packages & {"ray", "mlflow"}


def test_a_start_that_is_killed_is_paid_for(runs, tiny):
    """Rank 0 waits for one that has not ended; nothing of the run has begun when it is killed."""
    run_dir = runs / "waiting"
    run_dir.mkdir()
    with locked(run_dir / RANK_LOCK):
        words = [*tiny, "--name", "waiting", "cluster.usd_per_hour=3600"]
        command = Command(runs, *words)
        ledger = run_dir / "ledger.json"
        wait_until(lambda: ledger.exists() and Account.read(ledger).usd > 3, command.is_alive)
        os.kill(command.pid, signal.SIGKILL)
        command.ends_with(-signal.SIGKILL)
    killed = Account.read(ledger)
    assert not rows_of(run_dir)
    Command(runs, *words, "budget.tokens=256").ends_with(0)
    assert summary_of(run_dir)["attempts"] == 2
    assert summary_of(run_dir)["usd"] > killed.usd > 3


def test_a_run_over_its_budget_sets_nothing_up(runs, tiny, capsys):
    words = [*tiny, "--name", "over", "cluster.usd_per_hour=3600"]
    Command(runs, *words, "budget.tokens=256").ends_with(0)
    steps, spent = last_step(runs / "over"), Account.read(runs / "over" / "ledger.json").usd
    words.remove("--local")  # under Ray, and with more workers than there are cores
    assert main([*words, "budget.usd=0.01", "cluster.workers=4096"]) == 0
    summary, said = summary_of(runs / "over"), capsys.readouterr().out
    assert said.count("\n") == 1
    told = re.search(r"budget\.usd=0\.01: \$([\d.]+) spent, already past it", said)
    assert told is not None
    assert spent - 0.01 < float(told[1]) < summary["usd"] + 0.01
    assert summary["usd"] == Account.read(runs / "over" / "ledger.json").usd > spent
    assert (summary["ended"], summary["attempts"], summary["steps"]) == ("budget", 2, steps)


def test_files_that_are_lost_are_missed_at_the_next_start(runs, tiny, capsys):
    run_dir, words = runs / "lost", [*tiny, "--name", "lost", "cluster.usd_per_hour=3600"]
    stop = f"budget.tokens={10 * BATCH_TOKENS}"
    Command(runs, *words, stop).ends_with(0)
    (state,) = run_dir.glob("checkpoints/step-00000010/state.json")
    vouched = json.loads(state.read_text())["state"]
    assert vouched["rows"] == len(rows_of(run_dir)) == 2
    for name in ("ledger.json", "metrics.jsonl"):
        (run_dir / name).unlink()
    assert main([*words, stop]) == 0
    said, account = capsys.readouterr().out, Account.read(run_dir / "ledger.json")
    assert "ledger.json lacks " in said
    assert "of what checkpoint step-00000010 vouches for" in said
    assert "metrics.jsonl lacks 2 of the 2 rows" in said
    assert "no rows from step 1 to 10: they are lost" in said
    assert account.attempts[0].price_source == "checkpoint step-00000010"
    assert account.usd > vouched["usd"] > 0
    assert account.seconds > vouched["seconds"]


def test_a_token_budget_is_never_passed_and_a_larger_one_goes_on(runs, tiny, undisturbed):
    words = [*tiny, "--name", "tokens"]
    command = Command(runs, *words, f"budget.tokens={50 * BATCH_TOKENS + 100}").ends_with(0)
    summary = summary_of(runs / "tokens")
    assert (summary["ended"], summary["tokens"]) == ("budget", 50 * BATCH_TOKENS)
    assert "budget.tokens=6,500: 6,400 trained, the next step would pass it" in command.stdout
    Command(runs, *words, "budget.tokens=1e9").ends_with(0)
    assert summary_of(runs / "tokens")["ended"] == "finished"
    assert_learned_the_same(runs / "tokens", undisturbed)


def test_a_dollar_budget_is_never_passed(runs, tiny, undisturbed):
    del undisturbed  # its files are in the page cache by now, so that starts are alike
    words = [*tiny, "cluster.usd_per_hour=3600", "train.tokens=1e8", "checkpoint.every_steps=3"]
    probe = Command(runs, *words, "--name", "probe", "budget.tokens=1024").ends_with(0)
    assert summary_of(runs / "probe")["ended"] == "budget", probe.stdout
    start_usd = summary_of(runs / "probe")["usd"]
    limit = 2 * start_usd + 3
    Command(runs, *words, "--name", "usd", f"budget.usd={limit}").ends_with(0)
    summary = summary_of(runs / "usd")
    assert summary["ended"] == "budget"
    assert summary["steps"] > 0
    assert summary["usd"] <= limit


def test_eval_repeats_the_last_validation_loss(undisturbed, runs):
    from gpt2dist.train.core.checkpoint import newest_valid
    from gpt2dist.train.offline import evaluate_checkpoint
    from gpt2dist.train.run_folder import open_run

    logged = rows_of(undisturbed)[-1]["val_loss"]
    run_dir, config = open_run(str(undisturbed))
    found = newest_valid(run_dir, pytest.fail)
    assert found is not None
    assert evaluate_checkpoint(config, found).loss == pytest.approx(logged, rel=1e-6)
    said = Command(runs, "eval", "undisturbed", "--runs", str(runs)).ends_with(0).stdout
    assert f"step-00000120: validation loss {logged:.4f} nats per token" in said


def test_samples_repeat_with_their_seed(undisturbed, runs):
    def sample(*words: str) -> str:
        command = Command(runs, "sample", str(undisturbed), "--tokens", "24", *words)
        return command.ends_with(0).stdout

    hot = ("--temperature", "1.5", "--prompt", "the ")
    assert sample(*hot, "--seed", "1") == sample(*hot, "--seed", "1") != sample(*hot, "--seed", "2")
    greedy = ("--temperature", "0", "--prompt", "the ")
    assert sample(*greedy, "--seed", "1") == sample(*greedy, "--seed", "2")
    assert re.findall(r"^--- (\d)\nthe ", sample(*hot, "--count", "2"), re.MULTILINE) == ["1", "2"]


def test_a_finished_run_repeated_changes_nothing(undisturbed, runs, tiny):
    before = {path: path.read_bytes() for path in sorted(undisturbed.rglob("*")) if path.is_file()}
    command = Command(runs, *tiny, "--name", "undisturbed").ends_with(0)
    after = {path: path.read_bytes() for path in sorted(undisturbed.rglob("*")) if path.is_file()}
    assert after == before
    assert "is finished already" in command.stdout


def test_a_run_is_finished_once_its_curve_is_drawn_and_its_folder_cleared(undisturbed, runs, tiny):
    """Killed between the two it would be called finished, and never get a curve."""
    run_dir = Path(shutil.copytree(undisturbed, runs / "curveless"))
    half_written = partial_of(run_dir / "summary.json")
    half_written.touch()
    for name in ("summary.json", "curve.png"):
        (run_dir / name).unlink()
    (run_dir / "curve.png").mkdir()  # cannot be written
    words = [*tiny, "--name", "curveless"]
    Command(runs, *words).wait()
    assert not (run_dir / "summary.json").exists()
    assert not half_written.exists()
    (run_dir / "curve.png").rmdir()
    Command(runs, *words).ends_with(0)
    assert summary_of(run_dir)["ended"] == "finished"
    assert (run_dir / "curve.png").is_file()


def test_a_start_clears_away_what_a_killed_one_was_writing(tmp_path):
    half_written = partial_of(tmp_path / "ledger.json")
    half_written.touch()
    config = resolve("debug", [])
    # A killed driver's worker still lives, and writes.
    with locked(tmp_path / RANK_LOCK), taken(tmp_path, config, fresh=False):
        assert half_written.exists()
    with taken(tmp_path, config, fresh=False):
        assert not half_written.exists()


def test_fresh_sets_the_old_run_aside(runs, tiny):
    words = [*tiny, "--name", "again", f"train.tokens={10 * BATCH_TOKENS}"]
    Command(runs, *words).ends_with(0)
    old = learned(runs / "again")
    (runs / "again" / "mine.txt").write_text("a note of the user")
    Command(runs, *words, "train.seed=1", "--fresh").ends_with(0)
    (aside,) = runs.glob("again.old-*")
    assert learned(aside) == old
    assert (aside / "mine.txt").exists()
    assert learned(runs / "again") != old
    assert summary_of(runs / "again")["attempts"] == 1


def test_a_diverged_run_says_so_in_one_line(runs, tiny):
    command = Command(runs, *tiny, "--name", "nan", "optim.peak_lr=1e30", "optim.clip_norm=0")
    command.ends_with(1)
    assert command.stderr.count("\n") == 1
    assert "the last 10 steps had non-finite gradients" in command.stderr
    assert "lower optim.peak_lr" in command.stderr
    summary = summary_of(runs / "nan")
    assert summary["ended"] == "diverged"
    events = (runs / "nan" / "events.jsonl").read_text().splitlines()
    notes = [event["note"] for event in map(json.loads, events) if "note" in event]
    assert sum("skipped: loss" in note for note in notes) == 10
