"""Where MLflow keeps its records, and the command that shows them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.human import without_credentials

URI_VARIABLE = "MLFLOW_TRACKING_URI"
SERVERS = ("http", "https", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"Also with a driver, as in `mysql+pymysql`."


def default_uri(runs_dir: Path) -> str:
    """A SQLite database beside the runs: no server, no account."""
    return f"sqlite:///{Path(runs_dir).resolve()}/mlflow.db"


def tracking_uri(config: Config, environ: Mapping[str, str]) -> str:
    """`track.uri`, else $MLFLOW_TRACKING_URI, else SQLite beside the runs; BadInput if unusable."""
    if config.track.uri:
        uri, name = config.track.uri, "track.uri"
    elif environ.get(URI_VARIABLE):
        uri, name = environ[URI_VARIABLE], URI_VARIABLE
    else:
        return default_uri(Path(config.paths.runs))
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme not in SERVERS + DATABASES and uri != "databricks":
        raise BadInput(
            f"{name}={without_credentials(uri)} is no place MLflow can write to; use "
            "http://HOST:PORT of a server, or sqlite:////ABSOLUTE/PATH/mlflow.db"
        )
    return uri


def sqlite_folder(uri: str) -> Path | None:
    """The folder that holds a SQLite database; None for any other URI."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").split("?")[0]).resolve().parent


def ui_command(uri: str, port: int = 5000) -> list[str]:
    """The command behind `gpt2dist ui`, reachable from this machine only.

    A URI with a password is left out, since anyone can list a command's arguments: start the
    command with `ui_environment(uri)`. Raises BadInput when `uri` is a server already.
    """
    if uri.split("://")[0] in SERVERS:
        raise BadInput(f"MLflow runs at {without_credentials(uri)} already; open it in a browser")
    command = [sys.executable, "-m", "mlflow", "ui"]
    if without_credentials(uri) == uri:
        command += ["--backend-store-uri", uri]
    folder = sqlite_folder(uri)
    if folder is not None:
        # Otherwise uploads through this server land in the folder it was started from.
        command += ["--artifacts-destination", str(folder / "mlflow-artifacts")]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


def ui_environment(uri: str) -> dict[str, str]:
    """Variables to add to the environment of `ui_command`."""
    return {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
