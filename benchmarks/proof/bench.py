"""What every section of the proof shares: findings, the clock, and an engine to be measured."""
# B sequences of a micro-batch, T tokens of a context

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gpt2dist.config.load import resolve
from gpt2dist.config.schema import Config
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.model.optim import build_adamw
from gpt2dist.plan.placement import Placement, place
from gpt2dist.train.core.engine import Engine
from gpt2dist.train.machine import probe_machine

SIZES = ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m")
TINY = [
    "model.layers=2", "model.heads=2", "model.width=128", "model.context=128", "model.vocab=257",
    "data.tokenizer=bytes", "train.batch_tokens=1024", "train.tokens=102400",
    "optim.warmup_steps=0", "optim.peak_lr=1e-3", "cluster.micro_batch=4",
]  # fmt: skip
"A model whose curve takes seconds; batches of 8 x 128 tokens in two micro-batches."


@dataclass(frozen=True)
class Finding:
    """One figure, and what it must reach."""

    what: str
    value: float | None
    "None: it could not be measured; `note` says why."
    unit: str = ""
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool:
        if self.value is None or math.isnan(self.value):
            return self.least is None and self.most is None
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)


class Bench:
    """One section's device, time and figures, and what earlier sections found."""

    def __init__(self, path: Path, section: str, seconds: float, quick: bool) -> None:
        self.quick = quick
        self.machine = probe_machine()
        self.device = "cuda" if self.machine.gpus else "cpu"
        self._path, self._section = path, section
        self._ends_at = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        return self._ends_at - time.monotonic()

    def found(
        self,
        what: str,
        value: float | None,
        unit: str = "",
        *,
        least: float | None = None,
        most: float | None = None,
        note: str = "",
    ) -> None:
        """Keeps a figure, so that a section that breaks later has still told it."""
        finding = Finding(what, value, unit, least, most, note)
        with self._path.open("a") as file:
            file.write(json.dumps({"section": self._section, **asdict(finding)}) + "\n")

    def known(self, what: str) -> float | None:
        """The figure of that name of any section that has run."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        found = (record for line in lines if (record := json.loads(line))["what"] == what)
        return next((record["value"] for record in found), None)

    @contextmanager
    def each(self, what: str, seconds: float = 0.0) -> Iterator[None]:
        """A part that may fail, or for which less than `seconds` is left, without ending all."""
        if self.seconds_left < seconds:
            self.found(what, None, note="no time left")
            raise OutOfTime
        try:
            yield
        except Exception as error:  # whatever breaks is what was to be found
            self.found(what, math.nan, least=0, note=f"{type(error).__name__}: {str(error)[:300]}")
        finally:
            free_memory()

    def timed(self, action: Callable[[], Any], repeats: int) -> float:
        """Median seconds of an action, after two that do not count."""
        seconds = []
        for number in range(repeats + 2):
            began = self.now()
            action()
            if number > 1:
                seconds.append(self.now() - began)
        return median(seconds)

    def now(self) -> float:
        """A time at which everything asked of the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class OutOfTime(Exception):
    """The section's time is over; what it has not measured is named."""


def placed(recipe: str, *words: str) -> tuple[Config, Placement]:
    """A recipe on this machine's one device, as `gpt2dist train --local` places it."""
    config = resolve(recipe, list(words))
    return config, place(config, probe_machine(), single_process=True)


def build(
    config: Config, placement: Placement, weights: Mapping[str, torch.Tensor] | None = None
) -> Engine:
    """The engine that trains a config, with seeded weights or those given; in a process group."""
    torch.set_num_threads(placement.threads)
    torch.manual_seed(7)
    model = GPT2(config.model, recompute=placement.layout.recompute)
    if weights is not None:
        model.load_state_dict(weights)
    if placement.compile:
        model.compile_blocks()
    model.to(placement.torch_device)
    return Engine(model, build_adamw(model, config.optim, placement.device), config, placement)


def batch(config: Config, step: int) -> torch.Tensor:
    """The whole batch of a step, int64 [B, T + 1]: few ids, so that there is something to learn."""
    generator = torch.Generator().manual_seed(step)
    shape = (config.batch_sequences, config.model.context + 1)
    return torch.randint(0, 64, shape, generator=generator)


def train_step(engine: Engine, config: Config, step: int, rate: float = 1e-3) -> float:
    """One optimizer step; returns its mean loss."""
    tokens = batch(config, step).to(engine.device)
    micro_batch = engine.config["micro_batch"]
    targets = tokens[:, 1:].numel()
    loss = sum(
        float(engine.accumulate(part[:, :-1], part[:, 1:], targets))
        for part in tokens.split(micro_batch)
    )
    engine.step(rate)
    return loss / targets


def free_memory() -> None:
    """Gives what a discarded engine held back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
