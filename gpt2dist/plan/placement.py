"""Where and how a config is computed: the one solver, for plans and for training.

It decides device, workers, precision, ZeRO stage, micro-batch, accumulation, recomputation and
compilation from facts about a machine. A plan takes the facts from the table of GPUs, training
from the machine itself; the same facts give the same placement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.plan.layout import Layout, MixedPrecision, Precision
from gpt2dist.plan.machine.hardware import Hardware
from gpt2dist.plan.measures import Measure, measures_to_fit
from gpt2dist.plan.memory.fit import HEADROOM, largest_divisor, memory, micro_batch_for

CPU_MICRO_TOKENS = 4096
"Tokens of a CPU micro-batch: larger ones leave the caches and gain nothing."

STEADY_MICRO_TOKENS = 65_536
"""Tokens of a micro-batch above which a larger one gains nothing worth its memory."""

MOST_GPU_THREADS = 8
"CPU threads of a worker that has a GPU."


@dataclass(frozen=True)
class Machine:
    """What one machine offers, as far as a placement depends on it."""

    gpus: int
    gpu_name: str
    "Empty without a GPU."
    gpu_gib: float | None
    "Memory that training may take of each GPU; None without one."
    gpu_has_bf16: bool
    cpu_cores: int
    cpu_has_bf16: bool
    "AVX512-BF16 or AMX: without either, bf16 on a CPU is emulated and slower than fp32."
    cpu_name: str = "CPU"
    host_gib: float | None = None

    @property
    def usable_gib(self) -> float:
        """Memory of a GPU that a chosen micro-batch may fill."""
        return (self.gpu_gib or 0.0) * (1 - HEADROOM)


@dataclass(frozen=True)
class Placement:
    device: Literal["cpu", "cuda"]
    device_name: str
    layout: Layout
    "Of one optimizer step; on a CPU its workers count as GPUs."
    threads: int
    "CPU threads of one worker."
    local_rank: int = 0

    @property
    def torch_device(self) -> str:
        return f"cuda:{self.local_rank}" if self.device == "cuda" else "cpu"

    @property
    def workers(self) -> int:
        return self.layout.gpus

    @property
    def precision(self) -> Precision:
        return self.layout.precision

    @property
    def zero_stage(self) -> int:
        return self.layout.zero_stage

    @property
    def micro_batch(self) -> int:
        return self.layout.micro_batch

    @property
    def accumulation(self) -> int:
        return self.layout.accumulation

    @property
    def compile(self) -> bool:
        return self.layout.kernels == "compiled"


@dataclass(frozen=True)
class Solution:
    """A placement, and what of it the config did not ask for."""

    placement: Placement
    wanted: Layout
    "As configured."
    measures: tuple[Measure, ...] = ()
    "What was changed to make it fit; empty when it fits, or when nothing helps."
    fits: bool = True
    "As configured, without measures."


def machine_of(hardware: Hardware, host_gib: float | None = None) -> Machine:
    """One machine of planned hardware, by the table of GPUs."""
    gpu, count = hardware.gpu, hardware.gpus_per_node
    cores = MOST_GPU_THREADS * count
    return Machine(count, gpu.key, gpu.memory_gib, gpu.has_bf16, cores, False, host_gib=host_gib)


def place(
    config: Config,
    machine: Machine,
    *,
    gpus: int | None = None,
    cores: int | None = None,
    single_process: bool = False,
) -> Placement:
    """The placement that trains a config, or BadInput naming what would make it fit.

    `gpus` and `cores` are those of a whole cluster of such machines; None: of one.
    `single_process` is `train --local`: one device whatever the config says of workers.
    """
    solution = solve(config, machine, gpus=gpus, cores=cores, single_process=single_process)
    if solution.fits:
        return solution.placement
    raise BadInput(_too_large(config, machine, solution))


def solve(
    config: Config,
    machine: Machine,
    *,
    gpus: int | None = None,
    cores: int | None = None,
    single_process: bool = False,
) -> Solution:
    """As `place`; what does not fit comes with the measures that make it fit, if any do.

    Raises BadInput for devices, precisions and batches that cannot work.
    """
    gpus = machine.gpus if gpus is None else gpus
    cores = machine.cpu_cores if cores is None else cores
    device = _device(config, gpus)
    workers = 1 if single_process else _workers(config, device, gpus, cores)
    wanted = _wanted(config, machine, device, workers)
    sequences = _share(config, workers, device)
    if device == "cuda":
        wanted, layout, measures, fits = _fit(config, wanted, machine, sequences)
    else:
        micro = config.cluster.micro_batch or max(1, CPU_MICRO_TOKENS // config.model.context)
        wanted = _cut(wanted, sequences, _divisor(config, sequences, micro))
        layout, measures, fits = wanted, (), True
    threads = max(1, cores // workers)
    placement = Placement(
        device=device,
        device_name=machine.gpu_name if device == "cuda" else machine.cpu_name,
        layout=layout,
        threads=threads if device == "cpu" else min(MOST_GPU_THREADS, threads),
    )
    return Solution(placement, wanted, measures, fits)


def _too_large(config: Config, machine: Machine, solution: Solution) -> str:
    """Why a config does not fit as it is, and what would make it fit, in one line."""
    wanted = solution.wanted
    settings = [measure.setting or "" for measure in solution.measures]
    able = settings and all(settings)
    return (
        f"{config.recipe} needs {memory(config.model, wanted).peak_gib:.1f} GiB a GPU with a "
        f"micro-batch of {wanted.micro_batch}, {machine.gpu_name} has {machine.gpu_gib:.1f}; "
        + (f"it fits with {' '.join(settings)}" if able else "no setting makes it fit")
    )


def _share(config: Config, workers: int, device: str) -> int:
    """Training windows per worker and step; BadInput when they cannot be shared evenly."""
    if config.batch_sequences % workers:
        context, batch = config.model.context, config.train.batch_tokens
        unit = workers * context
        lower = batch // unit * unit
        nearest = f"{lower:,} or {lower + unit:,}" if lower else f"{unit:,}"
        raise BadInput(
            f"train.batch_tokens={batch:,} is not a multiple of {context:,} x {workers} "
            f"{'GPUs' if device == 'cuda' else 'workers'}; nearest: {nearest}, or another number "
            "of them"
        )
    return config.batch_sequences // workers


def _device(config: Config, gpus: int) -> Literal["cpu", "cuda"]:
    asked = config.cluster.device
    if asked == "cuda" and not gpus:
        raise BadInput("cluster.device=cuda, but no CUDA device is visible; use cluster.device=cpu")
    return asked if asked != "auto" else "cuda" if gpus else "cpu"


def _workers(config: Config, device: str, gpus: int, cores: int) -> int:
    asked = config.cluster.workers
    have, what = (gpus, "GPUs") if device == "cuda" else (cores, "CPU cores")
    if asked is None:
        return gpus if device == "cuda" else min(config.cluster.cpu_workers, cores)
    if asked > have:
        raise BadInput(
            f"cluster.workers={asked} is more than the {have} {what} here; "
            f"use cluster.workers={have} or fewer, or add machines"
        )
    return asked


def _wanted(config: Config, machine: Machine, device: str, workers: int) -> Layout:
    """What the config asks for on this device, before the micro-batch is solved."""
    cluster, cuda = config.cluster, device == "cuda"
    precision = _precision(config, machine, device)
    # fp16 needs the loss scaling of DeepSpeed's own mode.
    mixed: MixedPrecision = "engine" if precision == "fp16" else cluster.mixed_precision
    stage = config.zero.stage
    if precision != "fp32" and mixed == "engine":
        stage = max(stage, 1)  # DeepSpeed's 16-bit mode is right only under a ZeRO optimizer
    elif cuda and workers == 1:
        stage = 0  # nothing to shard: the stages only add buffers and fp32 masters
    compiled = cuda if cluster.compile is None else cluster.compile
    nodes = math.ceil(workers / machine.gpus) if cuda and workers > machine.gpus else 1
    return Layout(
        gpus_per_node=workers if nodes == 1 else machine.gpus,
        nodes=nodes,
        precision=precision,
        mixed_precision=mixed,
        kernels="compiled" if compiled else "eager",
        zero_stage=stage,
        recompute=cluster.recompute,
    )


def _precision(config: Config, machine: Machine, device: str) -> Precision:
    asked = config.cluster.precision
    if asked == "auto":
        if device == "cuda":
            return "bf16" if machine.gpu_has_bf16 else "fp16"
        return "bf16" if machine.cpu_has_bf16 else "fp32"
    if device == "cpu" and asked == "fp16":
        raise BadInput("cluster.precision=fp16 does not train on a CPU; use bf16 or fp32")
    if device == "cuda" and asked == "bf16" and not machine.gpu_has_bf16:
        raise BadInput(
            f"cluster.precision=bf16: {machine.gpu_name} has no bf16 units; use fp16 or fp32"
        )
    return asked


def _fit(
    config: Config, wanted: Layout, machine: Machine, sequences: int
) -> tuple[Layout, Layout, tuple[Measure, ...], bool]:
    """The layout as configured and as it fits, the measures between them, and whether none is."""
    model, asked, free_gib = config.model, config.cluster.micro_batch, machine.usable_gib
    if asked is None:
        wanted = _largest(config, wanted, machine, sequences)
    else:
        wanted = _cut(wanted, sequences, _divisor(config, sequences, asked))
        free_gib = machine.gpu_gib or 0.0
    if memory(model, wanted).peak_gib <= free_gib:
        return wanted, wanted, (), True
    found = measures_to_fit(model, wanted, machine.usable_gib, sequences, machine.host_gib)
    if found is None:
        return wanted, wanted, (), False
    layout, measures = found
    if asked is None:
        layout = _largest(config, layout, machine, sequences)
    return wanted, layout, measures, False


def _largest(config: Config, layout: Layout, machine: Machine, sequences: int) -> Layout:
    """With the largest micro-batch that is still worth its memory; 1 when not even that fits."""
    steady = max(1, STEADY_MICRO_TOKENS // config.model.context)
    micro = micro_batch_for(config.model, layout, machine.usable_gib, sequences)
    while micro > steady and micro % 2 == 0:
        micro //= 2
    return _cut(layout, sequences, max(1, micro))


def _cut(layout: Layout, sequences: int, micro_batch: int) -> Layout:
    return replace(layout, micro_batch=micro_batch, accumulation=sequences // micro_batch)


def _divisor(config: Config, sequences: int, micro: int) -> int:
    """The largest micro-batch up to `micro` that divides the sequences of a worker.

    Raises BadInput where somebody asked for another one.
    """
    near = largest_divisor(sequences, micro)
    if config.cluster.micro_batch not in (None, near):
        raise BadInput(
            f"cluster.micro_batch={micro} does not divide the {sequences} sequences of a worker "
            f"(train.batch_tokens={config.train.batch_tokens:,}, model.context="
            f"{config.model.context:,}); nearest: {near}"
        )
    return near
