"""What each dataset's published losses add to the law: the fit behind the package's offsets.

The package's table of published losses names the source of every run. Only finals of GPT-2-like
models trained with AdamW and a falling rate set an offset (`use` is "offset"); a loss read in the
middle of a schedule is no final and never does. `loss_accuracy.py --write` writes the result.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations_with_replacement

from gpt2dist.plan.loss.law import OVERTRAINED_POWER, effective_tokens, published_loss
from gpt2dist.plan.loss.offsets import Offset, far_from_published

MAD_TO_SIGMA = 1.4826
"Of a normal distribution."


@dataclass(frozen=True)
class PublishedLoss:
    id: str
    params: float
    tokens: float
    "Worth of all tokens seen, repeats discounted."
    dataset: str
    tokenizer: str
    loss: float
    "Final validation loss, nats per token."
    group: str
    "Runs of one hand: left out together when accuracy is measured."

    def above_law(self, power: float) -> float:
        return self.loss - published_loss(self.params, self.tokens, power)

    @property
    def far(self) -> str | None:
        return far_from_published(self.params, self.tokens)


def fit_offsets(
    rows: Sequence[PublishedLoss], power: float = OVERTRAINED_POWER
) -> dict[str, Offset]:
    """The offset of each dataset: the centre of its groups, so that no lone run moves it.

    The spread is that of all datasets together, or the dataset's own where that is larger.
    """
    above = {row: row.above_law(power) for row in rows}
    near = [row for row in rows if row.far is None]
    center = {name: _center(above, near, name) for name in sorted({row.dataset for row in near})}
    pooled = _rms([above[row] - center[row.dataset] for row in near])
    # At least the near spread: leaving rows out must never make far predictions surer.
    far_rows = [row for row in rows if row.far and row.dataset in center]
    far = max(pooled, _rms([above[row] - center[row.dataset] for row in far_rows]))
    fitted = {}
    for name, nats in center.items():
        mine = [row for row in near if row.dataset == name]
        groups = len({row.group for row in mine})
        own = MAD_TO_SIGMA * statistics.median(abs(above[row] - nats) for row in mine)
        fitted[name] = Offset(
            nats=nats,
            sigma=max(pooled, own) * math.sqrt(1 + 1 / groups),
            far_sigma=far * math.sqrt(1 + 1 / groups),
            runs=len(mine),
            groups=groups,
            tokenizer=mine[0].tokenizer,
            smallest_params=min(row.params for row in mine),
            largest_params=max(row.params for row in mine),
        )
    return fitted


@cache
def published_losses() -> tuple[PublishedLoss, ...]:
    """The runs that set offsets, as published."""
    with (
        files("gpt2dist.plan.loss").joinpath("published_losses.csv").open(encoding="utf-8") as file
    ):
        return tuple(
            PublishedLoss(
                id=row["id"],
                params=float(row["params"]),
                tokens=effective_tokens(
                    float(row["tokens"]),
                    float(row["unique_tokens"]) if row["unique_tokens"] else None,
                ),
                dataset=row["dataset"],
                tokenizer=row["tokenizer"],
                loss=float(row["loss"]),
                group=row["group"],
            )
            for row in csv.DictReader(file)
            if row["use"] == "offset"
        )


def _center(
    above: dict[PublishedLoss, float], rows: Sequence[PublishedLoss], dataset: str
) -> float:
    """Hodges and Lehmann's estimate over the groups: the median of the means of all pairs."""
    by_group: dict[str, list[float]] = {}
    for row in rows:
        if row.dataset == dataset:
            by_group.setdefault(row.group, []).append(above[row])
    groups = [statistics.median(group) for group in by_group.values()]
    return statistics.median((a + b) / 2 for a, b in combinations_with_replacement(groups, 2))


def _rms(errors: Sequence[float]) -> float:
    return math.sqrt(math.fsum(e * e for e in errors) / len(errors)) if errors else 0.0
