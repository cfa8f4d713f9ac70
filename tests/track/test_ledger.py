from __future__ import annotations

import json
import random
from dataclasses import asdict, replace

import pytest

from gpt2dist.config.schema import BudgetConfig, ClusterConfig
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.track.attempts import Attempt, Clock, Spent
from gpt2dist.track.budget import BudgetGuard
from gpt2dist.track.ledger import (
    HEARTBEAT_SECONDS,
    OWN_MACHINE,
    Account,
    Ledger,
    paid_since,
    price_usd_per_hour,
    shortfall,
)
from tests.train.command import wait_until

START = 1_700_000_000.0


class Machine:
    """A machine whose two clocks are set by hand."""

    def __init__(self, at: float = START, boot: str = "boot") -> None:
        self.at, self.steady, self.boot = at, 1e6, boot

    def runs(self, seconds: float) -> None:
        self.at += seconds
        self.steady += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.at, lambda: self.steady, self.boot)


def open_ledger(path, machine, attempt="a", *, machines=2, usd_per_hour=1.8, source="config"):
    fresh = Attempt.starting(attempt, machine.at, (usd_per_hour, source), machines)
    return Ledger.open(path, fresh, clock=machine.clock)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "ledger.json"


def test_an_hour_on_two_machines_costs_twice_the_price(path):
    machine = Machine()
    ledger = open_ledger(path, machine)
    machine.runs(3600)
    ledger.heartbeat()
    assert (ledger.seconds, ledger.usd) == (3600, pytest.approx(3.6))
    assert ledger.usd_per_hour == pytest.approx(3.6)


def test_attempts_add_up_and_time_between_them_is_free(path):
    machine = Machine()
    first = open_ledger(path, machine)
    machine.runs(100)
    first.heartbeat(force=True)
    machine.runs(5000)
    second = open_ledger(path, machine, "b", machines=1, usd_per_hour=3.6)
    machine.runs(50)
    second.heartbeat(force=True)
    account = Account.read(path)
    assert account.seconds == 150
    assert account.usd == pytest.approx(100 * 3.6 / 3600 + 50 * 3.6 / 3600)
    assert account.attempt_count == 2


def test_workers_restarted_inside_one_attempt_continue_it_and_idle_time_counts(path):
    machine = Machine()
    open_ledger(path, machine)
    machine.runs(500)
    ledger = open_ledger(path, machine)
    assert (ledger.seconds, ledger.attempt_count, len(ledger.attempts)) == (500, 1, 1)


def test_a_new_price_counts_only_from_now_on(path):
    machine = Machine()
    ledger = open_ledger(path, machine, machines=4)
    machine.runs(3600)
    ledger.heartbeat(force=True)
    ledger = open_ledger(path, machine, machines=2)
    machine.runs(3600)
    ledger.heartbeat()
    assert ledger.usd == pytest.approx(4 * 1.8 + 2 * 1.8)
    assert (ledger.seconds, ledger.attempt_count) == (7200, 1)


def test_kill_loses_at_most_one_heartbeat(path):
    machine = Machine()
    ledger = open_ledger(path, machine)
    for _ in range(100):
        machine.runs(0.7)
        ledger.heartbeat()
        assert 0 <= ledger.seconds - Account.read(path).seconds < HEARTBEAT_SECONDS


def test_heartbeats_between_writes_leave_the_file_alone(path):
    machine = Machine()
    ledger = open_ledger(path, machine)
    inode = path.stat().st_ino
    machine.runs(HEARTBEAT_SECONDS / 2)
    ledger.heartbeat()
    assert path.stat().st_ino == inode
    ledger.heartbeat(force=True)
    assert Account.read(path).seconds == HEARTBEAT_SECONDS / 2


def test_a_clock_that_is_set_changes_nothing(path):
    machine = Machine()
    ledger = open_ledger(path, machine)
    for jump in (-5000, 7200, -7200, 86_400):
        machine.at += jump
        machine.runs(20)
        ledger.heartbeat(force=True)
        ledger = open_ledger(path, machine)
    assert ledger.seconds == 80
    machine.runs(5)
    assert BudgetGuard(BudgetConfig(hours=86 / 3600), ledger).reason(0, 1, 0.5) is None


def test_the_clock_of_a_young_machine_may_be_set_before_its_first_attempt(path):
    """NTP mends the clock of a machine that booted three minutes ago; its bill begins there."""
    machine = Machine()
    machine.steady = 180.0
    billed = Attempt.starting("a", machine.at - 7200, (3.6, "environment"))
    assert Ledger.open(path, billed, clock=machine.clock).seconds == 180


def test_a_suspended_laptop_counts_nothing(path):
    machine = Machine()
    ledger = open_ledger(path, machine)
    machine.runs(10)
    machine.at += 8 * 3600
    machine.runs(10)
    ledger.heartbeat(force=True)
    assert ledger.seconds == 20


def test_attempts_that_overlap_on_one_machine_are_paid_once(path):
    """The workers of a killed driver save for half a minute while the next driver starts."""
    machine = Machine()
    orphan = open_ledger(path, machine, usd_per_hour=3600)
    machine.runs(100)
    orphan.heartbeat()
    machine.at -= 50  # also when the clock is set in between
    following = open_ledger(path, machine, "b", usd_per_hour=3600)
    for _ in range(6):
        machine.runs(5)
        orphan.heartbeat(force=True)
        following.heartbeat(force=True)
    machine.runs(70)
    following.heartbeat(force=True)
    account = Account.read(path)
    assert [attempt.seconds for attempt in account.attempts] == [130, 100]
    assert (account.seconds, account.usd, account.attempt_count) == (200, 400, 2)
    assert account.attempts[-1].attempt_id == "b"


def test_the_driver_and_rank_0_keep_one_account_together(path):
    """Whoever of them dies, or is busy, the other goes on; and no second is counted twice."""
    machine = Machine()
    driver = open_ledger(path, machine, machines=1, usd_per_hour=3600)
    machine.runs(30)
    driver.recount(machines=2)
    elsewhere = Machine(START + 3000, boot="of another machine")  # its clock is wrong
    rank_0 = open_ledger(path, elsewhere, usd_per_hour=3600)
    for _ in range(10):
        for either in (machine, elsewhere):
            either.runs(7)
        rank_0.heartbeat()
    machine.runs(100)  # rank 0 is gone
    driver.heartbeat()
    account = Account.read(path)
    assert (account.seconds, account.usd, len(account.attempts)) == (200, 400, 1)


def test_on_other_machines_at_another_count_the_driver_follows_rank_0(path):
    machine = Machine()
    driver = open_ledger(path, machine, machines=1, usd_per_hour=3600)
    machine.runs(10)
    driver.heartbeat()
    rank_0 = open_ledger(path, machine, machines=3, usd_per_hour=3600)
    machine.runs(10)
    rank_0.heartbeat()
    machine.runs(10)
    driver.heartbeat()
    assert (driver.seconds, driver.usd) == (30, 10 + 3 * 20)


def test_time_counts_while_the_driver_is_busy_and_no_rank_writes(path):
    machine, closed = Machine(), []
    ledger = open_ledger(path, machine)
    with ledger.kept(until=lambda: bool(closed)):
        machine.runs(80)
        wait_until(lambda: Account.read(path).seconds == 80)
        machine.runs(0.1)
    assert Account.read(path).seconds == pytest.approx(80.1)
    with ledger.kept(until=lambda: bool(closed)):
        closed.append("rank 0 has closed the account")
        machine.runs(30)
    assert Account.read(path).seconds == pytest.approx(80.1)


def test_a_ledger_that_is_lost_while_it_is_kept_is_written_again(path):
    machine = Machine()
    ledger = open_ledger(path, machine)
    machine.runs(100)
    ledger.heartbeat()
    ledger = open_ledger(path, machine, "b")
    for loss in (path.unlink, lambda: path.write_text("{")):
        loss()
        machine.runs(10)
        ledger.heartbeat()
    assert Account.read(path).seconds == 120


def test_a_folder_that_is_moved_away_is_not_made_again(path):
    machine = Machine()
    ledger = open_ledger(path, machine)
    path.parent.rename(path.parent.with_name("moved"))
    machine.runs(10)
    ledger.heartbeat()
    assert not path.parent.exists()


@pytest.mark.parametrize("seed", range(40))
def test_the_total_never_falls_and_never_passes_what_the_machines_ran(path, seed):
    """Drivers and ranks open, beat, die; clocks are set, machines sleep: whatever the order."""
    draw = random.Random(seed)
    machine, ran, shown, live, deaths = Machine(), 0.0, 0.0, [], 0
    for number in range(60):
        match draw.choice(("open", "share", "run", "run", "run", "die", "set", "sleep")):
            case "open":
                live.append((open_ledger(path, machine, f"{number}"), f"{number}"))
            case "share" if live:
                attempt = draw.choice(live)[1]
                live.append((open_ledger(path, machine, attempt), attempt))
            case "run" if live:
                seconds = draw.choice((0.3, 1.9, 40.0))
                machine.runs(seconds)
                ran += seconds
                for ledger, _ in live:
                    ledger.heartbeat()
            case "die" if live:
                live.pop(draw.randrange(len(live)))
                deaths += 1
            case "set" | "sleep":
                machine.at += draw.choice((7200.0, -7200.0, 86_400.0))
        if path.exists():
            account = Account.read(path)
            assert account.usd == pytest.approx(account.seconds * 2 * 1.8 / 3600)
            assert account.seconds >= shown - 1e-6, "it fell"
            assert account.seconds <= ran + 1e-6, "it counts what never ran"
            assert account.seconds > ran - HEARTBEAT_SECONDS * (1 + deaths), "it lost time"
            shown = account.seconds


def test_what_a_checkpoint_vouches_for_is_never_lost(path):
    machine = Machine()
    ledger = open_ledger(path, machine, usd_per_hour=3600)
    machine.runs(100)
    ledger.heartbeat()
    vouched = ledger.spent
    fresh = Attempt.starting("b", machine.at, (3600, "config"), 2)
    assert shortfall(path, vouched, "checkpoint", fresh) is None
    for cut in (0, 40):
        early = {"attempts": [asdict(replace(ledger.attempts[0], last_seen_at=START + cut))]}
        path.write_text(json.dumps(early))
        if not cut:
            path.unlink()
        lost = shortfall(path, vouched, "checkpoint", fresh)
        again = Ledger.open(path, fresh, lost=lost, clock=machine.clock)
        assert (again.seconds, again.usd) == (pytest.approx(100), pytest.approx(200))
        assert "checkpoint" in {attempt.price_source for attempt in again.attempts}
        assert shortfall(path, vouched, "checkpoint", fresh) is None


def test_lost_time_without_a_price_stays_without_one(path):
    fresh = Attempt.starting("b", START, (0.0, OWN_MACHINE))
    lost = shortfall(path, Spent(60, 60, 0.0), "checkpoint", fresh)
    assert lost is not None
    assert (lost.seconds, lost.price_source) == (60, OWN_MACHINE)


def test_a_ledger_of_an_early_version_loads(path):
    path.parent.mkdir()
    early = {"attempt_id": "a", "started_at": START, "last_seen_at": START + 60, "machines": 1,
             "usd_per_hour": 3600, "price_source": "config"}  # fmt: skip
    path.write_text(json.dumps({"attempts": [early]}))
    machine = Machine(START + 90)
    ledger = open_ledger(path, machine, "b", usd_per_hour=3600)
    machine.runs(10)
    ledger.heartbeat()
    assert (ledger.seconds, ledger.usd) == (70, 80)


def test_spending_ahead_is_told_without_being_written(path):
    machine = Machine()
    ledger = open_ledger(path, machine)
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
        open_ledger(path, Machine())
    assert path.read_text() == damage


def test_a_field_of_the_wrong_type_is_damage(path):
    open_ledger(path, Machine())
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
    machine = Machine(START - 600)
    ledger = open_ledger(path, machine, source="environment")
    machine.runs(480)
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
