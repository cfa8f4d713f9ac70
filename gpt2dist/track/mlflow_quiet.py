"""MLflow's habits that have no place beside a training run: retries, telemetry, noise."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from gpt2dist.human import without_credentials

QUIET_ENVIRONMENT = {
    # By default a dead server is retried for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
NO_ANSWER = {"ConnectionRefusedError", "NewConnectionError", "NameResolutionError", "ReadTimeout"}
"Of urllib3 and requests, by name: they are imported only when MLflow is."


def quiet_mlflow() -> None:
    """Bounds MLflow's retries and turns its telemetry off, where the user did not say otherwise.

    Changes the process environment: to be called from the main thread, before MLflow is imported.
    """
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def quiet_client(uri: str) -> Any:  # mlflow.MlflowClient
    """Migrations report at INFO and locked databases with a traceback; we say it in one line."""
    from mlflow import MlflowClient

    for name, level in (
        ("mlflow", logging.CRITICAL),
        ("alembic", logging.WARNING),
        ("urllib3.connectionpool", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)
    return MlflowClient(tracking_uri=uri)


def one_line(error: Exception) -> str:
    """What went wrong, without the SQL, the stack of wrapped errors, or a password."""
    if any(type(cause).__name__ in NO_ANSWER for cause in _causes(error)):
        return "nobody answers there"
    text = " ".join(str(error).split(" [SQL:")[0].split())
    text = without_credentials(text) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
