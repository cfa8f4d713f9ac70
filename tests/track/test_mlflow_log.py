"""Against a real SQLite store; the server that does not answer is a closed port of this machine."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import sqlite3
import threading
import time
from dataclasses import replace

import pytest
import yaml

from gpt2dist.config.load import dump, resolve, to_tree
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.track.mlflow_log import MlflowTracker, sync
from gpt2dist.track.mlflow_uri import default_uri
from gpt2dist.track.rows import RowWriter

# MLflow 3.17 with SQLAlchemy 2.1: the `noload` strategy in MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

CONFIG = resolve("debug")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "runs" / "one"


@pytest.fixture
def uri(tmp_path):
    return default_uri(tmp_path / "runs")


def row(step, **values):
    return {
        "step": step,
        "tokens": step * 8192,
        "loss": 1 / step,
        "mfu": None,
        "time": 1.7e9 + step,
        **values,
    }


def train(run_dir, uri, steps, *, resume_step=None, attempt="1", config=CONFIG, **close):
    """An attempt that logs `steps`; returns what MLflow complained about, else None."""
    rows = RowWriter(run_dir / "metrics.jsonl", resume_step)
    tracker = MlflowTracker(run_dir, config, uri, attempt_id=attempt, tags={"device": "cpu"})
    tracker.start()
    for step in steps:
        rows.append(row(step))
    in_sync = tracker.close(**{"deadline_seconds": 120, **close})
    assert in_sync == (tracker.trouble is None)
    return tracker.trouble


def stored(run_dir, uri):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(json.loads((run_dir / "mlflow.json").read_text())["run_id"])
    return client, run


def history(run_dir, uri, key="loss"):
    client, run = stored(run_dir, uri)
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))


def test_a_run_arrives_with_rows_params_tags_and_status(run_dir, uri, tmp_path):
    assert train(run_dir, uri, range(1, 301)) is None
    client, run = stored(run_dir, uri)
    assert history(run_dir, uri) == [(step, 1 / step) for step in range(1, 301)]
    assert set(run.data.metrics) == {"tokens", "loss"}, "null is not a metric"
    assert run.data.params["optim.peak_lr"] == "0.002"
    assert (run.data.tags["device"], run.data.tags["recipe"]) == ("cpu", "debug")
    assert (run.info.status, run.info.run_name) == ("FINISHED", "one")
    assert client.get_experiment(run.info.experiment_id).name == "gpt2dist"
    assert json.loads((run_dir / "mlflow.json").read_text())["synced_step"] == 300
    assert not (tmp_path / "mlruns").exists()


def test_a_resumed_run_is_the_same_mlflow_run_and_no_step_is_doubled(run_dir, uri):
    train(run_dir, uri, range(1, 41), ended="interrupted")
    _, first = stored(run_dir, uri)
    assert first.info.status == "KILLED"
    other_place = replace(CONFIG, cluster=replace(CONFIG.cluster, cpu_workers=7))
    trouble = train(run_dir, uri, range(26, 61), resume_step=25, attempt="2", config=other_place)
    assert trouble is None
    client, second = stored(run_dir, uri)
    assert second.info.run_id == first.info.run_id
    assert len(client.search_runs([second.info.experiment_id])) == 1
    assert history(run_dir, uri) == [(step, 1 / step) for step in range(1, 61)]
    assert second.info.status == "FINISHED"
    assert second.data.params["cluster.cpu_workers"] == "2"
    assert json.loads(second.data.tags["placement.2"]) == {"cluster.cpu_workers": "7"}


def test_sync_changes_nothing_the_second_time(run_dir, uri):
    rows = RowWriter(run_dir / "metrics.jsonl", None)
    for step in range(1, 1201):
        rows.append(row(step, val_loss=2.0 if step % 100 == 0 else None))
    (run_dir / "config.yaml").write_text(dump(CONFIG))
    (run_dir / "summary.json").write_text('{"ended": "diverged"}')
    first = sync(run_dir, CONFIG, uri)
    assert (first.created, first.rows, first.last_step) == (True, 1200, 1200)
    assert first.artifacts == ["config.yaml", "summary.json"]
    second = sync(run_dir, CONFIG, uri)
    assert (second.created, second.rows, second.run_id) == (False, 0, first.run_id)
    assert second.status == "FAILED"
    assert len(history(run_dir, uri)) == 1200
    assert len(history(run_dir, uri, "val_loss")) == 12
    client, run = stored(run_dir, uri)
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"config.yaml", "summary.json"}


def test_what_a_run_came_to_and_what_was_predicted_are_metrics_of_its_last_step(run_dir, uri):
    rows = RowWriter(run_dir / "metrics.jsonl", None)
    rows.append(row(5))
    (run_dir / "config.yaml").write_text(dump(CONFIG))
    predicted = {"basis": "probe", "usd": 1.25, "hours": None}
    summary = {"ended": "finished", "steps": 5, "usd": 1.5, "seconds": 60, "predicted": predicted,
               "final_val_loss": 2.0, "best_val_loss": None}  # fmt: skip
    (run_dir / "summary.json").write_text(json.dumps(summary))
    sync(run_dir, CONFIG, uri)
    sync(run_dir, CONFIG, uri)
    for key, value in (("total_usd", 1.5), ("final_val_loss", 2.0), ("predicted_usd", 1.25)):
        assert history(run_dir, uri, key) == [(5, value)]
    _, run = stored(run_dir, uri)
    assert not {"best_val_loss", "predicted_hours"} & set(run.data.metrics)


def test_sync_fills_gaps(run_dir, uri):
    train(run_dir, uri, [10, 30])
    rows = RowWriter(run_dir / "metrics.jsonl", None)
    for step in (10, 20, 30):
        rows.append(row(step))
    assert sync(run_dir, CONFIG, uri).rows == 1
    assert [step for step, _ in history(run_dir, uri)] == [10, 20, 30]


def test_rows_written_while_workers_restart_are_followed(run_dir, uri):
    rows = RowWriter(run_dir / "metrics.jsonl", None)
    tracker = MlflowTracker(run_dir, CONFIG, uri, attempt_id="1", tags={})
    tracker.send_seconds = 0.02
    tracker.start()
    for resume_step in (None, 4, 8, 12):
        rows = RowWriter(run_dir / "metrics.jsonl", resume_step)
        for step in range((resume_step or 0) + 1, (resume_step or 0) + 7):
            rows.append(row(step))
    assert tracker.close()
    assert tracker.trouble is None
    assert history(run_dir, uri) == [(step, 1 / step) for step in range(1, 19)]


@pytest.mark.parametrize("how", ["deleted", "lost"])
def test_a_run_that_mlflow_no_longer_has_is_made_anew_with_all_its_rows(run_dir, uri, how):
    train(run_dir, uri, [1, 2])
    client, old = stored(run_dir, uri)
    if how == "deleted":
        client.delete_run(old.info.run_id)
    else:
        record = json.loads((run_dir / "mlflow.json").read_text())
        (run_dir / "mlflow.json").write_text(json.dumps({**record, "run_id": "0" * 32}))
    train(run_dir, uri, [3], resume_step=2, attempt="2")
    _, new = stored(run_dir, uri)
    assert new.info.run_id != old.info.run_id
    assert [step for step, _ in history(run_dir, uri)] == [1, 2, 3]


def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_dead_server_costs_one_line_and_no_time(run_dir, uri):
    dead = f"http://someone:secret@127.0.0.1:{closed_port()}"
    begin = time.monotonic()
    rows = RowWriter(run_dir / "metrics.jsonl", None)
    tracker = MlflowTracker(run_dir, CONFIG, dead, attempt_id="1", tags={})
    tracker.start()
    for step in range(1, 201):
        rows.append(row(step))
    assert time.monotonic() - begin < 3, "rows do not wait for MLflow"
    assert not tracker.close()
    assert "nobody answers there" in tracker.trouble
    assert "gpt2dist track sync" in tracker.trouble
    assert "secret" not in tracker.trouble
    with pytest.raises(RunFailure, match="nobody answers there") as failure:
        sync(run_dir, CONFIG, dead)
    assert "secret" not in str(failure.value)
    assert sync(run_dir, CONFIG, uri).rows == 200, "nothing was lost"


def test_a_locked_database_does_not_hold_up_the_end_of_training(run_dir, uri, tmp_path):
    train(run_dir, uri, [1])
    lock = sqlite3.connect(tmp_path / "runs" / "mlflow.db")
    lock.execute("BEGIN EXCLUSIVE")
    rows = RowWriter(run_dir / "metrics.jsonl", 1)
    tracker = MlflowTracker(run_dir, CONFIG, uri, attempt_id="2", tags={})
    tracker.start()
    rows.append(row(2))
    begin = time.monotonic()
    assert not tracker.close(deadline_seconds=0.5)
    assert time.monotonic() - begin < 2
    assert "did not answer within 0.5 s" in tracker.trouble
    lock.rollback()
    lock.close()
    assert tracker.close(deadline_seconds=30), "the thread goes on once the lock is gone"
    assert [step for step, _ in history(run_dir, uri)] == [1, 2]


def test_an_unusable_store_is_one_line(run_dir, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for uri in (f"sqlite:///{tmp_path}/file/mlflow.db", "gopher://host/x"):
        trouble = train(run_dir, uri, [1])
        assert trouble
        assert "\n" not in trouble


def test_trials_of_a_sweep_share_one_new_database(tmp_path, uri):
    folders = [tmp_path / "runs" / name for name in ("a", "b", "c")]
    troubles: list[str | None] = []
    threads = [
        threading.Thread(target=lambda at=folder: troubles.append(train(at, uri, [1, 2])))
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == [None, None, None]
    runs = {stored(folder, uri)[1].info.run_id for folder in folders}
    assert len(runs) == 3


def test_sync_wants_the_folder_of_a_run(tmp_path, uri):
    with pytest.raises(BadInput, match="no rows at"):
        sync(tmp_path / "nowhere", CONFIG, uri)


def files_with(secret, folder):
    """Every file below that holds these bytes; SQLite's pages are among them."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


def test_the_password_of_an_old_run_is_not_sent_on(run_dir, uri, tmp_path):
    """Earlier versions took it in `track.uri` and wrote it down; the next attempt has none."""
    old = replace(CONFIG, track=replace(CONFIG.track, uri="postgresql://me:hunter2@db/x"))
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(to_tree(old)))
    assert train(run_dir, uri, range(1, 4), config=old) is None
    again = {"resume_step": 3, "attempt": "2"}
    assert train(run_dir, uri, range(4, 6), **again) is None
    _, run = stored(run_dir, uri)
    assert run.data.params["track.uri"] == "postgresql://db/x"
    assert any((tmp_path / "runs" / "mlflow-artifacts").rglob("config.yaml"))
    assert files_with("hunter2", tmp_path) == ["config.yaml"]
    assert files_with("hunter2", run_dir) == ["config.yaml"]


def test_a_password_of_the_environment_reaches_the_server_and_no_file(run_dir, tmp_path, capfd):
    asked = []

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"])
            self.send_error(403)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        uri = f"http://me:hunter2@127.0.0.1:{server.server_port}"
        trouble = train(run_dir, uri, range(1, 4))
        with pytest.raises(RunFailure) as failure:
            sync(run_dir, CONFIG, uri)
        server.shutdown()
    assert asked[0] == "Basic " + base64.b64encode(b"me:hunter2").decode()
    said = f"{trouble} {failure.value} {''.join(capfd.readouterr())}"
    assert f"127.0.0.1:{server.server_port}" in said
    assert "hunter2" not in said
    assert files_with("hunter2", tmp_path) == []
