"""Tokens per second of a layout on a machine: what a step computes, moves and sends, as Work.

What the constants of the roofline are fitted on, and how far the predictions are off on published
runs that the fit has not seen, is in docs/planner-throughput.md.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from gpt2dist.config.schema import ModelConfig
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import (
    block_matrices,
    flops_per_token,
    lora_parameters,
    parameters,
)
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.machine.hardware import Gpu, Hardware, gpu_named
from gpt2dist.plan.speed.roofline import Constants, Work, step_seconds

SCORE_SHARE = {"eager": 1.0, "compiled": 0.43, "hand-written": 0.43}
"""Traffic of a stored T x T matrix against eager's: scale, mask, fp32 softmax and casts take 56
bytes per element one by one and 24 fused, both passes; counted by hand."""

LOGIT_BYTES = {"eager": 32, "compiled": 16, "hand-written": 12}
"""Traffic per logit, both passes, counted by hand; hand-written losses work in place."""

WEIGHT_BYTES = 20
"""Traffic per weight and micro-batch: 16-bit copy (4 + 2), read twice, gradient added in fp32."""

ADAM_BYTES = {"adamw": 44, "adamw8bit": 28}
"""Traffic per weight and step: norm, clip, zero of the gradient (16), AdamW itself (28 or 12)."""

HOST_ADAM_S_PER_WEIGHT = 30 / 120e9
"""CPU Adam moves 30 bytes per weight; 120 GB/s of host memory is a server's (8 channels of
DDR4-3200: 205 nominal). A desktop has half and less."""

HOST_MS_PER_LAYER = {"eager": 1.0, "compiled": 0.5, "hand-written": 0.1}
"""Time to launch one layer's kernels, both passes: about 100, 50 and 20 launches of 5 to 10 us."""

CLOCK_EXPONENT = 1 / 3
"""Power grows with the cube of the clock, so speed under a power limit with its cube root."""


@dataclass(frozen=True)
class Throughput:
    tokens_per_s: float
    low: float
    "low to high: holds 80 % of published runs of sources that the fit had not seen."
    high: float
    mfu: float | None
    """Model FLOPs over the dense peak of the precision (TF32's for fp32 where there is TF32).

    None: the peak of the device is not known.
    """
    step_seconds: float


def predict(model: ModelConfig, hardware: Hardware, layout: Layout) -> Throughput:
    """Speed of `layout` on `hardware`."""
    if (layout.gpus_per_node, layout.nodes) != (hardware.gpus_per_node, hardware.nodes):
        raise ValueError(f"layout of {layout.gpus} GPUs on hardware of {hardware.gpus}")
    constants, low, high = fitted()
    work = step_work(model, hardware, layout)
    seconds = sum(step_seconds(work, constants)) + work.optimizer_seconds
    tokens = layout.micro_batch * layout.accumulation * model.context * hardware.gpus
    flops = flops_per_token(model)
    if layout.lora_rank is not None:
        flops -= 2 * (block_matrices(model) + model.vocab * model.width)
    return Throughput(
        tokens_per_s=tokens / seconds,
        low=tokens / seconds * low,
        high=tokens / seconds * high,
        mfu=tokens * flops / seconds / hardware.gpus / _peak_flops(hardware.gpu, layout.precision),
        step_seconds=seconds,
    )


def step_work(
    model: ModelConfig, hardware: Hardware, layout: Layout, block_weights: float | None = None
) -> Work:
    """What one step asks of one GPU; `block_weights` replaces GPT-2's 12 d^2 of a layer.

    DeepSpeed hides collectives behind the backward pass at stage 3 only (its default overlap_comm).
    """
    gpu, kernels, d = hardware.gpu, layout.kernels, model.width
    # FlashAttention 2 needs Ampere; PyTorch's fused attention is slower before it.
    attention_v1 = gpu.generation < 8
    tokens = layout.micro_batch * model.context
    blocks = block_matrices(model) if block_weights is None else model.layers * block_weights
    matmul_weights = blocks + model.vocab * d
    word = 2 if layout.precision == "fp32" else 1

    # 6 FLOPs per weight and token; 4 where LoRA spares the weights' own gradients.
    matmul = tokens * matmul_weights * (6 if layout.lora_rank is None else 4)
    attention = 6.0 * tokens * model.layers * model.context * d
    scores = 0.0
    if not layout.fused_attention:
        matmul, attention = matmul + 2 * attention, 0.0
        scores = tokens * model.layers * model.heads * model.context * SCORE_SHARE[kernels] * word
    # A gated or wider MLP moves more in proportion to its weights.
    units = tokens * blocks / (12 * d) * word

    trained = matmul_weights + model.context * d
    if layout.lora_rank is not None:
        trained = lora_parameters(model, layout.lora_rank)
    sends = hardware.gpus > 1
    step_bytes, micro_bytes = _sent_bytes(layout, trained, parameters(model)) if sends else (0, 0)
    alone = hardware.gpus_per_node == 1
    return Work(
        flops_per_s=1e12 * ceiling_tflops(gpu, layout.precision),
        bytes_per_s=1e9 * gpu.bandwidth_gbs,
        matmul_flops=matmul,
        attention_flops=0 if attention_v1 else attention,
        attention_v1_flops=attention if attention_v1 else 0,
        eager_units=units * (kernels == "eager"),
        compiled_units=units * (kernels == "compiled"),
        hand_written_units=units * (kernels == "hand-written"),
        autocast=float(layout.mixed_precision == "autocast" and layout.precision != "fp32"),
        score_units=scores,
        fixed_bytes=WEIGHT_BYTES * matmul_weights
        + tokens * model.vocab * LOGIT_BYTES[kernels] * word,
        recomputed=layout.recompute * blocks / matmul_weights,
        host_seconds=1e-3 * HOST_MS_PER_LAYER[kernels] * model.layers,
        accumulation=layout.accumulation,
        nvlink_gbs=math.inf if alone else (gpu.nvlink_gbs or 0) / 2,
        pcie_gbs=0 if alone or gpu.nvlink_gbs else gpu.pcie_gbs,
        internode_gbs=hardware.network_gbit / 8 if hardware.nodes > 1 else math.inf,
        step_bytes=step_bytes * (hardware.gpus - 1) / hardware.gpus,
        micro_bytes=micro_bytes * (hardware.gpus - 1) / hardware.gpus,
        hops=(hardware.gpus - 1) * _collectives(layout, model.layers),
        overlaps=float(layout.zero_stage == 3),
        slowest=math.sqrt(math.log(hardware.gpus)),
        optimizer_seconds=_optimizer_seconds(layout, hardware, trained),
    )


def ceiling_tflops(gpu: Gpu, precision: str) -> float:
    """The fastest matrix product to expect; fp32 means TF32 where there is TF32.

    Measured in 16 bits, other precisions in proportion; or scaled from the nearest measured chip,
    slower by the cube root where the GPU has fewer watts per nominal TFLOP/s.
    """
    like = gpu if gpu.ceiling_like is None else gpu_named(gpu.ceiling_like)
    if like.measured_tflops is None:
        raise ValueError(f"gpus.csv: {gpu.name} and {like.name} have no measured ceiling")
    nominal, like_nominal = gpu.peak_tflops["fp16"], like.peak_tflops["fp16"]
    power = min(1.0, (gpu.watts / nominal) / (like.watts / like_nominal))
    share = like.measured_tflops / like_nominal * power**CLOCK_EXPONENT
    return share * _peak_flops(gpu, precision) / 1e12


@cache
def fitted() -> tuple[Constants, float, float]:
    """The fitted constants, and the 80 % interval as factors of the prediction."""
    with files("gpt2dist.plan.speed").joinpath("throughput_fit.csv").open(encoding="utf-8") as file:
        values = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    low, high = values.pop("low"), values.pop("high")
    return Constants(**values), low, high


def _peak_flops(gpu: Gpu, precision: str) -> float:
    if precision == "bf16" and not gpu.has_bf16:
        raise BadInput(
            f"cluster.precision=bf16: {gpu.key} does not compute bf16; "
            "use cluster.precision=fp16 zero.stage=1"
        )
    if precision == "fp32":
        return 1e12 * gpu.peak_tflops.get("tf32", gpu.peak_tflops["fp32"])
    return 1e12 * gpu.peak_tflops[precision]


def _sent_bytes(layout: Layout, trained: float, all_weights: float) -> tuple[float, float]:
    """Buffers that pass the ring once, per step and per micro-batch; an all-reduce passes twice.

    DeepSpeed: stage 0 all-reduces gradients in the weights' type. Stages 1 and 2 reduce them in
    the compute type, 2 in every micro-batch, and gather the new weights. Stage 3 gathers the
    weights twice and reduces in every micro-batch.
    """
    compute_bytes = 4 if layout.precision == "fp32" else 2
    engine = layout.mixed_precision == "engine" or layout.precision == "fp16"
    weight_bytes = compute_bytes if engine else 4
    if layout.zero_stage == 0:
        return 2 * weight_bytes * trained, 0
    if layout.zero_stage == 1:
        return (compute_bytes + weight_bytes) * trained, 0
    if layout.zero_stage == 2:
        return weight_bytes * trained, compute_bytes * trained
    return 0, compute_bytes * (2 * all_weights + trained)


def _collectives(layout: Layout, layers: int) -> int:
    """Passes around the ring per step; stage 3 has them layer by layer."""
    if layout.zero_stage == 3:
        return 3 * layers * layout.accumulation
    return 1 + layout.accumulation if layout.zero_stage == 2 else 2


def _optimizer_seconds(layout: Layout, hardware: Hardware, trained: float) -> float:
    own = trained / (hardware.gpus if layout.zero_stage else 1)
    if layout.offload == "none":
        return ADAM_BYTES[layout.optimizer] * own / (1e9 * hardware.gpu.bandwidth_gbs)
    # Gradients come down and weights go up in 16 bits; the GPUs of a node share its CPUs.
    return own * (
        4 / (1e9 * hardware.gpu.pcie_gbs) + HOST_ADAM_S_PER_WEIGHT * hardware.gpus_per_node
    )
