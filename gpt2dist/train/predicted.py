"""What the planner says of a run on the machine at hand, to be held against what comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from gpt2dist.config.schema import Config
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.goals import WHOLE, Basis, Goal, Measured
from gpt2dist.plan.loss.own_fit import OWN_FIT_FILE, load_own_fit
from gpt2dist.plan.machine.hardware import Gpu, Hardware, find_gpu, peak_tflops
from gpt2dist.plan.machine.prices import Offer
from gpt2dist.plan.placement import Placement, Solution
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.planner import price
from gpt2dist.plan.speed.probes import Probe, probe_of
from gpt2dist.plan.speed.throughput import Throughput
from gpt2dist.ray_session import usable_cores
from gpt2dist.track.ledger import OWN_MACHINE

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


def prediction(config: Config, placement: Placement, paid: tuple[float, str]) -> dict[str, Any]:
    """The plan of a run in figures; `basis` says where they are from, None is unknown.

    A probe of this model on this device comes before the planner, which knows no CPUs.
    """
    probe = probe_of(config, placement.device_name, placement.precision)
    if placement.device == "cuda" and placement.workers > 1:
        probe = None
    if probe is None and not (placement.device == "cuda" and find_gpu(placement.device_name)):
        return {"basis": None, **dict.fromkeys(ACTUAL_OF)}
    plan = plan_here(config, placement, paid, probe, data_ready=True)
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
    paid: tuple[float, str],
    probe: Probe | None,
    *,
    goal: Goal = WHOLE,
    data_ready: bool = False,
) -> Plan:
    """The plan of a run that is placed on this machine, at the price that is `paid` for it.

    It has no offer, and no dollars, where nobody gave the machine a price.
    A probe replaces predicted speed and memory; without one the GPU must be in the planner's table.
    """
    own_fit = load_own_fit(Path(config.paths.runs) / OWN_FIT_FILE)
    gpu, layout = _device(placement), placement.layout
    offer = Offer(
        provider="own",
        instance="this machine",
        gpu=gpu.key,
        gpus=layout.gpus_per_node,
        region="",
        spot=False,
        usd_per_hour=paid[0],
        source=paid[1],
        host_gib=psutil.virtual_memory().total / GIB,
        vcpus=float(usable_cores()),
    )
    measured = Measured(_throughput(config, placement, probe), probe.peak_gib) if probe else None
    basis = Basis(goal, data_ready=data_ready, own_fit=own_fit, measured=measured)
    cuda = placement.device == "cuda"
    hardware = Hardware(gpu, layout.gpus_per_node, layout.nodes) if cuda else Hardware(gpu)
    solution = Solution(placement, layout)
    plan = price(config, solution, hardware, offer, basis)
    return replace(plan, offer=None) if paid[1] == OWN_MACHINE else plan


def _throughput(config: Config, placement: Placement, probe: Probe) -> Throughput:
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
        generation=0.0,
    )
