"""What the driver tells every rank of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpt2dist.config.schema import Config
from gpt2dist.plan.placement import Placement
from gpt2dist.track.attempts import Attempt


@dataclass(frozen=True)
class Job:
    """One attempt at a run; plain data, so that it travels."""

    config: Config
    placement: Placement
    run_dir: str
    dataset_dir: str
    attempt: Attempt
    "As far as the driver knows it: rank 0 counts the machines."
    use_ray: bool
    predicted: dict[str, Any] = field(default_factory=dict)
    "By the planner, before the run began."
    val_tokens_per_byte: float | None = None
    "Of the dataset, so that losses compare across tokenizers where the dataset is not at hand."
