from __future__ import annotations

from pathlib import Path

from gpt2dist.config.schema import BudgetConfig
from gpt2dist.track.attempts import Attempt, Clock
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import Ledger

START = 1_700_000_000.0


def guard(budget, *, past_seconds=0.0, now_seconds=0.0, machines=1, usd_per_hour=3.6):
    """A run at `now_seconds` of its attempt, after an earlier one at the same price."""
    past = Attempt("a", START - 9e5, START - 9e5 + past_seconds, machines, usd_per_hour, "config")
    now = Attempt("b", START, START, machines, usd_per_hour, "config")
    steady = iter((0.0, *[now_seconds] * 9))
    clock = Clock(steady=lambda: next(steady))
    path = Path("ledger.json")  # never written: nothing here is a heartbeat
    return BudgetGuard(budget, Ledger(path, [past, now], clock))


def test_without_limits_nothing_stops_the_run():
    assert guard(BudgetConfig(), now_seconds=1e9).reason(10**15, 10**15, 1e9) is None


def test_the_step_that_would_pass_the_dollars_is_not_taken():
    # $3.60 an hour is a tenth of a cent a second: $1 is 1,000 seconds.
    at_980 = guard(BudgetConfig(usd=1.0), now_seconds=980)
    assert at_980.reason(0, 1, seconds_reserve=19.9) is None
    assert (
        at_980.reason(0, 1, seconds_reserve=20.1)
        == "budget.usd=1.00: $0.98 spent, the next step would pass it"
    )


def test_dollars_count_every_attempt_and_machine():
    spent = guard(BudgetConfig(usd=1.0), past_seconds=300, now_seconds=190, machines=2)
    assert spent.reason(0, 1, seconds_reserve=9.9) is None
    assert "$0.98 spent" in spent.reason(0, 1, seconds_reserve=10.1)


def test_hours_count_every_attempt_once_however_many_machines():
    spent = guard(BudgetConfig(hours=1.0), past_seconds=3000, now_seconds=590, machines=8)
    assert spent.reason(0, 1, seconds_reserve=10) is None
    assert (
        spent.reason(0, 1, seconds_reserve=10.1)
        == "budget.hours=1: 1.00 h used, the next step would pass it"
    )


def test_the_last_step_that_fits_the_tokens_is_taken():
    tokens = guard(BudgetConfig(tokens=1_000_000))
    assert tokens.reason(900_000, 100_000, 0.0) is None
    assert (
        tokens.reason(900_000, 100_001, 0.0)
        == "budget.tokens=1,000,000: 900,000 trained, the next step would pass it"
    )


def test_a_resumed_run_over_its_limit_says_so():
    over = guard(BudgetConfig(usd=0.5), past_seconds=600)
    assert over.reason(0, 1, 0.0) == "budget.usd=0.50: $0.60 spent, already past it"


def test_a_free_machine_never_meets_a_dollar_limit():
    free = guard(BudgetConfig(usd=0.01), now_seconds=1e9, usd_per_hour=0.0)
    assert free.reason(0, 1, 1e9) is None
