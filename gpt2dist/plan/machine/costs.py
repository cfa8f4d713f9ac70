"""What a run costs from the rented machine's first second to its last: hours and dollars by phase.

Preemption follows Daly, "A higher order estimate of the optimum checkpoint interval for restart
dumps" (2006): failures at random with a mean time between them, work since the last checkpoint
lost, a restart paid each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PROVISION_MINUTES = 5.0
"""From the request to a shell; billed. Assumed."""

INSTALL_MINUTES = 4.0
"""pip from the lock on a fresh machine. Measured: 100 s with the CPU build of torch; the rest, for
CUDA's libraries, is assumed."""

IDLE_MINUTES = 5.0
"""From the end of the run until autostop takes the machine down. Assumed."""

COMPILE_MINUTES = 2.0
"""torch.compile at each start. Assumed."""

TOKENIZE_TOKENS_PER_S_CORE = 4.0e6
"""docs/data.md: 4,009,000 tokens/s on one core, measured 2026-11-20."""

CORES_PER_VCPU = 0.5
"""Providers sell hyper-threads. Assumed to hold for tokenizing."""

DEFAULT_VCPUS = 8.0
"""Of a machine whose size is not known. Assumed."""

DOWNLOAD_BYTES_PER_TOKEN = 3.0
"""Compressed text of one GPT-2 token. Assumed."""

DOWNLOAD_BYTES_PER_S = 100e6
"""From the Hugging Face hub. Assumed."""

CHECKPOINT_BYTES_PER_PARAM = 16
"""fp32 weights and Adam's two moments are 12; the master copy that DeepSpeed's native layout adds
from ZeRO stage 1 on is 4 more (arXiv:1910.02054)."""

CHECKPOINT_BYTES_PER_S = 500e6
"""To a disk or bucket, from one machine, training waiting. Assumed."""

FORWARD_SHARE = 1 / 3
"""A forward pass is 2 of the 6 FLOPs per parameter and token of training."""

SPOT_HOURS_BETWEEN_PREEMPTIONS = 3.4
"""Of one machine: 6,325 h of V100 spot availability in nine AWS zones, 1,887 ends (2023-02 to 04,
skypilot-org/spot-traces@221da1a, availability/1-node/aws-02-15-2023). By zone 0.7 to 10.5 h."""

SPOT_HOURS_RANGE = (1.5, 10.5)
"""The same traces: a poor zone (us-east-1c) and the best one."""

FAILURE_GPU_HOURS = 50_700.0
"""On demand: 419 unexpected stops in 54 days of 16,384 H100 (Llama 3, arXiv:2407.21783)."""

HOPELESS = 300.0
"""Mean times between failures that no span survives: a chance of e^-300."""


@dataclass(frozen=True)
class JobCost:
    """Hours of rented time by phase, all machines billed alike."""

    setup_hours: float
    "Provisioning, installing, and the idle minutes at the end."
    data_hours: float
    compile_hours: float
    train_hours: float
    eval_hours: float
    checkpoint_hours: float
    lost_hours: float
    "Expected: work repeated and restarts after preemptions and failures."
    hours: float
    usd: float
    usd_low: float
    usd_high: float


def job_cost(
    *,
    train_hours: float,
    train_hours_low: float,
    train_hours_high: float,
    usd_per_hour: float,
    nodes: int,
    spot: bool,
    params: int,
    evals: int,
    eval_tokens: int,
    tokens_per_s: float,
    checkpoints: int,
    data_tokens_to_prepare: float,
    compiled: bool,
    world: int,
    vcpus: float | None = None,
    rented: bool = True,
) -> JobCost:
    """Expected cost of one run.

    `usd_per_hour` is that of one machine. `train_hours_low` to `_high` is the range of the pure
    training time; the dollars' range also holds that of spot preemptions. `world` counts GPUs,
    `vcpus` those of one machine. `rented=False`: an own machine is there, installed and not
    waited for.
    """
    setup_hours = (PROVISION_MINUTES + INSTALL_MINUTES + IDLE_MINUTES) / 60 if rented else 0.0
    restart_hours = (PROVISION_MINUTES + INSTALL_MINUTES) / 60 if rented else 0.0
    compile_hours = COMPILE_MINUTES / 60 if compiled else 0.0
    data_hours = preparation_hours(data_tokens_to_prepare, nodes, vcpus)
    eval_hours = evals * eval_tokens * FORWARD_SHARE / tokens_per_s / 3600
    checkpoint_hours = checkpoints * checkpoint_seconds(params) / 3600
    failure_hours = FAILURE_GPU_HOURS / world

    def lost(train: float, evaluate: float, between_preemptions: float) -> float:
        mean_hours = 1 / (1 / failure_hours + (nodes / between_preemptions if spot else 0.0))
        work = train + evaluate + checkpoint_hours
        spans = checkpoints + 1
        return expected_hours(work, spans, mean_hours, restart_hours + compile_hours) - work

    def total(train: float, between_preemptions: float) -> float:
        # Evaluation is as fast or slow as training.
        evaluate = eval_hours * train / train_hours if train_hours else eval_hours
        fixed = setup_hours + data_hours + compile_hours + checkpoint_hours
        return fixed + train + evaluate + lost(train, evaluate, between_preemptions)

    usd_per_hour_all = usd_per_hour * nodes
    hours = total(train_hours, SPOT_HOURS_BETWEEN_PREEMPTIONS)
    worst_spot, best_spot = SPOT_HOURS_RANGE
    return JobCost(
        setup_hours=setup_hours,
        data_hours=data_hours,
        compile_hours=compile_hours,
        train_hours=train_hours,
        eval_hours=eval_hours,
        checkpoint_hours=checkpoint_hours,
        lost_hours=lost(train_hours, eval_hours, SPOT_HOURS_BETWEEN_PREEMPTIONS),
        hours=hours,
        usd=hours * usd_per_hour_all,
        usd_low=total(train_hours_low, best_spot) * usd_per_hour_all,
        usd_high=total(train_hours_high, worst_spot) * usd_per_hour_all,
    )


def preparation_hours(tokens: float, nodes: int = 1, vcpus: float | None = None) -> float:
    """Downloading and tokenizing overlap; the slower decides. Shards that exist cost nothing."""
    cores = nodes * (vcpus or DEFAULT_VCPUS) * CORES_PER_VCPU
    tokenize_s = tokens / (TOKENIZE_TOKENS_PER_S_CORE * cores)
    download_s = tokens * DOWNLOAD_BYTES_PER_TOKEN / (DOWNLOAD_BYTES_PER_S * nodes)
    return max(tokenize_s, download_s) / 3600


def checkpoint_seconds(params: int) -> float:
    return params * CHECKPOINT_BYTES_PER_PARAM / CHECKPOINT_BYTES_PER_S


def young_interval(save_hours: float, mean_hours: float) -> float:
    """Hours of work between checkpoints that lose least: Young (1974), first order."""
    return math.sqrt(2 * save_hours * mean_hours)


def daly_interval(save_hours: float, mean_hours: float) -> float:
    """Young's interval with the checkpoint's own time taken out: Daly (2006), lower order."""
    return young_interval(save_hours, mean_hours) - save_hours


def wasted_share(
    interval_hours: float, save_hours: float, mean_hours: float, restart_hours: float
) -> float:
    """Share of the rented time that saving, repeating and restarting take, to first order."""
    return save_hours / interval_hours + (interval_hours / 2 + restart_hours) / mean_hours


def spot_pays(spot_usd_per_hour: float, usd_per_hour: float, wasted: float) -> bool:
    """Whether spot is cheaper though `wasted` (a share) of its time does not count."""
    return spot_usd_per_hour < usd_per_hour * (1 - wasted)


def expected_hours(work_hours: float, spans: int, mean_hours: float, restart_hours: float) -> float:
    """Hours until `work_hours`, saved after each of `spans` equal parts, are done.

    Exact for failures at a constant rate that can also strike a restart: Daly's complete model.
    Infinite where so long a span without a failure does not happen.
    """
    span = work_hours / spans
    if max(span, restart_hours) > HOPELESS * mean_hours:
        return math.inf
    return spans * mean_hours * math.exp(restart_hours / mean_hours) * math.expm1(span / mean_hours)
