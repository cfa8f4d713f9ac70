"""Versions of what computed a run."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("torch", "deepspeed", "ray", "mlflow", "gpt2dist")


def versions() -> dict[str, str | None]:
    """Versions from the installed packages' metadata; nothing is imported. None: not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
