"""What a run costs from the rented machine's first second to its last: hours and dollars by phase.

Preemption follows Daly, "A higher order estimate of the optimum checkpoint interval for restart
dumps" (2006): failures at random with a mean time between them, work since the last checkpoint
lost, a restart paid each time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One run on machines that are alike, as far as its bill depends on it."""

    train_hours: float
    "Pure training; _low to _high is its range."
    train_hours_low: float
    train_hours_high: float
    tokens_per_s: float
    params: int
    evals: int
    eval_tokens: int
    checkpoints: int
    data_tokens_to_prepare: float
    compiled: bool
    world: int
    "GPUs of all machines."
    nodes: int
    usd_per_hour: float
    "Of one machine, as vcpus."
    spot: bool
    vcpus: float | None = None
    rented: bool = True
    "False: an own machine is there, installed and not waited for."

    def cost(self) -> JobCost:
        """What is expected; the dollars' range also holds that of spot preemptions."""
        setup_hours = (PROVISION_MINUTES + INSTALL_MINUTES + IDLE_MINUTES) / 60
        compile_hours = COMPILE_MINUTES / 60 if self.compiled else 0.0
        evaluated = self.evals * self.eval_tokens * FORWARD_SHARE
        phases = {
            "setup_hours": setup_hours if self.rented else 0.0,
            "data_hours": preparation_hours(self.data_tokens_to_prepare, self.nodes, self.vcpus),
            "compile_hours": compile_hours,
            "train_hours": self.train_hours,
            "eval_hours": evaluated / self.tokens_per_s / 3600,
            "checkpoint_hours": self.checkpoints * checkpoint_seconds(self.params) / 3600,
        }
        lost_hours = self._lost(1.0, phases, SPOT_HOURS_BETWEEN_PREEMPTIONS)
        hours = sum(phases.values()) + lost_hours
        usd_per_hour = self.usd_per_hour * self.nodes
        worst_spot, best_spot = SPOT_HOURS_RANGE
        low = self._hours(self.train_hours_low / self.train_hours, phases, best_spot)
        high = self._hours(self.train_hours_high / self.train_hours, phases, worst_spot)
        return JobCost(
            **phases,
            lost_hours=lost_hours,
            hours=hours,
            usd=hours * usd_per_hour,
            usd_low=low * usd_per_hour,
            usd_high=high * usd_per_hour,
        )

    def _hours(self, slower: float, phases: Mapping[str, float], between: float) -> float:
        """Of a run that trains and evaluates `slower` times as long."""
        stretched = (phases["train_hours"] + phases["eval_hours"]) * (slower - 1)
        return sum(phases.values()) + stretched + self._lost(slower, phases, between)

    def _lost(self, slower: float, phases: Mapping[str, float], between: float) -> float:
        """Hours repeated and restarted; `between` preemptions of one spot machine."""
        work = slower * (phases["train_hours"] + phases["eval_hours"]) + phases["checkpoint_hours"]
        preempted = self.nodes / between if self.spot else 0.0
        mean_hours = 1 / (self.world / FAILURE_GPU_HOURS + preempted)
        restart_hours = (PROVISION_MINUTES + INSTALL_MINUTES) / 60 if self.rented else 0.0
        restart_hours += phases["compile_hours"]
        return expected_hours(work, self.checkpoints + 1, mean_hours, restart_hours) - work


def preparation_hours(tokens: float, nodes: int = 1, vcpus: float | None = None) -> float:
    """Downloading and tokenizing overlap; the slower decides. Shards that exist cost nothing."""
    cores = nodes * (vcpus or DEFAULT_VCPUS) * CORES_PER_VCPU
    tokenize_s = tokens / (TOKENIZE_TOKENS_PER_S_CORE * cores)
    download_s = tokens * DOWNLOAD_BYTES_PER_TOKEN / (DOWNLOAD_BYTES_PER_S * nodes)
    return max(tokenize_s, download_s) / 3600


def checkpoint_seconds(params: int) -> float:
    return params * CHECKPOINT_BYTES_PER_PARAM / CHECKPOINT_BYTES_PER_S


def expected_hours(work_hours: float, spans: int, mean_hours: float, restart_hours: float) -> float:
    """Hours until `work_hours`, saved after each of `spans` equal parts, are done.

    Exact for failures at a constant rate that can also strike a restart: Daly's complete model.
    Infinite where so long a span without a failure does not happen.
    """
    span = work_hours / spans
    if max(span, restart_hours) > HOPELESS * mean_hours:
        return math.inf
    return spans * mean_hours * math.exp(restart_hours / mean_hours) * math.expm1(span / mean_hours)
