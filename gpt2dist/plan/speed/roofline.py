"""Seconds of one optimizer step from its work and fourteen fitted constants.

Matrix products run at a share of the GPU's ceiling, everything else at the speed of its memory;
the host sets a floor; collectives are rings, partly hidden behind the backward pass; all GPUs wait
for the slowest.
"""

from __future__ import annotations

from dataclasses import dataclass

RING_SHARE = 0.83
"""Ring bandwidth over a link's one direction: 124 of 150 GB/s between 4 V100s (BigScience)."""


@dataclass(frozen=True)
class Constants:
    """What benchmarks/fit_throughput.py fits on published runs, and nothing else."""

    matmul_share: float
    "Matrix products of a training run over the measured ceiling, where the ceiling is low."
    matmul_limit_pflops: float
    "What they would reach under an endless ceiling: the higher it is, the fewer shapes reach it."
    attention_share: float
    "FlashAttention 2 and later: its causal half over what matrix products get."
    attention_share_v1: float
    "The same for FlashAttention 1 and its Triton port."
    eager_bytes: float
    "Effective traffic per token, layer and unit of width, forward and backward, in 16 bits."
    compiled_bytes: float
    hand_written_bytes: float
    score_bytes: float
    "Effective traffic per element of a stored T x T attention matrix, both passes, eager."
    autocast_traffic: float
    "All four under autocast, whose residual stream, norms and softmax are fp32, over 16 bits."
    forward_share: float
    "The forward pass over forward and backward: what recomputation costs."
    pcie_share: float
    "Ring bandwidth over one direction of PCIe; GeForce collectives go through host memory."
    overlap: float
    "Share of a collective's time that is hidden while it runs beside the backward pass."
    hop_us: float
    "Latency of one hop of a ring."
    gpu_spread: float
    "Standard deviation over the mean of the speed of GPUs of one kind."


@dataclass(frozen=True)
class Work:
    """One optimizer step on one GPU. Numbers, or arrays of one shape: nothing here branches."""

    flops_per_s: float
    "Ceiling of the GPU in the step's precision."
    bytes_per_s: float
    "GPU memory."
    matmul_flops: float
    "Of one micro-batch without recomputation, as all down to host_seconds."
    attention_flops: float
    attention_v1_flops: float
    eager_units: float
    "Tokens x layers x width, twice in fp32, if the kernels are eager; else 0."
    compiled_units: float
    hand_written_units: float
    autocast: float
    "1 under autocast, else 0."
    score_units: float
    "Elements of stored T x T matrices, each counted as the share that its kernels move."
    fixed_bytes: float
    "Logits and weights."
    recomputed: float
    "Share of the work that is done twice."
    host_seconds: float
    "To launch all kernels of one micro-batch."
    accumulation: float
    nvlink_gbs: float
    "One direction, inside a node; 0 where PCIe joins its GPUs."
    pcie_gbs: float
    "One direction; 0 where NVLink joins the GPUs of a node."
    internode_gbs: float
    "What a node sends; infinite for one node."
    step_bytes: float
    "What each link of the ring carries once per step."
    micro_bytes: float
    "The same in every micro-batch."
    hops: float
    "Ring hops one after the other in a whole step."
    overlaps: float
    "1 where collectives run beside the backward pass, else 0."
    slowest: float
    "Standard deviations that the slowest GPU is behind the mean: about sqrt(ln n)."
    optimizer_seconds: float


def step_seconds(work: Work, constants: Constants) -> tuple[float, float]:
    """Seconds of computing and of communication that nothing hides, the optimizer aside."""
    c = constants
    flops = (
        work.matmul_flops
        + work.attention_flops / c.attention_share
        + work.attention_v1_flops / c.attention_share_v1
    )
    traffic = (
        c.eager_bytes * work.eager_units
        + c.compiled_bytes * work.compiled_units
        + c.hand_written_bytes * work.hand_written_units
        + c.score_bytes * work.score_units
    )
    traffic = work.fixed_bytes + traffic * (1 + (c.autocast_traffic - 1) * work.autocast)
    device = flops / (c.matmul_share * work.flops_per_s) + flops / (1e15 * c.matmul_limit_pflops)
    device = (device + traffic / work.bytes_per_s) * (1 + c.forward_share * work.recomputed)
    micro = device + _excess(work.host_seconds, device)
    compute = work.accumulation * micro

    gbs = RING_SHARE * work.nvlink_gbs + c.pcie_share * work.pcie_gbs
    slowest_link = 1 / gbs + _excess(1 / (RING_SHARE * work.internode_gbs), 1 / gbs)

    def exposed(ring_bytes: float) -> float:
        seconds = 1e-9 * ring_bytes * slowest_link
        beside = seconds - _excess(seconds, micro * 2 / 3)
        return seconds - work.overlaps * c.overlap * beside

    waits = c.gpu_spread * work.slowest * compute + 1e-6 * c.hop_us * work.hops
    return compute, exposed(work.step_bytes) + exposed(work.micro_bytes) * work.accumulation + waits


def _excess(a: float, b: float) -> float:
    """max(a - b, 0), for arrays too."""
    return (a - b + abs(a - b)) / 2
