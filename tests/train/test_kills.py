"""Twenty starts of a tiny run, each ended at random: a part of what benchmarks/kills.py does."""

from __future__ import annotations

import json
import shutil

import kills
import pytest

from tests.train.interruption import CODES
from tests.train.story import CHECKS, Story, Tally

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
ROUNDS = kills.draw(20, 36, ray_share=0)
"Under Ray: test_ray_run.py."


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def tally(runs, shards):
    return kills.play(ROUNDS, runs, shards, print)


@pytest.mark.parametrize("check", CHECKS)
def test_no_start_that_was_ended_left_a_fault(tally, check):
    assert tally.checked[check] >= (tally.runs if check == "mlflow" else len(ROUNDS))
    assert tally.faults[check] == []


def test_most_of_the_rounds_met_their_moment(tally):
    """All but those whose run finished before; which, depends on the machine."""
    assert {round_.end for round_ in ROUNDS} == kills.SIGNALS.keys()
    assert {round_.phase for round_ in ROUNDS} == kills.PHASES.keys()
    met = {how: count for how, count in tally.ended.items() if not how.startswith("nothing")}
    assert sum(met.values()) > len(ROUNDS) / 2
    assert tally.flipped_bits


def test_what_was_done_can_be_kept_as_json(tally):
    kept = json.loads(json.dumps({**kills.origin("--rounds 20"), **vars(tally)}))
    assert kept["ended"] == tally.ended
    assert kept["checked"] == tally.checked
    assert kept["command"] == "python benchmarks/kills.py --rounds 20"


def test_a_seed_draws_the_same_rounds_and_in_the_end_every_kind():
    rounds = kills.draw(500, 1, ray_share=0.3)
    assert rounds == kills.draw(500, 1, ray_share=0.3) != kills.draw(500, 2, ray_share=0.3)
    assert {r.how for r in rounds} == {"forked", "cold", "one", "two"}
    assert {r.end for r in rounds} == CODES.keys() - {"nothing"}
    assert {r.phase for r in rounds} == kills.PHASES.keys()


def _another_loss(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    rows[3]["loss"] += 1e-15
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _another_weight(run_dir):
    weights = max(run_dir.glob("checkpoints/*/weights-*"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    ("check", "damage"),
    [
        ("rows", _another_loss),
        ("checkpoints", _another_weight),
        ("files and processes", lambda run_dir: (run_dir / ".ledger.json.1.partial").touch()),
        ("mlflow", lambda run_dir: None),  # MLflow has no run of the copy's name
    ],
)
def test_a_fault_would_have_been_found(tally, runs, tmp_path, check, damage):
    copy = shutil.copytree(runs / "one-1", tmp_path / "copy")
    shutil.copy(runs / "mlflow.db", tmp_path)
    damage(copy)
    found = Tally()
    Story(copy, [], runs / "one-0", found).conclude(lambda run_dir: None)
    assert len(found.faults[check]) >= 1
    others = {name for name, faults in found.faults.items() if faults} - {check}
    assert others <= {"mlflow", "ledger"}  # what it was billed, the copy's story never saw


@pytest.mark.parametrize(
    "words", [["--rounds", "0"], ["--rounds", "x"], ["--seed", "-1"], ["--ray", "2"], ["--what"],
              ["--json", "/nowhere/at/all.json"]],
)  # fmt: skip
def test_bad_arguments_are_one_line(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        kills.main(words)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words[-1] in said
