"""The journal after crashes and damage."""

from __future__ import annotations

import json

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.sweep.trial.journal import Journal
from gpt2dist.sweep.trial.trial import Trial
from tests.sweep.sweeping import sweep_of


def test_a_journal_survives_a_cut_line_and_names_a_damaged_one(tmp_path):
    sweep = sweep_of(tmp_path)
    assert Journal(sweep).tree is None
    sweep.folder.mkdir(parents=True)
    journal = Journal(sweep)
    journal.open()
    record = journal.add(Trial(sweep, 0, 0, {"optim.peak_lr": 1e-3}, 7))
    for record.state, record.reason in (("running", ""), ("finished", "64 steps done")):
        journal.note(record, usd=1.5)
    whole = journal.path.read_bytes()
    for length in range(len(whole) - 60, len(whole)):
        journal.path.write_bytes(whole[:length])
        cut = Journal(sweep)
        assert cut.tree == sweep.tree
        assert cut.records[0].state in ("running", "finished")
        cut.open()
        cut.add(Trial(sweep, 1, 1, {"optim.peak_lr": 2e-3}, 7))
        assert [r.trial.number for r in Journal(sweep).records] == [0, 1]
    journal.path.write_bytes(whole.replace(b'"trial": 0, "point"', b'"trial": x, "point"'))
    with pytest.raises(BadInput, match=r"journal\.jsonl:2 is damaged"):
        Journal(sweep)


def test_the_journal_of_an_earlier_version_is_read(tmp_path):
    """One trial that finished at its second start, and one whose end nobody wrote down."""
    sweep = sweep_of(tmp_path)
    sweep.folder.mkdir(parents=True)
    about = {"trial": 0, "point": 0, "values": {"optim.peak_lr": 1e-3}, "seed": 1337}
    other = {"trial": 1, "point": 1, "values": {"optim.peak_lr": 2e-3}, "seed": 1337}
    figures = {"usd": 0.5, "machine_hours": 0.1, "tokens": 8192, "val_loss": 4.25}
    lines = [
        {"event": "sweep", "format": 1, "tree": sweep.tree},
        {"event": "trial", **about},
        {"event": "state", "trial": 0, "state": "running", "reason": ""},
        {"event": "state", "trial": 0, "state": "interrupted", "reason": "SIGTERM", **figures},
        {"event": "trial", **other},
        {"event": "state", "trial": 1, "state": "running", "reason": ""},
        {"event": "state", "trial": 0, "state": "running", "reason": ""},
        {"event": "state", "trial": 0, "state": "finished", "reason": "64 steps done", **figures},
    ]
    text = "".join(json.dumps({"time": 1790000000.5, **line}) + "\n" for line in lines)
    (sweep.folder / "journal.jsonl").write_text(text)
    first, second = Journal(sweep).records
    assert (first.state, first.reason, first.starts) == ("finished", "64 steps done", 2)
    assert (second.state, second.starts, second.is_over) == ("running", 1, False)
    assert first.folder == sweep.folder / "000-peak_lr-1e-3"
    assert first.trial.config.optim.peak_lr == 1e-3
