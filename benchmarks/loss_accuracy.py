"""How far off are loss predictions for published runs that the offsets have not seen?

    python benchmarks/loss_accuracy.py [--write]

Every group of runs (one hand, or one model size of the open_lm sweep) is left out in turn; offset,
worth of over-training and interval are taken from the others, and its finals are predicted.
`--write` puts the tables into docs/planner-loss.md and the offsets into the package; a test
compares both.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from loss_offsets import PublishedLoss, fit_offsets, published_losses

from gpt2dist.plan.loss import offsets
from gpt2dist.plan.loss.law import OVERTRAINED_POWER, published_loss
from gpt2dist.plan.loss.predict import Z80

DOCS = Path(__file__).parent.parent / "docs" / "planner-loss.md"
OFFSETS = Path(offsets.__file__).with_name("dataset_offsets.csv")
BEGIN, END = "<!-- begin: loss_accuracy.py -->", "<!-- end: loss_accuracy.py -->"


@dataclass(frozen=True)
class HeldOut:
    row: PublishedLoss
    predicted: float
    half_width: float
    "Of the 80 % interval."

    @property
    def error(self) -> float:
        return self.predicted - self.row.loss

    @property
    def covered(self) -> bool:
        return abs(self.error) <= self.half_width


def overtrained_power(rows: Sequence[PublishedLoss]) -> float:
    """The power that leaves the runs of one hand on one text nearest to one another.

    The mean distance from their median, so that no lone run decides; in hundredths.
    """
    hands: dict[tuple[str, str], list[PublishedLoss]] = {}
    for row in rows:
        if row.far is None:
            hands.setdefault((row.dataset, row.group), []).append(row)

    def spread(power: float) -> float:
        distances = []
        for hand in hands.values():
            above = [row.above_law(power) for row in hand]
            if len(above) > 1:
                distances += [abs(a - statistics.median(above)) for a in above]
        return statistics.fmean(distances)

    return min((percent / 100 for percent in range(40, 121)), key=spread)


@cache
def leave_groups_out() -> list[HeldOut]:
    rows = published_losses()
    held_out = []
    for group in sorted({row.group for row in rows}):
        others = [row for row in rows if row.group != group]
        power = overtrained_power(others)
        offsets = fit_offsets(others, power)
        for row in rows:
            if row.group == group and (offset := offsets.get(row.dataset)):
                predicted = published_loss(row.params, row.tokens, power) + offset.nats
                sigma = offset.far_sigma if row.far else offset.sigma
                held_out.append(HeldOut(row, predicted, Z80 * sigma))
    return held_out


def tables() -> str:
    held_out = leave_groups_out()
    near = [h for h in held_out if h.row.far is None]
    lines = [
        "| text | tokens of | runs | groups | median error | RMS error | mean, signed | "
        "in the 80 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dataset in sorted({h.row.dataset for h in near}):
        lines.append(_summary(dataset, [h for h in near if h.row.dataset == dataset]))
    lines.append(_summary("all of these", near))
    gpt2 = [h for h in near if h.row.tokenizer == "GPT-2"]
    lines.append(_summary("those in GPT-2 tokens", gpt2))
    lines.append(
        _summary("far from these, flagged as unreliable", [h for h in held_out if h.row.far])
    )
    lines += [
        "",
        "| held out | parameters | tokens | text | published | predicted | 80 % interval | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for h in sorted(gpt2, key=lambda h: (h.row.dataset, h.row.params, h.row.tokens, h.row.id)):
        lines.append(
            f"| {h.row.id} | {h.row.params / 1e6:,.0f}M | {h.row.tokens / 1e9:.1f}B | "
            f"{h.row.dataset} | {h.row.loss:.3f} | {h.predicted:.3f} | "
            f"{h.predicted - h.half_width:.2f} to {h.predicted + h.half_width:.2f} | "
            f"{h.error:+.3f} |"
        )
    return "\n".join(lines)


def _summary(name: str, held_out: list[HeldOut]) -> str:
    errors = [abs(h.error) for h in held_out]
    rms = statistics.fmean(e * e for e in errors) ** 0.5
    covered = sum(h.covered for h in held_out)
    tokenizers = " and ".join(sorted({h.row.tokenizer for h in held_out}))
    return (
        f"| {name} | {tokenizers} | {len(held_out)} | {len({h.row.group for h in held_out})} | "
        f"{statistics.median(errors):.3f} | {rms:.3f} | "
        f"{statistics.fmean(h.error for h in held_out):+.3f} | "
        f"{covered} of {len(held_out)} ({covered / len(held_out):.0%}) |"
    )


def offsets_csv() -> str:
    """The table that the package predicts with."""
    fitted = fit_offsets(published_losses())
    names = [field.name for field in fields(offsets.Offset)]
    rows = [
        ",".join([dataset, *(str(getattr(offset, name)) for name in names)])
        for dataset, offset in fitted.items()
    ]
    return "\n".join([",".join(["dataset", *names]), *rows]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help=f"also into {DOCS.name} and the package"
    )
    arguments = parser.parse_args()
    text = tables()
    print(text)
    print(f"\nworth of over-training {overtrained_power(published_losses()):.2f}", end=" ")
    print(f"(law.py has {OVERTRAINED_POWER:.2f})")
    if arguments.write:
        OFFSETS.write_text(offsets_csv(), encoding="utf-8")
        page = DOCS.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        after = rest.split(END)[1]
        DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
