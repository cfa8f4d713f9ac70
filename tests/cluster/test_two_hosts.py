"""One Ray cluster over two hosts: it trains what one host trains, and leaves nothing behind.

Ray is started three times for all tests of this file, because each start takes seconds.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpt2dist.run_files import checkpoint_folders, step_of
from gpt2dist.track.attempts import read_attempts
from tests.cluster.hosts import ADDRESSES, Host, Program, TwoHosts, why_not
from tests.train.command import (
    BATCH_TOKENS,
    LEARNED,
    TINY,
    Command,
    last_step,
    learned,
    summary_of,
    wait_until,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]

COMPARED_STEPS = 30
# Dropout draws differ between one worker and two, so it would hide what is compared here.
RECIPE = [*TINY, "model.dropout=0", f"train.tokens={100_000 * BATCH_TOKENS}", "zero.stage=1",
          "track.every_steps=1", "eval.every_steps=10", "cluster.cpu_workers=2",
          "cluster.micro_batch=1"]  # fmt: skip
# Ray otherwise takes a minute to miss a machine that says nothing.
SOON_MISSED = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000",
               "RAY_health_check_failure_threshold": "3"}  # fmt: skip
# What SkyPilot's own Ray and an ordinary one occupy on a machine.
TAKEN_PORTS = (6379, 6380, 8076, 8265, 8266, 10001, 52365)
OCCUPY = f"""
import signal, socket
held = [socket.create_server(("", port)) for port in {TAKEN_PORTS}]
signal.pause()
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("two-hosts")


@pytest.fixture(scope="module")
def hosts(scratch) -> Iterator[TwoHosts]:
    pair = TwoHosts(scratch)
    yield pair
    pair.end()


@dataclass(frozen=True)
class Cluster:
    """How to start the script on a host."""

    script: str
    environment: dict[str, str]

    def start(self, host: Host, *command: str, **settings: str) -> Program:
        variables = {
            "SKYPILOT_NODE_RANK": str(host.rank),
            "SKYPILOT_NUM_NODES": "2",
            "SKYPILOT_NODE_IPS": "\n".join(ADDRESSES),
            "SKYPILOT_NUM_GPUS_PER_NODE": "0",
            "RAY_CLUSTER_CPUS": "2",  # one for a worker, one for its data
        }
        words = [self.script, *command]
        return host.start(words, {**self.environment, **variables, **settings})


@pytest.fixture(scope="module")
def cluster(script, environment) -> Cluster:
    return Cluster(script, environment)


@dataclass(frozen=True)
class Story:
    together: Path
    alone: Path
    codes: tuple[int, int]
    logs: tuple[str, str]
    left_over: list[str]


@pytest.fixture(scope="module")
def story(hosts, cluster, scratch, letters) -> Story:
    """Both hosts train, are stopped by a signal to rank 0, and are looked at afterwards."""
    occupied = [host.start(["python3", "-c", OCCUPY], cluster.environment) for host in hosts]
    train = ["train", "debug", *RECIPE, f"data.source={letters}", f"paths.runs={scratch}",
             "track.mlflow=false"]  # fmt: skip
    reference = Command(
        scratch, *train, "--local", "--name", "alone", "cluster.micro_batch=2",
        f"budget.tokens={COMPARED_STEPS * BATCH_TOKENS}",
    )  # fmt: skip

    words = ["gpt2dist", *train, "--name", "together"]
    programs = [cluster.start(host, *words) for host in hosts]
    wait_until(lambda: last_step(scratch / "together") >= COMPARED_STEPS, programs[0].is_alive)
    programs[0].send_signal(signal.SIGTERM)
    codes = (programs[0].ends(), programs[1].ends())
    for program in occupied:
        program.send_signal(signal.SIGTERM)
        program.ends()
    reference.ends_with(0)
    return Story(
        scratch / "together",
        scratch / "alone",
        codes,
        (programs[0].log, programs[1].log),
        hosts.processes(),
    )


def test_both_hosts_train_and_are_paid_for(story):
    """Also: no port that SkyPilot's Ray or an ordinary one holds is needed."""
    assert f"2 of 2 nodes are up at {ADDRESSES[0]}:" in story.logs[0]
    summary = summary_of(story.together)
    assert (summary["workers"], summary["machines"], summary["zero_stage"]) == (2, 2, 1)


def test_two_hosts_learn_what_one_process_learns(story):
    assert summary_of(story.together)["identity"] == summary_of(story.alone)["identity"]
    together, alone = learned(story.together), learned(story.alone)
    assert len(alone) == COMPARED_STEPS
    for row, expected in zip(together, alone):
        for key, there, here in zip(LEARNED, row, expected):
            close = here if here is None else pytest.approx(here, rel=1e-5)
            assert there == close, f"{key} at step {expected[0]}"


def test_sigterm_saves_the_run_before_ray_goes(story):
    assert story.codes == (143, 0)
    summary = summary_of(story.together)
    assert (summary["ended"], summary["reason"]) == ("interrupted", "SIGTERM")
    step = summary["resume_step"]
    assert step >= COMPARED_STEPS
    state = story.together / "checkpoints" / f"step-{step:08d}" / "state.json"
    assert json.loads(state.read_text())["state"]["step"] == step
    assert "the head has left" in story.logs[1]


def test_nothing_stays_on_either_host(story):
    assert story.left_over == []
    assert not [path.name for path in story.together.iterdir() if path.name.startswith(".ray")]


def test_a_missing_node_is_named_at_the_deadline(hosts, cluster):
    first, second = hosts
    early = cluster.start(second, "true", RAY_CLUSTER_WAIT_S="1")
    assert early.ends() == 1
    assert f"rank 1 ({ADDRESSES[1]}): no Ray head at {ADDRESSES[0]}:6390 after 1 s" in early.log
    lonely = cluster.start(first, "true", RAY_CLUSTER_WAIT_S="1")
    assert lonely.ends() == 1
    assert f"1 of 2 nodes missing after 1 s: {ADDRESSES[1]} (rank 1)\n" in lonely.log
    assert hosts.processes() == []


def test_a_head_that_is_killed_takes_everything_down(hosts, cluster, scratch):
    sign = scratch / "command-runs"
    words = ["bash", "-c", f"touch {sign}; exec sleep 1000"]
    programs = [cluster.start(host, *words) for host in hosts]
    wait_until(sign.exists, programs[0].is_alive)
    programs[0].send_signal(signal.SIGKILL)
    assert (programs[0].ends(), programs[1].ends()) == (-signal.SIGKILL, 0)
    wait_until(lambda: hosts.processes() == [])


def test_a_run_that_lost_a_machine_ends_at_the_deadline(cluster, scratch, letters, request):
    """Not after an endless wait: the machine is named, every second paid, the checkpoint kept."""
    hosts = TwoHosts(scratch)
    request.addfinalizer(hosts.end)
    first, second = hosts
    run_dir, join_s = scratch / "lonely", 3.0
    words = ["gpt2dist", "train", "debug", *RECIPE, f"data.source={letters}",
             f"paths.runs={scratch}", "track.mlflow=false", "--name", run_dir.name,
             f"cluster.join_minutes={join_s / 60}", "cluster.usd_per_hour=3600"]  # fmt: skip
    # The machine that stays has no room for both workers.
    cpus = ({"RAY_CLUSTER_CPUS": "1"}, {"RAY_CLUSTER_CPUS": "3"})
    programs = [cluster.start(host, *words, **SOON_MISSED, **n) for host, n in zip(hosts, cpus)]
    wait_until(lambda: checkpoint_folders(run_dir), programs[0].is_alive)
    lost_at = time.time()
    second.lose_power()
    programs[1].ends()
    code = programs[0].ends()
    ended_at = time.time()

    assert code == 75, programs[0].log
    summary = summary_of(run_dir)
    assert (summary["ended"], summary["machines"]) == ("interrupted", 2)
    found = re.fullmatch(
        rf"no place for 2 workers within cluster.join_minutes=0.05: machine {second.address} "
        rf"\({second.name}\), last seen at (.*), is gone",
        summary["reason"],
    )
    assert found, summary["reason"]
    last_seen = time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S"))
    assert lost_at - 2 <= last_seen <= ended_at - join_s
    attempts = read_attempts(run_dir / "ledger.json")
    assert lost_at + join_s <= attempts[-1].last_seen_at <= ended_at
    # Both machines, a dollar per second each; the one that is gone may be billed all the same.
    assert summary["usd"] == pytest.approx(2 * summary["seconds"])
    assert summary["resume_step"] == step_of(checkpoint_folders(run_dir)[0])
    assert "the same command continues this run" in programs[0].log
    assert first.processes() == []
