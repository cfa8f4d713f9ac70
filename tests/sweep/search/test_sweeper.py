"""Who may start with how much money, on rented machines too: without any process."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import pytest

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.sweep.cost.estimate import Estimate, MachineShare, Pricing
from gpt2dist.sweep.search.sweeper import Sweeper
from gpt2dist.sweep.trial.journal import Journal
from gpt2dist.sweep.trial.process import TrialProcess
from gpt2dist.track.attempts import Attempt, Clock
from tests.sweep.sweeping import sweep_of


def sweeper_of(sweep, hours=None):
    """A dollar a second; a trial needs so many hours."""
    sweep.folder.mkdir(parents=True)
    journal = Journal(sweep)
    journal.open()
    share = MachineShare(1.0, 1, 3600.0, "config")
    return Sweeper(journal, Pricing(share, lambda config: Estimate(config.total_tokens, hours)))


def rented_for(seconds):
    """At a dollar a second."""
    since = f"{time.time() - seconds:.3f}"
    return {"GPT2DIST_BILLED_SINCE": since, "GPT2DIST_USD_PER_HOUR": "3600"}


@pytest.mark.parametrize(("rented_seconds", "starts"), [(0, True), (10, True), (30, False)])
def test_what_setup_cost_is_not_there_for_trials(tmp_path, rented_seconds, starts):
    """Of $50 at a dollar a second; a trial needs 25 s, and ten per cent to be sure."""
    sweep = sweep_of(tmp_path, budget={"usd": 50.0}, at_once=1)
    sweeper = sweeper_of(sweep, 25 / 3600)
    sweeper.ledger.open(ClusterConfig(), 1, rented_for(rented_seconds))
    assert sweeper.spent().usd == pytest.approx(rented_seconds, abs=5)
    assert isinstance(sweeper.next(), TrialProcess) == starts
    assert not sweeper.is_spent


def test_machines_that_cost_the_whole_budget_end_the_sweep(tmp_path):
    sweep = sweep_of(tmp_path, budget={"usd": 50.0})
    sweeper = sweeper_of(sweep)
    sweeper.ledger.open(ClusterConfig(), 1, rented_for(51))
    assert sweeper.is_spent


def test_trials_on_a_machine_of_ones_own_pay_nothing_of_the_rented_one(tmp_path):
    """$20 were spent at home; then 10 s of setup there, and 15 s of a trial within 30 s."""
    sweep = sweep_of(tmp_path, budget={"usd": 500.0}, at_once=1)
    sweeper = sweeper_of(sweep, 25 / 3600)
    process = sweeper.next()
    assert isinstance(process, TrialProcess)
    folder = sweeper.records[0].folder
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    at_home = Attempt("a", now - 400, now - 380, 1, 3600.0, "config", "desk")
    there = Attempt("b", now - 20, now - 5, 1, 3600.0, "config", "rented")
    for attempts, usd in (([at_home], 20 + 30), ([at_home, there], 20 + 30)):
        records = {"attempts": [asdict(attempt) for attempt in attempts]}
        (folder / "ledger.json").write_text(json.dumps(records))
        if sweeper.ledger.amounts == Amounts():
            sweeper.ledger.open(ClusterConfig(), 1, rented_for(30))
        assert sweeper.spent().usd == pytest.approx(usd, abs=3)


def test_trials_side_by_side_on_one_machine_each_pay_their_share(tmp_path):
    """30 s at a dollar a second: two trials had 20 s of it together, 10 s were setup."""
    sweeper = sweeper_of(sweep_of(tmp_path, budget={"usd": 500.0}, at_once=2), 25 / 3600)
    for _ in range(2):
        assert isinstance(sweeper.next(), TrialProcess)
    sweeper.ledger.open(ClusterConfig(), 1, rented_for(30))
    clock, now = Clock(), time.time()
    for record in sweeper.records[:2]:
        record.folder.mkdir(parents=True, exist_ok=True)
        half = Attempt.starting("a", now - 20, (1800.0, "config")).begun(clock)
        (record.folder / "ledger.json").write_text(json.dumps({"attempts": [asdict(half)]}))
    assert sweeper.spent().usd == pytest.approx(30, abs=3)
