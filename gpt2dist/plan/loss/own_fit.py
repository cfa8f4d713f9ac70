"""The scaling law of a user's own runs, kept as one JSON file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from gpt2dist.disk import write_atomically
from gpt2dist.errors import BadInput
from gpt2dist.plan.loss.law import Law

OWN_FIT_FILE = "scaling_fit.json"
"""Beside the runs that it was fitted on."""

FORMAT = 1


@dataclass(frozen=True)
class OwnFit:
    """loss = E + A / N^alpha + B / D^beta over the user's own finals on the user's own text."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    spread: float
    "Standard deviation of the runs around the law, nats per token."
    runs: int
    made: str
    "When, and from which runs."

    @property
    def law(self) -> Law:
        return Law(self.E, self.A, self.alpha, self.B, self.beta, source=f"own fit, {self.made}")


def load_own_fit(path: Path) -> OwnFit | None:
    """The fit in `path`, None where there is no such file; raises BadInput on a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no scaling fit ({error}); delete it or fit again") from None
    names = {field.name for field in fields(OwnFit)}
    if not isinstance(content, dict) or set(content) != names | {"format"}:
        raise BadInput(f"{path} does not hold the fields of a scaling fit; delete it or fit again")
    if content.pop("format") != FORMAT:
        raise BadInput(f"{path} was written by another version of gpt2dist; fit again")
    for name, value in content.items():
        if not _fits(name, value):
            raise BadInput(f"{path}: {name}={value!r} is impossible; delete the file or fit again")
    return OwnFit(**content)


def save_own_fit(path: Path, fit: OwnFit) -> None:
    """Writes the file whole or not at all; raises RunFailure when the disk refuses."""
    content = {"format": FORMAT, **asdict(fit)}
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def _fits(name: str, value: object) -> bool:
    if name == "made":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    if name == "runs":
        return isinstance(value, int) and value >= 1
    return value >= 0 if name in ("E", "spread") else value > 0
