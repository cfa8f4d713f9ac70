"""The facts about the machine of this process that a placement is solved from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

from gpt2dist.plan.placement import Machine
from gpt2dist.ray_session import usable_cores

BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def probe_machine() -> Machine:
    """The machine of this process. Imports torch; starts no CUDA context without a GPU."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    free_bytes = [torch.cuda.mem_get_info(i)[0] for i in range(gpus)]
    capabilities = [torch.cuda.get_device_capability(i) for i in range(gpus)]
    cpu = _cpuinfo()
    return Machine(
        gpus=gpus,
        gpu_name=torch.cuda.get_device_name(0) if gpus else "",
        gpu_gib=min(free_bytes) / 2**30 if gpus else None,
        gpu_has_bf16=gpus > 0 and min(capabilities) >= (8, 0),
        cpu_cores=usable_cores(),
        cpu_has_bf16=bool(BF16_FLAGS & set(cpu.get("flags", "").split())),
        cpu_name=cpu.get("model name", "CPU"),
        host_gib=psutil.virtual_memory().total / 2**30,
    )


def _cpuinfo() -> Mapping[str, str]:
    """Of the first core; empty where there is no /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields
