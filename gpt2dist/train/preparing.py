"""Prepare a dataset while saying how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.pipeline import prepare
from gpt2dist.data.prepare.progress import Progress
from gpt2dist.data.shards import Dataset
from gpt2dist.human import human_count, human_duration

LINE_SECONDS = 2.0


def prepare_aloud(
    data: DataConfig, folder: Path, say: Callable[[str], None], *, local: bool = False
) -> Dataset:
    """The dataset of these settings in `folder`, with a line every few seconds until it is made."""
    said_at = time.monotonic()

    def report(state: Progress) -> None:
        nonlocal said_at
        last = state.units_done == state.units
        if last or time.monotonic() - said_at >= LINE_SECONDS:
            said_at = time.monotonic()
            say(_line(state))

    return prepare(data, folder, local=local, progress=report)


def _line(state: Progress) -> str:
    left = "" if state.units_done == state.units else f"  {human_duration(state.seconds_left)} left"
    return (
        f"prepared {state.units_done:,}/{state.units:,} units  {state.documents:,} documents  "
        f"{human_count(state.tokens)} tokens  {state.text_megabytes_per_s:.1f} MB/s{left}"
    )
