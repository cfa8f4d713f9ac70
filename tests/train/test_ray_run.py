"""One run of two Ray workers that is stopped, loses its driver, and then loses a worker.

Ray starts three times for all tests of this file, because each start takes many seconds.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.train.command import (
    BATCH_TOKENS,
    LEARNED,
    TINY,
    Command,
    Program,
    last_step,
    learned,
    reachable_from_elsewhere,
    rows_of,
    summary_of,
    wait_until,
)
from tests.train.story import mlflow_faults

pytestmark = pytest.mark.slow
STEPS = 300
# Dropout draws differ between one worker and two, so it would hide what is compared here.
SAME_RUN = [*TINY, "model.dropout=0", f"train.tokens={STEPS * BATCH_TOKENS}"]


@dataclass(frozen=True)
class Story:
    """What was seen on the way; the run's folder shows the rest."""

    run_dir: Path
    local_dir: Path
    reachable_from_elsewhere: list[str]
    stopped_code: int | None
    stopped_step: int
    mlflow_id: str
    mlflow_id_after_kill: str
    worker_killed_after_step: int
    final_code: int | None
    notes: list[str]
    left_over: list[str]


@pytest.fixture(scope="module")
def story(tmp_path_factory, shards, request) -> Story:
    def drive_to(step: int) -> Program:
        driver = Program(runs, *words)
        request.addfinalizer(driver.process.kill)  # should the story break off
        wait_until(lambda: last_step(run_dir) >= step, driver.is_alive)
        return driver

    runs = tmp_path_factory.mktemp("ray-runs")
    local = ["train", "debug", "--local", *SAME_RUN, f"data.source={shards}", "--name", "local"]
    reference = Command(runs, *local, f"paths.runs={runs}")
    words = ["train", "debug", *SAME_RUN, "cluster.workers=2", "cluster.micro_batch=1",
             f"data.source={shards}", f"paths.runs={runs}", "--name", "ray",
             f"track.uri=sqlite:///{runs / 'mlflow.db'}"]  # fmt: skip
    run_dir = runs / "ray"

    stopped = drive_to(30)
    reachable = reachable_from_elsewhere(stopped.family())
    stopped.process.send_signal(signal.SIGTERM)
    stopped_code = stopped.wait()
    stopped_step = summary_of(run_dir)["resume_step"]
    mlflow_id = json.loads((run_dir / "mlflow.json").read_text())["run_id"]

    killed = drive_to(110)
    killed.process.kill()
    killed.wait()
    mlflow_id_after_kill = json.loads((run_dir / "mlflow.json").read_text())["run_id"]

    last = drive_to(190)
    worker_killed_after_step = last_step(run_dir)
    worker = last.worker(run_dir, rank_0=False)
    assert worker is not None
    worker.kill()
    final_code = last.wait()
    print(last.said)

    reference.ends_with(0)
    events = map(json.loads, (run_dir / "events.jsonl").read_text().splitlines())
    return Story(
        run_dir,
        runs / "local",
        reachable,
        stopped_code,
        stopped_step,
        mlflow_id,
        mlflow_id_after_kill,
        worker_killed_after_step,
        final_code,
        [event["note"] for event in events if "note" in event],
        [*stopped.left_over(), *killed.left_over(), *last.left_over()],
    )


def test_sigterm_saves_and_exits_143(story):
    assert story.stopped_code == 143
    assert 30 <= story.stopped_step < 110
    continued = [note for note in story.notes if note.startswith("continuing from")]
    assert continued[0].startswith(f"continuing from step-{story.stopped_step:08d}")


def test_nobody_else_reaches_a_run_but_the_store_of_rank_0(story):
    """Torch's TCPStore listens at every address, and cannot be told not to."""
    assert ["RayTrainWorker" in words for words in story.reachable_from_elsewhere] == [True]


def test_a_run_that_lost_a_worker_finishes_by_itself(story):
    assert story.worker_killed_after_step < STEPS
    assert story.final_code == 0
    # Once after the stop, once after the driver's end, once after the worker's.
    assert sum(note.startswith("continuing from") for note in story.notes) == 3
    summary = summary_of(story.run_dir)
    assert (summary["ended"], summary["workers"], summary["zero_stage"]) == ("finished", 2, 1)
    assert summary["attempts"] == 3  # the lost worker is no new attempt: the machine went on


def test_no_row_is_lost_or_doubled(story):
    assert [row["step"] for row in rows_of(story.run_dir)] == list(range(5, STEPS + 1, 5))


def test_two_ray_workers_learn_what_one_local_process_learns(story):
    """Ray Data against mapped memory, two ranks against one, three resumes against none."""
    assert summary_of(story.run_dir)["identity"] == summary_of(story.local_dir)["identity"]
    for ray, local in zip(learned(story.run_dir), learned(story.local_dir), strict=True):
        for key, there, here in zip(LEARNED, ray, local):
            close = here if here is None else pytest.approx(here, rel=1e-3, abs=1e-6)
            if key in ("loss", "val_loss") and here is not None:
                close = pytest.approx(here, abs=1e-5)
            assert there == close, f"{key} at step {local[0]}"


def test_mlflow_has_one_run_and_one_point_per_row(story):
    settled = json.loads((story.run_dir / "mlflow.json").read_text())["run_id"]
    assert story.mlflow_id == story.mlflow_id_after_kill == settled
    assert mlflow_faults(story.run_dir) == []


def test_no_process_of_ray_stays(story):
    assert story.left_over == []
