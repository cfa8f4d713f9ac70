"""Makes a plan: what a config needs on given hardware, how long it takes and what it costs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import flops_per_token, parameters
from gpt2dist.plan.layout import Layout, Precision
from gpt2dist.plan.loss.predict import LossEstimate, OwnFit, predict_loss
from gpt2dist.plan.machine.costs import JobCost, job_cost
from gpt2dist.plan.machine.hardware import Gpu, Hardware, gpu_named, parse_on
from gpt2dist.plan.machine.prices import Offer, offers, own_offer, why_no_offer
from gpt2dist.plan.measures import Measure, measures_to_fit
from gpt2dist.plan.memory.fit import (
    HEADROOM,
    largest_micro_batch,
    memory,
    micro_batch_for,
)
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.speed.throughput import Throughput, predict

STEADY_MICRO_TOKENS = 65_536
"""Tokens of a micro-batch above which a larger one gains nothing worth its memory."""

NO_MEASURES: tuple[Measure, ...] = ()


def plan_on(
    config: Config,
    on: str,
    *,
    spot: bool = False,
    provider: str | None = None,
    own_fit: OwnFit | None = None,
) -> Plan:
    """The plan on hardware such as `A100-80GB:8x2`, at the cheapest offer that has it.

    Raises BadInput for unknown hardware, or when `provider` has no such machine.
    """
    hardware = parse_on(on)
    offer = offer_for(config, hardware, spot=spot, provider=provider)
    return plan_run(config, hardware, offer, spot=spot, own_fit=own_fit)


def offer_for(
    config: Config, hardware: Hardware, *, spot: bool = False, provider: str | None = None
) -> Offer | None:
    """What such a machine costs: the config's own price, else the cheapest offer, else None."""
    own = own_offer(config.cluster, hardware.gpu.key, hardware.gpus_per_node)
    if own is not None and provider is None:
        return own
    asked = (hardware.name, hardware.gpus_per_node)
    found = offers(*asked, nodes=hardware.nodes, spot=spot, provider=provider)
    if found:
        return found[0]
    if provider is not None or spot:
        why = why_no_offer(*asked, hardware.nodes, spot=spot, provider=provider)
        raise BadInput(f"on={hardware}: {why}")
    return None  # a machine of one's own needs no provider


def plan_run(
    config: Config,
    hardware: Hardware,
    offer: Offer | None,
    *,
    spot: bool = False,
    own_fit: OwnFit | None = None,
    measured: Throughput | None = None,
    measured_peak_gib: float | None = None,
) -> Plan:
    """The plan of a config on given hardware at a given price (None: unknown).

    `measured` replaces the predicted throughput. Raises BadInput for combinations that cannot
    train: bf16 where the GPU has none, a batch that the GPUs cannot share.
    """
    if offer is not None and offer.provider != "own":
        hardware = replace(hardware, gpu=gpu_named(offer.planned_as), family="")
    if config.cluster.network_gbit is not None:
        hardware = replace(hardware, network_gbit=config.cluster.network_gbit)
    gpu = hardware.gpu
    sequences = sequences_per_gpu(config, hardware.gpus)
    wanted = base_layout(config, hardware)
    micro = config.cluster.micro_batch
    if measured is not None and micro is not None:  # it ran, so it fits
        fits, measures = True, NO_MEASURES
        layout = replace(wanted, micro_batch=micro, accumulation=sequences // micro)
    else:
        layout, measures, fits = _fit(config, wanted, gpu, sequences, offer)
    runs = fits or bool(measures)
    throughput = None
    if runs:
        throughput = measured or predict(config.model, hardware, layout)
    params = parameters(config.model)
    return Plan(
        recipe=config.recipe,
        params=params,
        flops_per_token=flops_per_token(config.model),
        tokens=config.total_steps * config.train.batch_tokens,
        steps=config.total_steps,
        gpu=gpu.key,
        gpus=hardware.gpus,
        nodes=hardware.nodes,
        fits=fits,
        memory=memory(config.model, layout),
        gpu_memory_gib=gpu.memory_gib,
        largest_micro_batch=largest_micro_batch(
            config.model, layout, _usable_gib(gpu), config.batch_sequences
        ),
        layout=layout,
        measures=measures,
        throughput=throughput,
        cost=_cost(config, hardware, offer, throughput, layout, spot) if throughput else None,
        offer=offer,
        loss=_loss(config, params, own_fit),
        measured=measured is not None,
        measured_peak_gib=measured_peak_gib,
    )


def _loss(config: Config, params: int, own_fit: OwnFit | None) -> LossEstimate | None:
    if config.data.tokenizer != "gpt2":
        return None  # published losses are per GPT-2 token
    tokens = config.total_steps * config.train.batch_tokens
    return predict_loss(params, tokens, config.data.source, own_fit=own_fit)


def sequences_per_gpu(config: Config, gpus: int) -> int:
    """Training windows per GPU and optimizer step; BadInput when they cannot be shared evenly."""
    sequences = config.batch_sequences
    if sequences % gpus:
        unit = gpus * config.model.context
        lower = config.train.batch_tokens // unit * unit
        raise BadInput(
            f"train.batch_tokens={config.train.batch_tokens:,} is not a multiple of "
            f"{config.model.context:,} x {gpus} GPUs; nearest: {lower or unit:,} or "
            f"{lower + unit:,}"
        )
    return sequences // gpus


def base_layout(config: Config, hardware: Hardware) -> Layout:
    """The layout that the config asks for, before the micro-batch is solved.

    What it decides beyond the config is in Plan.settings().
    """
    precision = _precision(config, hardware.gpu)
    stage = config.zero.stage
    if precision == "fp16" and stage == 0:
        if config.cluster.precision == "fp16":
            raise BadInput("cluster.precision=fp16 needs zero.stage=1 or higher in DeepSpeed")
        stage = 1
    elif hardware.gpus == 1 and precision != "fp16":
        stage = 0  # nothing to shard: DeepSpeed's stages only add buffers and fp32 masters
    return Layout(
        gpus_per_node=hardware.gpus_per_node,
        nodes=hardware.nodes,
        precision=precision,
        mixed_precision="engine" if precision == "fp16" else config.cluster.mixed_precision,
        kernels="eager" if config.cluster.compile is False else "compiled",
        zero_stage=stage,
        recompute=config.cluster.recompute,
    )


def _precision(config: Config, gpu: Gpu) -> Precision:
    asked = config.cluster.precision
    if asked == "auto":
        return "bf16" if gpu.has_bf16 else "fp16"
    if asked == "bf16" and not gpu.has_bf16:
        raise BadInput(
            f"cluster.precision=bf16: {gpu.key} has no bf16 units; "
            "use cluster.precision=fp16 zero.stage=1"
        )
    return asked


def _fit(
    config: Config, wanted: Layout, gpu: Gpu, sequences: int, offer: Offer | None
) -> tuple[Layout, tuple[Measure, ...], bool]:
    """The layout with its micro-batch, the measures it took, and whether it fits without any."""
    model = config.model
    micro = config.cluster.micro_batch
    if micro is not None:
        if sequences % micro:
            near = next(d for d in range(min(micro, sequences), 0, -1) if sequences % d == 0)
            raise BadInput(
                f"cluster.micro_batch={micro} does not divide the {sequences} sequences of a "
                f"GPU; nearest: {near}"
            )
        layout = replace(wanted, micro_batch=micro, accumulation=sequences // micro)
        if memory(model, layout).peak_gib <= gpu.memory_gib:
            return layout, NO_MEASURES, True
    else:
        solved = _solved(config, wanted, gpu, sequences)
        if solved is not None:
            return solved, NO_MEASURES, True
    host_gib = offer.host_gib if offer else None
    found = measures_to_fit(model, wanted, _usable_gib(gpu), sequences, host_gib)
    if found is None:
        return replace(wanted, micro_batch=1, accumulation=sequences), NO_MEASURES, False
    layout, measures = found
    return _solved(config, layout, gpu, sequences) or layout, measures, False


def _usable_gib(gpu: Gpu) -> float:
    return gpu.memory_gib * (1 - HEADROOM)


def _solved(config: Config, layout: Layout, gpu: Gpu, sequences: int) -> Layout | None:
    """The layout with the micro-batch that training would take; None when not even 1 fits."""
    steady = max(1, STEADY_MICRO_TOKENS // config.model.context)
    micro = micro_batch_for(config.model, layout, _usable_gib(gpu), sequences)
    while micro > steady and micro % 2 == 0:
        micro //= 2
    if not micro:
        return None
    return replace(layout, micro_batch=micro, accumulation=sequences // micro)


def _cost(
    config: Config,
    hardware: Hardware,
    offer: Offer | None,
    throughput: Throughput,
    layout: Layout,
    spot: bool,
) -> JobCost:
    tokens = config.total_steps * config.train.batch_tokens
    steps, saved = config.total_steps, config.checkpoint
    train_hours = tokens / throughput.tokens_per_s / 3600
    checkpoints = 1 + (steps // saved.every_steps if saved.every_steps else 0)
    if saved.every_minutes:
        checkpoints += int(train_hours * 60 / saved.every_minutes)
    return job_cost(
        train_hours=train_hours,
        train_hours_low=tokens / throughput.high / 3600,
        train_hours_high=tokens / throughput.low / 3600,
        usd_per_hour=offer.usd_per_hour if offer else 0.0,
        nodes=hardware.nodes,
        spot=spot or bool(offer and offer.spot),
        params=parameters(config.model),
        evals=1 + (steps // config.eval.every_steps if config.eval.every_steps else 0),
        eval_tokens=config.eval.tokens,
        tokens_per_s=throughput.tokens_per_s,
        checkpoints=checkpoints,
        data_tokens_to_prepare=tokens_to_prepare(config),
        compiled=layout.kernels == "compiled",
        world=hardware.gpus,
        vcpus=offer.vcpus if offer else None,
        rented=offer is None or offer.provider != "own",
    )


def tokens_to_prepare(config: Config) -> float:
    """Tokens that are tokenised before training; none when the config names finished shards.

    A Hugging Face sample says its size in its name (sample-10BT) and is prepared whole.
    """
    finished = Path(config.data.source) / "manifest.json"
    if config.paths.dataset is not None or finished.is_file():
        return 0.0
    sample = re.search(r"sample-(\d+)BT", config.data.source)
    return float(sample[1]) * 1e9 if sample else float(config.train.tokens)
