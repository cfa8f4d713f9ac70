"""Solve where a config runs: device, workers, precision, micro-batch and accumulation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.plan.layout import Layout, Precision
from gpt2dist.plan.memory.fit import HEADROOM, micro_batch_for

CPU_MICRO_TOKENS = 4096
"Tokens of a CPU micro-batch: larger ones leave the caches and gain nothing."


@dataclass(frozen=True)
class Machine:
    """What the machines at hand offer."""

    gpus: int
    gpu_names: tuple[str, ...]
    gpu_free_gib: float | None
    gpu_capability: tuple[int, int] | None
    cpu_cores: int
    cpu_flags: frozenset[str]

    @property
    def gpu_has_bf16(self) -> bool:
        return self.gpu_capability is not None and self.gpu_capability >= (8, 0)

    @property
    def cpu_has_bf16(self) -> bool:
        """AVX512-BF16 or AMX: without either, bf16 on a CPU is emulated and slower than fp32."""
        return bool(self.cpu_flags & {"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class Placement:
    device: str
    "cpu or cuda"
    workers: int
    precision: Precision
    "never auto"
    micro_batch: int
    accumulation: int
    threads: int
    "CPU threads of one worker"
    compile: bool
    device_name: str
    local_rank: int = 0

    @property
    def torch_device(self) -> str:
        return f"cuda:{self.local_rank}" if self.device == "cuda" else "cpu"


def probe_machine() -> Machine:
    """The machine of this process. Imports torch; starts no CUDA context without a GPU."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Machine(
        gpus=gpus,
        gpu_names=tuple(torch.cuda.get_device_name(i) for i in range(gpus)),
        gpu_free_gib=(
            min(torch.cuda.mem_get_info(i)[0] for i in range(gpus)) / 2**30 if gpus else None
        ),
        gpu_capability=(
            min(torch.cuda.get_device_capability(i) for i in range(gpus)) if gpus else None
        ),
        cpu_cores=_usable_cores(),
        cpu_flags=_cpu_flags(),
    )


def solve(
    config: Config,
    machine: Machine,
    *,
    single_process: bool = False,
    cluster_gpus: int | None = None,
    cluster_cores: int | None = None,
) -> Placement:
    """The placement of a config on a machine, or on a Ray cluster of equal machines.

    `single_process` is `train --local`: one device whatever the config says of workers.
    Raises BadInput for devices, precisions and batches that cannot work.
    """
    gpus = machine.gpus if cluster_gpus is None else cluster_gpus
    cores = machine.cpu_cores if cluster_cores is None else cluster_cores
    device = _device(config, gpus)
    workers = 1 if single_process else _workers(config, device, gpus, cores)
    precision = _precision(config, device, machine)
    micro_batch, accumulation = _batches(config, device, workers, precision, machine)
    compiled = config.cluster.compile
    return Placement(
        device=device,
        workers=workers,
        precision=precision,
        micro_batch=micro_batch,
        accumulation=accumulation,
        threads=max(1, cores // workers) if device == "cpu" else max(1, min(8, cores // workers)),
        compile=device == "cuda" if compiled is None else compiled,
        device_name=(machine.gpu_names or ("GPU",))[0] if device == "cuda" else cpu_name(),
    )


def _device(config: Config, gpus: int) -> str:
    device = config.cluster.device
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if device == "cuda" and not gpus:
        raise BadInput("cluster.device=cuda, but no CUDA device is visible; use cluster.device=cpu")
    return device


def _workers(config: Config, device: str, gpus: int, cores: int) -> int:
    asked = config.cluster.workers
    if device == "cuda":
        if asked is not None and asked > gpus:
            raise BadInput(
                f"cluster.workers={asked} is more than the {gpus} GPUs here; "
                f"use cluster.workers={gpus} or add machines"
            )
        return asked or gpus
    if asked is None:
        return min(config.cluster.cpu_workers, cores)
    if asked > cores:
        raise BadInput(
            f"cluster.workers={asked} is more than the {cores} CPU cores here; "
            f"use cluster.workers={cores} or fewer"
        )
    return asked


def _precision(config: Config, device: str, machine: Machine) -> Precision:
    asked = config.cluster.precision
    if asked == "auto":
        native = machine.gpu_has_bf16 if device == "cuda" else machine.cpu_has_bf16
        return "bf16" if native else "fp32"
    if device == "cpu" and asked == "fp16":
        raise BadInput("cluster.precision=fp16 does not train on a CPU; use bf16 or fp32")
    if device == "cuda" and asked == "bf16" and not machine.gpu_has_bf16:
        name = (machine.gpu_names or ("this GPU",))[0]
        raise BadInput(f"cluster.precision=bf16: {name} has no bf16 units; use fp16 or fp32")
    if asked == "fp16" and config.zero.stage == 0:
        raise BadInput("cluster.precision=fp16 needs zero.stage=1 or higher in DeepSpeed")
    return asked


def _batches(
    config: Config, device: str, workers: int, precision: Precision, machine: Machine
) -> tuple[int, int]:
    sequences, context = config.batch_sequences, config.model.context
    if sequences % workers:
        step = workers * context
        lower = config.train.batch_tokens // step * step
        raise BadInput(
            f"train.batch_tokens={config.train.batch_tokens:,} is not a multiple of "
            f"{context:,} x {workers} workers; nearest: {lower or step:,} or {lower + step:,}, "
            f"or another cluster.workers"
        )
    share = sequences // workers
    micro = config.cluster.micro_batch
    if micro is None:
        free = machine.gpu_free_gib if device == "cuda" else None
        if free is None:
            micro = _largest_divisor(share, max(1, CPU_MICRO_TOKENS // context))
        else:
            layout = Layout(
                gpus_per_node=workers,
                precision=precision,
                mixed_precision=config.cluster.mixed_precision,
                kernels="eager" if config.cluster.compile is False else "compiled",
                zero_stage=config.zero.stage,
                recompute=config.cluster.recompute,
            )
            micro = micro_batch_for(config.model, layout, free * (1 - HEADROOM), share)
    elif share % micro:
        raise BadInput(
            f"cluster.micro_batch={micro} does not divide the {share} sequences of a worker "
            f"({config.train.batch_tokens:,} tokens / {context:,} / {workers} workers); "
            f"nearest: {_largest_divisor(share, micro)}"
        )
    if micro < 1:
        raise BadInput(
            f"not one sequence of {context:,} tokens fits in the free GPU memory "
            f"({machine.gpu_free_gib:.1f} GiB); try cluster.recompute=true or zero.stage=3"
        )
    return micro, share // micro


def _largest_divisor(number: int, limit: int) -> int:
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> Mapping[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if ":" in line)
    fields: dict[str, str] = {}
    for key, _, value in pairs:
        fields.setdefault(key.strip(), value.strip())
    return fields


def _cpu_flags() -> frozenset[str]:
    return frozenset(_cpuinfo().get("flags", "").split())


def cpu_name() -> str:
    """The processor's own name, or `CPU`."""
    return _cpuinfo().get("model name", "CPU")
