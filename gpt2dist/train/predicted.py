"""What the planner says of a run on the machine at hand, to be held against what comes of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.loss.own_fit import OWN_FIT_FILE, OwnFit, load_own_fit
from gpt2dist.plan.machine.hardware import Gpu, Hardware, find_gpu, peak_tflops
from gpt2dist.plan.machine.prices import Offer
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.planner import plan_run
from gpt2dist.plan.speed.probes import Probe, probe_of
from gpt2dist.plan.speed.throughput import Throughput
from gpt2dist.train.placement import Placement

GIB = 2**30

ACTUAL_OF = {
    "tokens_per_s": "tokens_per_s",
    "peak_gib": "peak_gpu_gib",
    "hours": "hours",
    "usd": "usd",
    "val_loss": "final_val_loss",
}
"""Predictions and the fields of the summary that they are held against."""

WHOLE_RUN = {"hours", "usd", "val_loss"}
"""Predictions of a run that goes to its end."""


def prediction(config: Config, placement: Placement, price: tuple[float, str]) -> dict[str, Any]:
    """The plan of a run in figures; `basis` says where they are from, None is unknown.

    A probe of this model on this device comes before the planner, which knows no CPUs.
    """
    nothing = {"basis": None, **dict.fromkeys(ACTUAL_OF)}
    probe = probe_of(config, placement.device_name, placement.precision)
    if placement.device == "cuda" and (placement.workers > 1 or probe is None):
        probe = None
        if find_gpu(placement.device_name) is None:
            return nothing
    elif probe is None:
        return nothing
    own_fit = load_own_fit(Path(config.paths.runs) / OWN_FIT_FILE)
    prepared = replace(config, paths=replace(config.paths, dataset="prepared by now"))
    try:
        plan = plan_here(prepared, placement, price, probe, own_fit)
    except BadInput:  # a combination that the planner refuses may run all the same
        return nothing
    basis = f"probe of {probe.measured_at}" if probe else f"planner, {plan.gpu} x {plan.gpus}"
    return {"basis": basis, **{name: getattr(plan, name) for name in ACTUAL_OF}}


def errors(predicted: dict[str, Any], summary: dict[str, Any]) -> dict[str, float | None]:
    """Actual over predicted minus 1; None where either is unknown or the run did not finish."""
    actual = {**summary, "hours": summary["seconds"] / 3600}
    finished = summary["ended"] == "finished"
    found: dict[str, float | None] = {}
    for name, field in ACTUAL_OF.items():
        known = predicted.get(name) and actual.get(field)
        comparable = known and (finished or name not in WHOLE_RUN)
        found[name] = actual[field] / predicted[name] - 1 if comparable else None
    return found


def plan_here(
    config: Config,
    placement: Placement,
    price: tuple[float, str],
    probe: Probe | None,
    own_fit: OwnFit | None,
) -> Plan:
    """The plan on this machine as it is placed; a probe replaces predicted speed and memory.

    Without a probe the GPU must be in the planner's table.
    """
    micro = probe.micro_batch if probe else placement.micro_batch
    cluster = replace(
        config.cluster,
        precision=placement.precision,
        micro_batch=micro,
        compile=placement.compile,
    )
    gpu = _device(placement)
    workers = placement.workers if placement.device == "cuda" else 1
    here = Offer(
        provider="own",
        instance="this machine",
        gpu=gpu.key,
        gpus=workers,
        region="",
        spot=False,
        usd_per_hour=price[0],
        source=price[1],
        host_gib=psutil.virtual_memory().total / GIB,
        vcpus=float(os.cpu_count() or 1),
    )
    return plan_run(
        replace(config, cluster=cluster),
        Hardware(gpu, workers),
        here,
        own_fit=own_fit,
        measured=_measured(config, placement, probe) if probe else None,
        measured_peak_gib=probe.peak_gib if probe else None,
    )


def _measured(config: Config, placement: Placement, probe: Probe) -> Throughput:
    """A probe's times at the config's accumulation; one device, so nothing to communicate."""
    accumulation = max(1, config.train.batch_tokens // probe.tokens_per_micro_batch)
    rate = probe.tokens_per_s(accumulation)
    peak = peak_tflops(placement.device_name, placement.precision)
    return Throughput(
        tokens_per_s=rate,
        low=rate,
        high=rate,
        mfu=flops_per_token(config.model) * rate / (peak * 1e12) if peak else None,
        step_seconds=probe.step_seconds(accumulation),
        compute_seconds=accumulation * probe.micro_batch_seconds,
        communication_seconds=0.0,
        optimizer_seconds=probe.optimizer_seconds,
    )


def _device(placement: Placement) -> Gpu:
    """The table's GPU, or one that stands for this CPU or an unlisted GPU."""
    cuda = placement.device == "cuda"
    known = find_gpu(placement.device_name) if cuda else None
    if known is not None:
        return known
    if cuda:
        import torch

        memory_bytes = torch.cuda.get_device_properties(0).total_memory
    else:
        memory_bytes = psutil.virtual_memory().total
    return Gpu(
        name=placement.device_name,
        memory_gib=memory_bytes / GIB,
        watts=0.0,
        peak_tflops={},
        source="this machine",
        sky_names=(placement.device_name,),
        bandwidth_gbs=0.0,
        nvlink_gbs=None,
        pcie_gbs=0.0,
        has_bf16=placement.precision == "bf16",
        measured_tflops=None,
        ceiling_like=None,
        data_center=False,
        generation=0.0,
    )
