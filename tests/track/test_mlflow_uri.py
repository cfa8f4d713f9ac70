from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpt2dist.config.schema import Config, PathsConfig, TrackConfig
from gpt2dist.errors import BadInput
from gpt2dist.track.mlflow_uri import (
    default_uri,
    sqlite_folder,
    tracking_uri,
    ui_command,
    ui_environment,
    without_credentials,
)

ENVIRON = {"MLFLOW_TRACKING_URI": "http://tracking:5000"}


def test_config_then_environment_then_a_database_beside_the_runs(tmp_path):
    config = Config(paths=PathsConfig(runs=str(tmp_path)))
    named = replace(config, track=TrackConfig(uri="https://mine"))
    assert tracking_uri(named, ENVIRON) == "https://mine"
    assert tracking_uri(config, ENVIRON) == "http://tracking:5000"
    assert tracking_uri(config, {}) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    assert sqlite_folder(default_uri(tmp_path)) == tmp_path.resolve()


def test_the_default_does_not_depend_on_the_folder_a_process_runs_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_uri(Path("runs")) == default_uri(tmp_path / "runs")


@pytest.mark.parametrize("uri", ["runs/mlruns", "file:///data", "gopher://x", "localhost:5000"])
def test_a_place_mlflow_cannot_write_to_is_named(uri):
    with pytest.raises(BadInput, match=r"track\.uri=.*sqlite:////ABSOLUTE"):
        tracking_uri(Config(track=TrackConfig(uri=uri)), {})


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:s3cret@host:5000/a", "https://host:5000/a"),
        ("https://token@host", "https://host"),
        ("postgresql+psycopg://u:p@ss@db/x?sslpassword=s", "postgresql+psycopg://db/x"),
        ("error at http://u:p@host/x now", "error at http://host/x now"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_credentials_are_never_shown(uri, shown):
    assert without_credentials(uri) == shown


def test_the_ui_listens_on_this_machine_only():
    command = ui_command("sqlite:////data/mlflow.db", port=5001)
    assert command[1:4] == ["-m", "mlflow", "ui"]
    assert " ".join(command[4:]) == (
        "--backend-store-uri sqlite:////data/mlflow.db "
        "--artifacts-destination /data/mlflow-artifacts "
        "--host 127.0.0.1 --port 5001 --workers 1"
    )


def test_a_password_goes_through_the_environment():
    uri = "postgresql://me:s3cret@db/x"
    assert "s3cret" not in " ".join(ui_command(uri))
    assert ui_environment(uri)["MLFLOW_BACKEND_STORE_URI"] == uri


def test_a_server_needs_no_second_one():
    with pytest.raises(BadInput, match="open it in a browser"):
        ui_command("https://tracking.example")
