from __future__ import annotations

import json

import pytest

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.track.ledger import (
    HEARTBEAT_SECONDS,
    Account,
    Attempt,
    Ledger,
    paid_since,
    price_usd_per_hour,
)

START = 1_700_000_000.0


class Clock:
    """A clock set by hand."""

    def __init__(self, at: float = START) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def open_ledger(path, clock, attempt="a", *, machines=2, usd_per_hour=1.8, source="config"):
    fresh = Attempt.starting(attempt, clock(), (usd_per_hour, source), machines)
    return Ledger.open(path, fresh, clock=clock)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "ledger.json"


def test_an_hour_on_two_machines_costs_twice_the_price(path):
    clock = Clock()
    ledger = open_ledger(path, clock)
    clock.at += 3600
    ledger.heartbeat()
    assert (ledger.seconds, ledger.usd) == (3600, pytest.approx(3.6))
    assert ledger.usd_per_hour == pytest.approx(3.6)


def test_attempts_add_up_and_time_between_them_is_free(path):
    clock = Clock()
    first = open_ledger(path, clock)
    clock.at += 100
    first.heartbeat(force=True)
    clock.at += 5000
    second = open_ledger(path, clock, "b", machines=1, usd_per_hour=3.6)
    clock.at += 50
    second.heartbeat(force=True)
    account = Account.read(path)
    assert account.seconds == 150
    assert account.usd == pytest.approx(100 * 3.6 / 3600 + 50 * 3.6 / 3600)
    assert account.attempt_count == 2


def test_workers_restarted_inside_one_attempt_continue_it_and_idle_time_counts(path):
    clock = Clock()
    open_ledger(path, clock)
    clock.at += 500
    ledger = open_ledger(path, clock)
    assert (ledger.seconds, ledger.attempt_count, len(ledger.attempts)) == (500, 1, 1)


def test_a_new_price_counts_only_from_now_on(path):
    clock = Clock()
    ledger = open_ledger(path, clock, machines=4)
    clock.at += 3600
    ledger.heartbeat(force=True)
    ledger = open_ledger(path, clock, machines=2)
    clock.at += 3600
    ledger.heartbeat()
    assert ledger.usd == pytest.approx(4 * 1.8 + 2 * 1.8)
    assert (ledger.seconds, ledger.attempt_count) == (7200, 1)


def test_kill_loses_at_most_one_heartbeat(path):
    clock = Clock()
    ledger = open_ledger(path, clock)
    for _ in range(100):
        clock.at += 0.7
        ledger.heartbeat()
        assert 0 <= ledger.seconds - Account.read(path).seconds < HEARTBEAT_SECONDS


def test_heartbeats_between_writes_leave_the_file_alone(path):
    clock = Clock()
    ledger = open_ledger(path, clock)
    inode = path.stat().st_ino
    clock.at += HEARTBEAT_SECONDS / 2
    ledger.heartbeat()
    assert path.stat().st_ino == inode
    ledger.heartbeat(force=True)
    assert Account.read(path).seconds == HEARTBEAT_SECONDS / 2


def test_a_clock_set_back_takes_nothing_off_and_time_goes_on(path):
    clock = Clock()
    ledger = open_ledger(path, clock)
    clock.at += 100
    ledger.heartbeat()
    clock.at -= 5000
    ledger.heartbeat()
    assert ledger.seconds == 100
    clock.at += 20
    ledger.heartbeat(force=True)
    assert ledger.seconds == 120
    assert open_ledger(path, clock).seconds == 120


def test_spending_ahead_is_told_without_being_written(path):
    clock = Clock()
    ledger = open_ledger(path, clock)
    ahead = ledger.spent_at(START + 1800)
    assert (ahead.seconds, ahead.usd) == (1800, pytest.approx(1.8))
    assert ledger.seconds == 0


@pytest.mark.parametrize(
    "damage", ["", "{", '{"attempts": []}', '{"attempts": [{"attempt_id": "a"}]}', "[]"]
)
def test_money_is_never_silently_forgotten(path, damage):
    path.parent.mkdir()
    path.write_text(damage)
    with pytest.raises(RunFailure, match=r"ledger\.json is damaged .*move it away"):
        open_ledger(path, Clock())
    assert path.read_text() == damage


def test_a_field_of_the_wrong_type_is_damage(path):
    open_ledger(path, Clock())
    record = json.loads(path.read_text())
    record["attempts"][0]["last_seen_at"] = "yesterday"
    path.write_text(json.dumps(record))
    with pytest.raises(RunFailure, match="damaged"):
        Account.read(path)


@pytest.mark.parametrize(
    ("cluster", "environ", "expected"),
    [
        (ClusterConfig(usd_per_hour=1.1), {"GPT2DIST_USD_PER_HOUR": "9"}, (1.1, "config")),
        (ClusterConfig(usd_per_hour=0.0), {"GPT2DIST_USD_PER_HOUR": "9"}, (0.0, "config")),
        (ClusterConfig(watts=500), {"GPT2DIST_USD_PER_HOUR": "0.5"}, (0.5, "environment")),
        (ClusterConfig(watts=500, usd_per_kwh=0.3), {}, (0.15, "power")),
        (ClusterConfig(watts=500), {}, (0.0, "own machine")),
        (ClusterConfig(purchase_usd=3000, lifetime_hours=20_000), {}, (0.15, "purchase")),
        (
            ClusterConfig(watts=500, usd_per_kwh=0.5, purchase_usd=3000, lifetime_hours=12_000),
            {},
            (0.5, "power and purchase"),
        ),
        (ClusterConfig(), {"GPT2DIST_USD_PER_HOUR": " "}, (0.0, "own machine")),
    ],
)
def test_price_comes_from_the_first_source_there_is(cluster, environ, expected):
    assert price_usd_per_hour(cluster, environ) == expected


@pytest.mark.parametrize("text", ["cheap", "-1", "nan", "inf", "$2"])
def test_a_price_that_is_none_is_refused(text):
    with pytest.raises(BadInput, match=r"GPT2DIST_USD_PER_HOUR=.* is not a price"):
        price_usd_per_hour(ClusterConfig(), {"GPT2DIST_USD_PER_HOUR": text})


def test_a_rented_machine_is_paid_for_since_it_is_billed_but_never_twice(path):
    assert paid_since(START, {}, path) == START
    since = {"GPT2DIST_BILLED_SINCE": f"{START - 900:.0f}"}
    assert paid_since(START, since, path) == START - 900
    clock = Clock(START - 600)
    ledger = open_ledger(path, clock, source="environment")
    clock.at = START - 120
    ledger.heartbeat(force=True)
    assert paid_since(START, since, path) == START - 120, "up to there the run has paid already"
    # The same run, up to then on a machine of one's own: it paid nothing of the rented one.
    own = {"price_source": "config", "host": "desk"}
    at_home = json.loads(path.read_text())
    at_home["attempts"][0].update(own)
    elsewhere = path.with_name("elsewhere.json")
    elsewhere.write_text(json.dumps(at_home))
    assert paid_since(START, since, elsewhere) == START - 900
    late = {"GPT2DIST_BILLED_SINCE": f"{START + 50:.0f}"}
    assert paid_since(START, late, path) == START
    with pytest.raises(BadInput, match="GPT2DIST_BILLED_SINCE='noon'"):
        paid_since(START, {"GPT2DIST_BILLED_SINCE": "noon"}, path)
