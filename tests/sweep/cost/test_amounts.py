"""Grants within limits, and what rented machines cost a sweep beside its trials."""

from __future__ import annotations

import json
import math
import random
import time

import pytest

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.errors import RunFailure
from gpt2dist.sweep.cost.amounts import Amounts, SweepLedger, grant, limits


def test_grants_never_pass_the_budget_whatever_trials_spend_of_them():
    draw = random.Random(0)
    for _ in range(300):
        limit = limits(usd=draw.uniform(1, 9), tokens=draw.randint(10, 90))
        slots, running, spent = draw.randint(1, 4), [], Amounts()
        for _ in range(40):
            used = spent
            for granted in running:
                used += granted
            if len(running) < slots:
                need = Amounts(draw.uniform(0, 3), draw.uniform(0, 3), draw.uniform(0, 30))
                given = grant(limit.without(used), need, slots - len(running))
                if given is not None:
                    assert given.covers(need)
                    running.append(given)
            if running and draw.random() < 0.5:
                # At worst a trial spends all it was granted.
                spent += running.pop().times(draw.choice([draw.random(), 1.0]))
        for granted in running:
            spent += granted
        assert spent.usd <= limit.usd + 1e-9
        assert spent.tokens <= limit.tokens + 1e-9
        assert limit.hours == math.inf


def test_the_first_wave_shares_what_there_is():
    free = Amounts(usd=12, hours=math.inf, tokens=math.inf)
    first = grant(free, Amounts(1, 1, 1), slots=3)
    assert first is not None
    assert first.usd == 4
    assert grant(free, Amounts(usd=13), slots=1) is None


def rented_for(seconds):
    """At a dollar a second."""
    since = f"{time.time() - seconds:.3f}"
    return {"GPT2DIST_BILLED_SINCE": since, "GPT2DIST_USD_PER_HOUR": "3600"}


def test_ones_own_machine_sends_no_bill(tmp_path):
    ledger = SweepLedger(tmp_path)
    ledger.open(ClusterConfig(), 1, {})
    ledger.heartbeat()
    assert ledger.amounts == Amounts()
    assert not list(tmp_path.iterdir())


def test_two_machines_are_paid_since_their_boot_and_no_second_twice(tmp_path):
    first = SweepLedger(tmp_path)
    first.open(ClusterConfig(), 2, rented_for(100))
    first.heartbeat()
    assert first.amounts.usd == pytest.approx(200, abs=5)
    assert first.amounts.hours == pytest.approx(200 / 3600, rel=0.05)
    again = SweepLedger(tmp_path)  # the next command on the same machines
    assert again.amounts.usd == pytest.approx(200, abs=5)
    again.open(ClusterConfig(), 2, rented_for(100))
    assert again.amounts.usd == pytest.approx(200, abs=5)


def test_another_machine_adds_its_own_setup(tmp_path):
    attempt = {"attempt_id": "a", "started_at": 1000.0, "last_seen_at": 1500.0, "machines": 1,
               "usd_per_hour": 7200.0, "price_source": "environment"}  # fmt: skip
    (tmp_path / "ledger.json").write_text(json.dumps({"attempts": [attempt]}))
    ledger = SweepLedger(tmp_path)
    assert ledger.amounts.usd == 1000
    ledger.open(ClusterConfig(), 1, rented_for(60))
    assert ledger.amounts.usd == pytest.approx(1060, abs=5)


def test_a_damaged_bill_is_not_forgotten(tmp_path):
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(RunFailure, match=r"ledger\.json is damaged"):
        SweepLedger(tmp_path)
