"""rented.sh, run for real on this machine: budget, deadline, bucket and what is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gpt2dist.launch.allowance import Allowance, Reserve

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = ROOT / "gpt2dist" / "launch" / "machine" / "deadline.sh"
RUN = "gpt2-124m-69e8053c"

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ("bash", "timeout", "setsid", "pkill")),
    reason="rented machines run Linux with coreutils, util-linux and procps",
)


@pytest.fixture
def machine(tmp_path):
    """A home and a working directory as SkyPilot leaves them; nothing of the bill is open."""
    home, workdir = tmp_path / "home", tmp_path / "home" / "sky_workdir"
    workdir.mkdir(parents=True)
    (workdir / "gpt2dist").symlink_to(ROOT / "gpt2dist")
    (home / ".gpt2dist").mkdir()
    (home / ".gpt2dist" / "accounted_until").write_text(f"{time.time():.0f}")
    return home


def environment(home: Path, **envs: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GPT2DIST_VENV": str(Path(sys.prefix)),
        "SKYPILOT_CLUSTER_INFO": json.dumps({"cluster_name": "c", "cloud": "RunPod"}),
        "SKYPILOT_NUM_NODES": "1",
        "SKYPILOT_NODE_RANK": "0",
        "RUN": RUN,
        "BUDGET_USD": "vast=1 runpod=15",
        "USD_PER_HOUR": "vast=0.4 runpod=1.39",
        "BUCKET": "",
        "DATA": "",
        "OVERRIDES": "",
        **envs,
    }


def rented(home: Path, command: str, **envs: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "gpt2dist/launch/machine/rented.sh", command],
        cwd=home / "sky_workdir",
        env=environment(home, **envs),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command_gets_price_budget_and_settings(machine):
    show = (
        'python -c "import json, os, sys; print(json.dumps([sys.argv[1:], '
        "os.environ['GPT2DIST_USD_PER_HOUR'], os.environ['GPT2DIST_BILLED_SINCE'],"
        "'HF_TOKEN' in os.environ]))\" "
        '"${overrides[@]}" budget.usd="$RUN_BUDGET_USD"'
    )
    settings = "train.tokens=1e9 data.source='my texts/*.txt'"
    done = rented(machine, show, OVERRIDES=settings, HF_TOKEN="")
    assert done.returncode == 0, done.stderr
    words, price, since, has_token = json.loads(done.stdout.splitlines()[-1])
    assert words[:2] == ["train.tokens=1e9", "data.source=my texts/*.txt"]
    assert words[2].startswith("budget.usd=")
    kept_s = Reserve(bucket=False).seconds
    assert float(words[2].split("=")[1]) == pytest.approx(15 - kept_s / 3600 * 1.39, abs=1e-3)
    assert price == "1.39"
    assert abs(float(since) - time.time()) < 120
    assert not has_token, "an empty secret must not reach programs as an empty token"


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_is_the_commands(machine, code):
    assert rented(machine, f"bash -c 'exit {code}'").returncode == code


def test_a_sweep_goes_on_from_the_bucket_with_what_earlier_machines_left(machine, tmp_path):
    """Its file names its folder; what its trials and its machines cost stands there."""
    (machine / "sky_workdir" / "tune").symlink_to(ROOT / "tune")
    there = tmp_path / "bucket" / "sweeps" / "mine"
    there.mkdir(parents=True)
    (there / "journal.jsonl").write_text('{"event": "sweep"}\n')
    attempt = {
        "attempt_id": "sweep-1",
        "started_at": 1_000.0,
        "last_seen_at": 19_000.0,
        "machines": 1,
        "usd_per_hour": 1.39,
        "price_source": "environment",
    }
    (there / "ledger.json").write_text(json.dumps({"attempts": [attempt]}))
    envs = {"SWEEP": "tune/debug.yaml", "OVERRIDES": "sweep.name=mine", "RUN": "",
            "BUCKET": str(tmp_path / "bucket")}  # fmt: skip
    done = rented(machine, 'touch "runs/$RUN/trial_of_mine"', **envs)
    assert done.returncode == 0, done.stderr
    assert "$6.95 of $15 spent" in done.stdout
    assert (there / "trial_of_mine").exists()
    refused = rented(machine, "true", **envs, BUDGET_USD="7")
    assert (refused.returncode, "$6.95 are spent" in refused.stderr) == (2, True)


def test_a_file_that_is_no_sweep_runs_nothing(machine):
    done = rented(machine, "touch started", SWEEP="tune/nothing.yaml", RUN="")
    assert done.returncode == 2
    assert "tune/nothing.yaml" in done.stderr
    assert not (machine / "sky_workdir" / "started").exists()


def test_a_spent_budget_runs_nothing(machine):
    done = rented(machine, "touch started", BUDGET_USD="0.2")
    assert done.returncode == 2
    assert "raise the budget" in done.stderr
    assert not (machine / "sky_workdir" / "started").exists()


def test_a_missing_price_runs_nothing(machine):
    done = rented(machine, "touch started", USD_PER_HOUR="gcp=3.67")
    assert (done.returncode, "USD_PER_HOUR" in done.stderr) == (2, True)
    assert not (machine / "sky_workdir" / "started").exists()


STUCK = """\
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time\\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\nwhile True: time.sleep(3600)"],
    process_group=0)
print(os.getpid(), child.pid, flush=True)
while True: time.sleep(3600)
"""


def within(folder: Path, seconds: int, grace: int, command: str) -> subprocess.CompletedProcess:
    script = f"source {DEADLINE}; within {seconds} {grace} {command}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def runs(pid: int) -> bool:
    """A zombie does not: it holds nothing open, and waits for process 1 to notice."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Popen(process_group=) is of 3.11")
def test_a_stuck_run_and_what_it_started_are_gone_at_the_deadline(tmp_path):
    """Both ignore SIGTERM; one is in another process group and holds the output open."""
    (tmp_path / "stuck.py").write_text(STUCK)
    done = within(tmp_path, 2, 1, "python stuck.py")
    assert done.returncode == 137, done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    assert not any(runs(pid) for pid in pids)


# Waits for the signal with it blocked: a handler could miss one that comes just before a sleep.
SAVES = """\
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
open("ready", "w").close()
signal.sigwait({signal.SIGTERM})
open("saved", "w").close()
sys.exit(143)
"""
BEATS = """\
import threading, time
def beat():
    while time.sleep(0.05) is None:
        open("runs/ledger.json", "w").write(str(time.time()))
threading.Thread(target=beat, daemon=True).start()
"""


def test_the_run_saves_when_it_is_told_to_stop(tmp_path):
    (tmp_path / "saves.py").write_text(SAVES)
    done = within(tmp_path, 2, 60, "python saves.py")
    assert done.returncode == 124, done.stderr
    assert (tmp_path / "saved").exists()


def test_a_signal_to_the_task_reaches_the_run(tmp_path):
    (tmp_path / "saves.py").write_text(SAVES)
    script = f"source {DEADLINE}; within 0 60 {sys.executable} saves.py"
    task = subprocess.Popen(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path)
    while not (tmp_path / "ready").exists():
        assert task.poll() is None
    task.terminate()
    assert task.wait(timeout=60) == 143
    assert (tmp_path / "saved").exists()


def test_a_run_without_rows_is_told_to_stop_and_may_save(machine):
    """Its ledger still beats, as a heartbeat beside a hanging step would."""
    hangs = SAVES.replace("signal.sigwait", f"{BEATS}signal.sigwait")
    (machine / "sky_workdir" / "saves.py").write_text(hangs)
    done = rented(machine, f"{sys.executable} saves.py", STALL_S="1")
    assert done.returncode == 143, done.stderr
    assert "the run has stalled and is ended; its last checkpoint stays" in done.stderr
    assert (machine / "sky_workdir" / "saved").exists()


def test_a_run_goes_on_from_the_bucket_and_returns_there_even_when_it_fails(machine, tmp_path):
    bucket = tmp_path / "bucket"
    (bucket / RUN).mkdir(parents=True)
    (bucket / RUN / "config.yaml").write_text("recipe: gpt2-124m\n")
    (bucket / RUN / "metrics.jsonl").write_text('{"step": 1}\n')
    more = f"bash -c 'echo {{\\\"step\\\": 2}} >> runs/{RUN}/metrics.jsonl; exit 1'"
    done = rented(machine, more, BUCKET=str(bucket))
    assert done.returncode == 1
    assert (bucket / RUN / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_the_last_upload_has_the_time_that_the_run_left(machine, tmp_path):
    """As `timeout` is told, through a stand-in that notes it: all of the budget but the end."""
    programs = tmp_path / "bin"
    programs.mkdir()
    noting = f'#!/bin/sh\necho "$@" >> {tmp_path}/limits\nexec {shutil.which("timeout")} "$@"\n'
    (programs / "timeout").write_text(noting)
    (programs / "timeout").chmod(0o755)
    (tmp_path / "bucket").mkdir()
    envs = {"BUCKET": str(tmp_path / "bucket"), "GRACE_S": "120", "UPLOAD_S": "1"}
    done = rented(machine, "true", **envs, PATH=f"{programs}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    last = (tmp_path / "limits").read_text().splitlines()[-1]
    assert "mirror push" in last
    reserve = Reserve(120, 1)
    whole_s = Allowance(15.0, 1.39, 0.0, reserve).deadline_s + 120 + 1
    assert whole_s - 120 < int(last.split()[1]) <= whole_s


def test_what_earlier_machines_spent_counts(machine, tmp_path):
    bucket = tmp_path / "bucket"
    (bucket / RUN).mkdir(parents=True)
    (bucket / RUN / "config.yaml").write_text("recipe: gpt2-124m\n")
    attempt = {
        "attempt_id": "1-a",
        "started_at": 1_000.0,
        "last_seen_at": 37_000.0,
        "machines": 1,
        "usd_per_hour": 1.39,
        "price_source": "environment",
    }
    (bucket / RUN / "ledger.json").write_text(json.dumps({"attempts": [attempt]}))
    done = rented(machine, "touch started", BUCKET=str(bucket), BUDGET_USD="14")
    assert done.returncode == 2
    assert "$13.90 are spent" in done.stderr


def test_a_run_goes_on_from_s3_on_another_machine(machine, tmp_path, s3):
    save = (
        f"bash -c 'mkdir -p runs/{RUN}/checkpoints/step-00000100 && cd runs/{RUN} && "
        "echo recipe: gpt2-124m > config.yaml && echo weights > checkpoints/step-00000100/w && "
        "echo {} > checkpoints/step-00000100/state.json'"
    )
    envs = {**s3, "BUCKET": "s3://mine/runs"}
    done = rented(machine, save, **envs)
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other"
    (other / "sky_workdir").mkdir(parents=True)
    (other / "sky_workdir" / "gpt2dist").symlink_to(ROOT / "gpt2dist")
    shutil.copytree(machine / ".gpt2dist", other / ".gpt2dist")
    done = rented(other, f"cat runs/{RUN}/checkpoints/step-00000100/w", **envs)
    assert done.returncode == 0, done.stderr
    assert "continued from s3://mine/runs" in done.stdout
    assert "weights" in done.stdout


@pytest.mark.parametrize(
    ("bucket", "environ"),
    [
        ("s3://mine-misspelt/runs", {}),
        ("/proc/runs", {}),
        ("s3://mine", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
    ],
)
def test_a_bucket_that_takes_nothing_is_found_before_there_is_work_to_lose(
    machine, s3, bucket, environ
):
    done = rented(machine, "touch started", **{**s3, "BUCKET": bucket, **environ})
    assert done.returncode in (1, 2), done.stderr
    assert bucket in done.stderr
    assert not (machine / "sky_workdir" / "started").exists()


def test_prepared_shards_are_fetched_and_used(machine, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "manifest.json").write_text("{}")
    done = rented(machine, 'echo "${overrides[@]}"', DATA=str(shards))
    assert done.stdout.splitlines()[-1] == "paths.dataset=data/shards"
    assert (machine / "sky_workdir" / "data" / "shards" / "manifest.json").exists()


def test_the_next_run_on_the_machine_is_not_charged_for_this_one(machine):
    mark = machine / ".gpt2dist" / "accounted_until"
    mark.write_text("1000")  # so this one pays since the boot, however long ago that was
    done = rented(machine, "true", BUDGET_USD="1000000")
    assert done.returncode == 0, done.stderr
    assert abs(float(mark.read_text()) - time.time()) < 120


def test_the_bill_begins_when_process_one_did():
    from gpt2dist.launch.machine.allot import _booted_at

    assert _booted_at() == pytest.approx(psutil.Process(1).create_time(), abs=2)


def test_the_same_lock_is_not_installed_twice(tmp_path):
    """The stamp is of these very files; without one, the installer that PATH lacks is asked for."""
    locked = b"".join((ROOT / name).read_bytes() for name in ("constraints.txt", "pyproject.toml"))
    venv = tmp_path / "venv"
    venv.mkdir()
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GPT2DIST_VENV": str(venv)}
    words = ["bash", str(ROOT / "gpt2dist" / "launch" / "machine" / "setup.sh")]
    (tmp_path / ".local" / "bin").mkdir(parents=True)
    uv = tmp_path / ".local" / "bin" / "uv"
    uv.write_text('#!/bin/sh\necho "$@" >> "$HOME/uv_calls"\n')
    uv.chmod(0o755)
    (venv / f".installed-{hashlib.sha256(locked).hexdigest()[:16]}").touch()
    assert subprocess.run(words, env=environ, check=False).returncode == 0
    assert not (tmp_path / "uv_calls").exists()
    for stamp in venv.glob(".installed-*"):
        stamp.rename(venv / ".installed-0000000000000000")
    for _ in range(2):
        assert subprocess.run(words, env=environ, check=False).returncode == 0
    calls = (tmp_path / "uv_calls").read_text().splitlines()
    assert len([call for call in calls if "--constraint constraints.txt" in call]) == 1
