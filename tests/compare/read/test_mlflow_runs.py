"""A run read from MLflow is the run read from its folder."""

from __future__ import annotations

import dataclasses

import pytest

from gpt2dist.compare.command import CompareRequest, read_runs
from gpt2dist.compare.read.run_folders import read_run
from gpt2dist.config.load import load_dumped
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.track.mlflow_log import MlflowTracker
from gpt2dist.track.mlflow_uri import default_uri

# MLflow 3.17 with SQLAlchemy 2.1: the `noload` strategy in MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


def track(folder, uri, ended, val_tokens_per_byte=None):
    tags = {"device": "NVIDIA A100-SXM4-80GB", "workers": "1", "price_source": "config",
            "val_tokens_per_byte": str(val_tokens_per_byte)}  # fmt: skip
    config = load_dumped(folder / "config.yaml")
    tracker = MlflowTracker(folder, config, uri, attempt_id="1", tags=tags)
    tracker.start()
    assert tracker.close(ended, deadline_seconds=300), tracker.trouble


def test_store_and_folder_tell_the_same_story(make, runs_dir):
    length = ("train.tokens=131072", "optim.warmup_steps=0")
    predicted = {"usd": 0.9, "hours": 0.3, "val_loss": 3.1}
    whole = make("whole", *length, predicted=predicted, val_tokens_per_byte=0.25)
    cut = make("cut", *length, "train.seed=1", curve=((1, 5.0), (8, 4.0)), ended="budget")
    uri = default_uri(runs_dir)
    track(whole, uri, "finished", val_tokens_per_byte=0.25)
    track(cut, uri, "finished")

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("gpt2dist")
    client.create_run(experiment.experiment_id, run_name="of another program")

    found = read_runs(CompareRequest(experiment="gpt2dist", runs_dir=str(runs_dir)))
    assert [run.name for run in found] == ["whole", "cut"]
    for run, folder in zip(found, (whole, cut)):
        expected = read_run(folder)
        for field in dataclasses.fields(run):
            if field.name != "where":
                assert getattr(run, field.name) == getattr(expected, field.name), field.name

    with pytest.raises(BadInput, match=r"no experiment 'other' .*gpt2dist"):
        read_runs(CompareRequest(experiment="other", runs_dir=str(runs_dir)))


def test_a_server_that_does_not_answer_is_named(runs_dir, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RunFailure, match=r"cannot read MLflow at http://127\.0\.0\.1:9") as failure:
        read_runs(CompareRequest(experiment="gpt2dist", runs_dir=str(runs_dir)))
    assert "secret" not in str(failure.value)
