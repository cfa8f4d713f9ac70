"""What rented machines cost a sweep beside its trials, against the clock."""

from __future__ import annotations

import json
import time

import pytest

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.errors import RunFailure
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.sweep.cost.machine_bill import Bill
from gpt2dist.sweep.cost.trial_cost import Price, Rent
from gpt2dist.sweep.journal import Journal
from gpt2dist.sweep.sweeper import Sweeper
from gpt2dist.sweep.trial.record import Start
from tests.sweep.sweeping import sweep_of

DOLLAR_A_SECOND = ClusterConfig(usd_per_hour=3600.0)


def rented_for(seconds):
    return {"GPT2DIST_BILLED_SINCE": f"{time.time() - seconds:.3f}"}


def test_ones_own_machine_sends_no_bill(tmp_path):
    bill = Bill(tmp_path)
    bill.open(DOLLAR_A_SECOND, 1, {})
    bill.heartbeat()
    assert bill.amounts == Amounts()
    assert not list(tmp_path.iterdir())


def test_two_machines_are_paid_since_their_boot_and_no_second_twice(tmp_path):
    first = Bill(tmp_path)
    first.open(DOLLAR_A_SECOND, 2, rented_for(100))
    first.heartbeat()
    assert first.amounts.usd == pytest.approx(200, abs=5)
    assert first.amounts.hours == pytest.approx(200 / 3600, rel=0.05)
    again = Bill(tmp_path)  # the next command on the same machines
    assert again.amounts.usd == pytest.approx(200, abs=5)
    again.open(DOLLAR_A_SECOND, 2, rented_for(100))
    assert again.amounts.usd == pytest.approx(200, abs=5)


def test_another_machine_adds_its_own_setup(tmp_path):
    attempt = {"attempt_id": "a", "started_at": 1000.0, "last_seen_at": 1500.0, "machines": 1,
               "usd_per_hour": 7200.0, "price_source": "environment"}  # fmt: skip
    (tmp_path / "ledger.json").write_text(json.dumps({"attempts": [attempt]}))
    bill = Bill(tmp_path)
    assert bill.amounts.usd == 1000
    bill.open(DOLLAR_A_SECOND, 1, rented_for(60))
    assert bill.amounts.usd == pytest.approx(1060, abs=5)


def test_a_damaged_bill_is_not_forgotten(tmp_path):
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(RunFailure, match=r"ledger\.json is damaged"):
        Bill(tmp_path)


@pytest.mark.parametrize(("rented_seconds", "starts"), [(0, True), (10, True), (30, False)])
def test_what_setup_cost_is_not_there_for_trials(tmp_path, rented_seconds, starts):
    """Of $50 at a dollar a second; a trial needs 25 s, and ten per cent to be sure."""
    sweep = sweep_of(tmp_path, budget={"usd": 50.0}, at_once=1)
    folder = tmp_path / "sweep"
    folder.mkdir()
    rent = Rent(1.0, 1, 3600.0, "config")
    sweeper = Sweeper(
        sweep, folder, None, Journal(folder), rent, lambda t: Price(t.tokens, 25 / 3600, 25.0)
    )
    sweeper.bill.open(DOLLAR_A_SECOND, 1, rented_for(rented_seconds))
    assert sweeper.spent().usd == pytest.approx(rented_seconds, abs=5)
    assert isinstance(sweeper.next(), Start) == starts
    assert not sweeper.is_spent


def test_machines_that_cost_the_whole_budget_end_the_sweep(tmp_path):
    sweep = sweep_of(tmp_path, budget={"usd": 50.0})
    folder = tmp_path / "sweep"
    folder.mkdir()
    rent = Rent(1.0, 1, 3600.0, "config")
    sweeper = Sweeper(sweep, folder, None, Journal(folder), rent, lambda t: Price(t.tokens))
    sweeper.bill.open(DOLLAR_A_SECOND, 1, rented_for(51))
    assert sweeper.is_spent
