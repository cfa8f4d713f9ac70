"""The dollar arithmetic, against its closed form: nothing that may happen costs more than asked."""

from __future__ import annotations

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.launch.allowance import (
    GRACE_S,
    OWN_STOP_S,
    TEARDOWN_S,
    UPLOAD_S,
    Allowance,
    Reserve,
    amount_at,
    spent_now,
)
from gpt2dist.plan.machine.costs import IDLE_MINUTES


@pytest.mark.parametrize(
    ("budget_usd", "usd_per_hour", "spent_usd"),
    [(15.0, 1.39, 0.0), (1.0, 0.4, 0.31), (900.0, 31.84, 250.0), (56.0, 2.08, 55.0 - 0.9)],
)
def test_a_run_that_is_stuck_to_the_last_costs_the_budget(budget_usd, usd_per_hour, spent_usd):
    deadline_s = Allowance(budget_usd, usd_per_hour, spent_usd).deadline_s
    longest_s = deadline_s + GRACE_S + UPLOAD_S + IDLE_MINUTES * 60 + TEARDOWN_S
    worst_usd = spent_usd + longest_s * usd_per_hour / 3600
    assert worst_usd <= budget_usd
    assert worst_usd > budget_usd - usd_per_hour / 3600 - 1e-9  # not a second is given away


def test_the_run_stops_itself_two_minutes_before_it_is_told_to():
    allowance = Allowance(15.0, 1.39, 3.0)
    own_stop_s = (allowance.run_usd - 3.0) / 1.39 * 3600
    assert allowance.deadline_s == int(own_stop_s + OWN_STOP_S)


def test_a_longer_grace_is_taken_from_the_run_not_from_the_budget():
    usual = Allowance(15.0, 1.39, 0.0)
    patient = Allowance(15.0, 1.39, 0.0, Reserve(grace_s=GRACE_S + 600))
    assert usual.deadline_s - patient.deadline_s == 600


@pytest.mark.parametrize("spent_usd", [0.98, 1.0, 7.0])
def test_a_spent_budget_starts_nothing(spent_usd):
    with pytest.raises(BadInput, match=r"budget of \$1\.00.*raise the budget"):
        _ = Allowance(1.0, 0.4, spent_usd).deadline_s


def test_machines_that_cost_nothing_have_no_deadline():
    assert Allowance(1.0, 0.0, 0.0).deadline_s is None


@pytest.mark.parametrize("numbers", [(float("nan"), 1, 0), (5, -1, 0), (5, 1, float("inf"))])
def test_what_is_no_amount_is_refused(numbers):
    with pytest.raises(BadInput):
        Allowance(*numbers)


def test_an_amount_is_for_all_clouds_or_for_one():
    assert amount_at("USD_PER_HOUR", "1.39", "Lambda") == 1.39
    assert amount_at("USD_PER_HOUR", "1.39", None) == 1.39
    assert amount_at("USD_PER_HOUR", "runpod=1.39 gcp=3.67", "GCP") == 3.67
    assert amount_at("USD_PER_HOUR", "runpod=1.39 gcp=3.67", "RunPod") == 1.39


@pytest.mark.parametrize(
    ("text", "cloud"),
    [("", "aws"), ("runpod=1.39", "aws"), ("runpod=1.39", None), ("cheap", None), ("-1", None),
     ("nan", None), ("inf", "aws")],
)  # fmt: skip
def test_an_unknown_amount_names_its_env(text, cloud):
    with pytest.raises(BadInput, match="USD_PER_HOUR"):
        amount_at("USD_PER_HOUR", text, cloud)


def test_every_second_of_a_machine_is_counted_once():
    booted, first_ends, second_starts, now = 1_000.0, 4_600.0, 5_000.0, 8_600.0
    # The first run on the machine takes its bill from boot.
    assert spent_now(0.0, [booted], first_ends, 3.6) == pytest.approx(3.6)
    # A second run there is not charged for the first, and is for what came after it.
    assert spent_now(0.0, [booted, first_ends], now, 3.6) == pytest.approx(4.0)
    # The first run again: its ledger holds 3.6 dollars up to its end.
    again = spent_now(3.6, [booted, first_ends, first_ends], second_starts, 3.6)
    assert again == pytest.approx(3.6 + 0.4)
    # Killed without a word, then continued on the same machine: from its last heartbeat.
    assert spent_now(2.0, [booted, 3_000.0], 4_000.0, 3.6) == pytest.approx(3.0)
    # On another machine, booted later: the time between the two is nobody's.
    assert spent_now(2.0, [7_600.0, 3_000.0], now, 3.6) == pytest.approx(3.0)
