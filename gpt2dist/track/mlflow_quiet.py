"""MLflow's habits that have no place beside a training run: long retries, telemetry, log noise."""

from __future__ import annotations

import logging
import os

QUIET_ENVIRONMENT = {
    # By default a dead server is retried for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def quiet_mlflow() -> None:
    """Bounds MLflow's retries and turns its telemetry off, where the user did not say otherwise.

    Changes the process environment: to be called from the main thread, before MLflow is imported.
    """
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def silence_loggers() -> None:
    """Migrations report at INFO and locked databases with a traceback; we say it in one line."""
    for name, level in (
        ("mlflow", logging.CRITICAL),
        ("alembic", logging.WARNING),
        ("urllib3.connectionpool", logging.ERROR),
    ):
        logging.getLogger(name).setLevel(level)
