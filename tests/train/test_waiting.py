"""The driver's watch while no worker trains: the budget, a stop, and the deadline to join."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.plan.placement import Machine, place
from gpt2dist.run_files import read_outcome, request_stop
from gpt2dist.track.attempts import Attempt, Clock
from gpt2dist.track.ledger import Account, Ledger
from gpt2dist.train.job import Job
from gpt2dist.train.waiting import Waiting
from gpt2dist.train.watch import Stage

HOSTS = {"10.0.0.1": "host-a", "10.0.0.2": "host-b"}
WITHOUT_B = {"10.0.0.1": "host-a"}


class Story:
    """A run on two machines of a dollar per second each, on a clock that the test sets."""

    def __init__(self, run_dir: Path, *settings: str) -> None:
        self.now, self.notes = 0.0, list[str]()
        self.run_dir = run_dir
        words = ["cluster.device=cpu", "cluster.cpu_workers=2", *settings]
        config = resolve("debug", words)
        attempt = replace(Attempt.starting("attempt", 1_000.0, (3600.0, "config")), machines=2)
        clock = Clock(unix=self.unix, steady=lambda: self.now, boot=None)
        self.ledger = Ledger.open(run_dir / "ledger.json", attempt, clock=clock)
        placement = place(config, Machine(0, "", None, False, 2, False))
        job = Job(config, placement, str(run_dir), "", attempt, True)
        self.waiting = Waiting(
            job, self.ledger, self.notes.append, clock=lambda: self.now, unix_time=self.unix
        )

    def unix(self) -> float:
        return 1_000.0 + self.now

    def is_over_at(self, now: float, machines: dict[str, str], stage: Stage, placed: bool) -> bool:
        self.now = now
        return self.waiting.is_over(machines, stage, placed)


def test_a_machine_that_is_gone_ends_the_run_after_the_minutes_to_join(tmp_path):
    story = Story(tmp_path, "cluster.join_minutes=10")
    assert not story.is_over_at(60, HOSTS, "training", placed=True)
    assert not story.is_over_at(100, WITHOUT_B, "waiting", placed=False)
    last_seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1_060))
    missing = f"machine 10.0.0.2 (host-b), last seen at {last_seen}, is gone"
    assert story.notes == [missing]
    assert not story.is_over_at(700, WITHOUT_B, "waiting", placed=False)
    assert read_outcome(tmp_path) is None
    assert story.is_over_at(701, WITHOUT_B, "waiting", placed=False)
    assert read_outcome(tmp_path) == {
        "kind": "interrupted",
        "reason": f"no place for 2 workers within cluster.join_minutes=10: {missing}",
        "exit_code": 75,
    }
    assert Account.read(tmp_path / "ledger.json").usd == pytest.approx(2 * 701)
    assert story.notes == [missing]


def test_each_wait_has_its_own_minutes(tmp_path):
    story = Story(tmp_path, "cluster.join_minutes=10")
    waits = {"stage": "waiting", "placed": False}
    assert not story.is_over_at(0, WITHOUT_B, **waits)
    assert not story.is_over_at(500, HOSTS, "waiting", placed=True)
    assert not story.is_over_at(550, WITHOUT_B, **waits)
    assert not story.is_over_at(1_150, WITHOUT_B, **waits)
    assert story.is_over_at(1_151, WITHOUT_B, **waits)


def test_a_cluster_that_is_full_is_called_full(tmp_path):
    story = Story(tmp_path, "cluster.join_minutes=1")
    assert not story.is_over_at(0, HOSTS, "waiting", placed=False)
    assert story.is_over_at(61, HOSTS, "waiting", placed=False)
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert outcome["reason"].endswith(": other work takes their place on 10.0.0.1, 10.0.0.2")


@pytest.mark.parametrize("stage", ["waiting", "starting"])
def test_the_budget_ends_while_no_worker_trains(tmp_path, stage):
    story = Story(tmp_path, "budget.usd=100")
    assert not story.is_over_at(49.9, HOSTS, stage, placed=True)
    assert story.is_over_at(50.1, HOSTS, stage, placed=True)
    outcome = read_outcome(tmp_path)
    assert outcome is not None
    assert (outcome["kind"], outcome.get("exit_code", 0)) == ("budget", 0)
    assert outcome["reason"] == "budget.usd=100.00: $100.20 spent, already past it"


def test_a_stop_ends_the_wait_and_is_left_to_workers_that_train(tmp_path):
    story = Story(tmp_path)
    request_stop(tmp_path, "SIGTERM")
    assert not story.is_over_at(1, HOSTS, "training", placed=True)
    assert read_outcome(tmp_path) is None
    assert story.is_over_at(2, HOSTS, "waiting", placed=False)
    assert read_outcome(tmp_path) == {"kind": "interrupted", "reason": "SIGTERM"}
