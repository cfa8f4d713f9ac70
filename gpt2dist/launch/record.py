"""The record of one launch, beside its task file: what was rented, for how much, for which plan."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt2dist.disk import write_atomically
from gpt2dist.errors import BadInput

FOLDER = "launches"


@dataclass(frozen=True)
class LaunchRecord:
    """Holds no secret: those reach the machine from the environment, by name."""

    name: str
    task_file: str
    command: tuple[str, ...]
    managed: bool
    "A managed job, which SkyPilot recovers after a preemption; else a cluster."
    recipe: str
    run: str
    "Name of the run's folder."
    provider: str
    instance: str
    gpu: str
    gpus: int
    "Per machine."
    nodes: int
    region: str
    spot: bool
    usd_per_hour: float
    "Of one machine, at launch."
    price_source: str
    budget_usd: float
    bucket: str | None
    launched_at: str
    "UTC, ISO 8601."
    plan: dict[str, Any] = field(repr=False)
    exit_code: int | None = None
    "Of the sky command; None while it runs, or after it was killed."

    def write(self, runs: Path) -> None:
        folder = runs / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, default=str) + "\n"
        write_atomically(folder / f"{self.name}.json", text)

    def ended(self, exit_code: int) -> LaunchRecord:
        return replace(self, exit_code=exit_code)


def read_record(runs: Path, name: str) -> LaunchRecord:
    """Raises BadInput, naming the launches there are."""
    path = runs / FOLDER / f"{name}.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return LaunchRecord(**{**tree, "command": tuple(tree["command"])})
    except FileNotFoundError:
        known = ", ".join(names(runs)) or "none yet"
        raise BadInput(f"no launch {name!r} in {runs / FOLDER}; there are: {known}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path} is no launch record ({error}); remove it") from None


def names(runs: Path) -> list[str]:
    """Names of all launches recorded below a runs folder."""
    return sorted(path.stem for path in (runs / FOLDER).glob("*.json"))
