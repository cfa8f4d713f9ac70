"""One priced plan, as everything that shows or uses it knows it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gpt2dist.config.load import overrides_of, resolve
from gpt2dist.config.schema import Config, ZeroConfig
from gpt2dist.plan.arithmetic import Generation
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.loss.predict import LossEstimate
from gpt2dist.plan.machine.costs import JobCost
from gpt2dist.plan.machine.prices import Offer
from gpt2dist.plan.measures import Measure
from gpt2dist.plan.memory.terms import Memory
from gpt2dist.plan.speed.throughput import Throughput


@dataclass(frozen=True)
class Plan:
    config: Config
    "With the length that a goal gave it."
    params: int
    flops_per_token: int
    gpu: str
    "SkyPilot's accelerator name."
    gpus: int
    "Over all nodes."
    nodes: int
    fits: bool
    "As configured, without measures."
    wanted_gib: float
    "Of one GPU, as configured."
    memory: Memory
    "Of one GPU, with the measures taken."
    gpu_memory_gib: float
    largest_micro_batch: int
    "The largest that fits with some memory to spare, whether or not it divides the batch."
    layout: Layout
    measures: tuple[Measure, ...]
    "What has to change to make it fit; empty when it fits, or when nothing helps."
    throughput: Throughput | None
    "None when it does not fit whatever is done."
    cost: JobCost | None
    offer: Offer | None
    "None when no price is known."
    loss: LossEstimate | None
    generation: Generation
    runs_at_once: int
    "Such runs that fit side by side on one GPU, with micro-batches of one sequence."
    measured: bool = False
    "The throughput was measured on the machine, not predicted."
    measured_peak_gib: float | None = None

    @property
    def recipe(self) -> str:
        return self.config.recipe

    @property
    def steps(self) -> int:
        return self.config.total_steps

    @property
    def tokens(self) -> int:
        return self.config.total_tokens

    @property
    def runs(self) -> bool:
        """It fits, or fits with measures that `gpt2dist train` offers."""
        return self.fits or (
            bool(self.measures) and all(measure.setting for measure in self.measures)
        )

    @property
    def on(self) -> str:
        """The machines as `on=` takes them."""
        nodes = f"x{self.nodes}" if self.nodes > 1 else ""
        return f"{self.gpu}:{self.gpus // self.nodes}{nodes}"

    @property
    def peak_gib(self) -> float:
        """Measured where it was, else predicted."""
        return self.measured_peak_gib or self.memory.peak_gib

    @property
    def tokens_per_s(self) -> float | None:
        return self.throughput.tokens_per_s if self.throughput else None

    @property
    def hours(self) -> float | None:
        """None when it does not fit, or when spot machines never last long enough."""
        return self.cost.hours if self.cost and math.isfinite(self.cost.hours) else None

    @property
    def usd(self) -> float | None:
        return self.cost.usd if self.cost and self.offer and self.hours is not None else None

    @property
    def usd_range(self) -> tuple[float, float] | None:
        if self.cost is None or self.usd is None:
            return None
        return (self.cost.usd_low, self.cost.usd_high)

    @property
    def usd_per_hour(self) -> float | None:
        """Of all machines together."""
        return self.offer.usd_per_hour * self.nodes if self.offer else None

    @property
    def val_loss(self) -> float | None:
        return self.loss.loss if self.loss else None

    def settings(self, recipe: str | None = None, *, priced: bool = True) -> list[str]:
        """Overrides of a recipe (by default the plan's own) that train exactly this plan.

        `priced`: the price of a rented machine is among them, for the run's account.
        """
        cluster, layout, offer = self.config.cluster, self.layout, self.offer
        cluster = replace(
            cluster,
            workers=self.gpus,
            precision=layout.precision,
            micro_batch=layout.micro_batch,
            mixed_precision=layout.mixed_precision,
            recompute=layout.recompute,
        )
        if priced and offer is not None and offer.provider != "own":
            cluster = replace(cluster, usd_per_hour=offer.usd_per_hour)
        zero = ZeroConfig(stage=layout.zero_stage)
        name = recipe or self.recipe
        base = Config() if name == Config.recipe else resolve(name)
        return overrides_of(replace(self.config, cluster=cluster, zero=zero), base)
