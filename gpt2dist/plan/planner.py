"""Makes a plan: what a config needs on given hardware, how long it takes and what it costs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import flops_per_token, generation, parameters
from gpt2dist.plan.goals import USUAL, Basis, plan_for
from gpt2dist.plan.loss.predict import LossEstimate, predict_loss
from gpt2dist.plan.machine.costs import JobCost, Workload
from gpt2dist.plan.machine.hardware import Hardware, gpu_named, parse_on
from gpt2dist.plan.machine.prices import Offer, offers, own_offer, why_no_offer
from gpt2dist.plan.memory.fit import largest_micro_batch, memory, runs_at_once
from gpt2dist.plan.placement import Solution, machine_of, solve
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.speed.throughput import Throughput, predict

TOKENS_PER_DOCUMENT = 1030.0
"""Of FineWeb-Edu's sample-10BT: 9,672,101 rows, whose column token_count sums to 9.97e9."""


def plan_on(
    config: Config,
    on: str,
    *,
    spot: bool = False,
    provider: str | None = None,
    basis: Basis = USUAL,
) -> Plan:
    """The best plan on hardware such as `A100-80GB:8x2`, at the offers that have it.

    Raises BadInput for unknown hardware, or when `provider` has no such machine.
    """
    hardware = parse_on(on)
    found = offers_for(config, hardware, spot=spot, provider=provider)
    return best_plan(config, hardware, found, basis)


def best_plan(
    config: Config, hardware: Hardware, choices: Sequence[Offer | None], basis: Basis
) -> Plan:
    """Of the plans at several prices: one that runs, the longest, the one of fewest dollars."""
    plans, refusals = [], []
    for offer in choices:
        try:
            plans.append(plan_run(config, hardware, offer, basis))
        except BadInput as refusal:  # these dollars may buy one card and not another
            refusals.append(refusal)
    if not plans:
        raise refusals[0]
    return min(plans, key=lambda plan: (not plan.runs, -plan.tokens, plan.usd or math.inf))


def offers_for(
    config: Config, hardware: Hardware, *, spot: bool = False, provider: str | None = None
) -> list[Offer | None]:
    """What such a machine costs: the config's own price, else the cheapest offer of each card.

    A name such as A100-80GB leaves open which card it is. None: no price is known.
    """
    own = own_offer(config.cluster, hardware.gpu.key, hardware.gpus_per_node)
    if own is not None and provider is None:
        return [own]
    asked = (hardware.name, hardware.gpus_per_node)
    cheapest: dict[str, Offer | None] = {}
    for offer in offers(*asked, spot=spot, provider=provider):  # cheapest first
        if hardware.nodes == 1 or offer.multi_node:
            cheapest.setdefault(offer.planned_as, offer)
    if cheapest:
        return list(cheapest.values())
    if provider is not None or spot:
        why = why_no_offer(*asked, hardware.nodes, spot=spot, provider=provider)
        raise BadInput(f"on={hardware}: {why}")
    return [None]  # a machine of one's own needs no provider


def plan_run(config: Config, hardware: Hardware, offer: Offer | None, basis: Basis = USUAL) -> Plan:
    """The plan of a config on given hardware at a given price (None: unknown).

    A goal makes the run longer or shorter. Raises BadInput for combinations that cannot train and
    for goals that cannot be met.
    """
    on_gpus = _on_gpus(config, hardware)
    if offer is not None and offer.provider != "own":
        hardware = replace(hardware, gpu=gpu_named(offer.planned_as), family="")
    if config.cluster.network_gbit is not None:
        hardware = replace(hardware, network_gbit=config.cluster.network_gbit)
    machine = machine_of(hardware, offer.host_gib if offer else None)
    solution = solve(on_gpus, machine, gpus=hardware.gpus)
    return price(config, solution, hardware, offer, basis)


def _on_gpus(config: Config, hardware: Hardware) -> Config:
    """The config without a choice that naming the hardware has made already."""
    cluster = config.cluster
    if cluster.workers not in (None, hardware.gpus):
        raise BadInput(
            f"cluster.workers={cluster.workers}, but on={hardware} has {hardware.gpus}: "
            "leave one of them out"
        )
    if cluster.device == "cpu":
        raise BadInput(f"cluster.device=cpu, but on={hardware} names GPUs: leave one of them out")
    return replace(config, cluster=replace(cluster, device="cuda", workers=None))


def price(
    config: Config, solution: Solution, hardware: Hardware, offer: Offer | None, basis: Basis
) -> Plan:
    """The plan of a run that is placed already, as long as its goal says, else its config.

    Raises BadInput for a goal that cannot be met.
    """
    model, layout, measured = config.model, solution.placement.layout, basis.measured
    throughput = None
    if solution.fits or solution.measures:
        throughput = measured.throughput if measured else predict(model, hardware, layout)
    usable_gib = machine_of(hardware).usable_gib
    placed = Plan(
        config=config,
        params=parameters(model),
        flops_per_token=flops_per_token(model),
        gpu=hardware.gpu.key,
        gpus=hardware.gpus,
        nodes=hardware.nodes,
        fits=solution.fits,
        wanted_gib=memory(model, solution.wanted).peak_gib,
        memory=memory(model, layout),
        gpu_memory_gib=hardware.gpu.memory_gib,
        largest_micro_batch=largest_micro_batch(model, layout, usable_gib, config.batch_sequences),
        layout=layout,
        measures=solution.measures,
        throughput=throughput,
        cost=None,
        offer=offer,
        loss=None,
        generation=generation(model, hardware.gpu.bandwidth_gbs),
        runs_at_once=runs_at_once(model, layout, usable_gib),
        measured=measured is not None,
        measured_peak_gib=measured.peak_gib if measured else None,
    )
    return plan_for(config, basis, lambda longer: _lasting(placed, longer, basis))


def _lasting(placed: Plan, config: Config, basis: Basis) -> Plan:
    """The plan on the same machine in the same layout of a run that is longer or shorter."""
    plan = replace(placed, config=config, loss=_loss(config, basis))
    return replace(plan, cost=_cost(plan, plan.throughput, basis)) if plan.throughput else plan


def _loss(config: Config, basis: Basis) -> LossEstimate | None:
    if config.data.tokenizer != "gpt2":
        return None  # published losses are per GPT-2 token
    unique, documents = basis.dataset_tokens, config.data.max_documents
    if unique is None and documents is not None:
        unique = documents * TOKENS_PER_DOCUMENT
    return predict_loss(
        parameters(config.model),
        config.total_tokens,
        config.data.source,
        own_fit=basis.own_fit,
        unique_tokens=unique,
    )


def _cost(plan: Plan, throughput: Throughput, basis: Basis) -> JobCost:
    config, offer, saved = plan.config, plan.offer, plan.config.checkpoint
    train_hours = plan.tokens / throughput.tokens_per_s / 3600
    checkpoints = 1 + (plan.steps // saved.every_steps if saved.every_steps else 0)
    if saved.every_minutes:
        checkpoints += int(train_hours * 60 / saved.every_minutes)
    to_prepare = min(tokens_to_prepare(config), basis.dataset_tokens or math.inf)
    return Workload(
        train_hours=train_hours,
        train_hours_low=plan.tokens / throughput.high / 3600,
        train_hours_high=plan.tokens / throughput.low / 3600,
        usd_per_hour=offer.usd_per_hour if offer else 0.0,
        nodes=plan.nodes,
        spot=bool(offer and offer.spot),
        params=plan.params,
        evals=1 + (plan.steps // config.eval.every_steps if config.eval.every_steps else 0),
        eval_tokens=config.eval.tokens,
        tokens_per_s=throughput.tokens_per_s,
        checkpoints=checkpoints,
        data_tokens_to_prepare=0.0 if basis.data_ready else to_prepare,
        compiled=plan.layout.kernels == "compiled",
        world=plan.gpus,
        vcpus=offer.vcpus if offer else None,
        rented=offer is None or offer.provider != "own",
    ).cost()


def tokens_to_prepare(config: Config) -> float:
    """Tokens that are tokenised before training; none when the config names finished shards.

    A Hugging Face sample says its size in its name (sample-10BT) and is prepared whole.
    """
    finished = Path(config.data.source) / "manifest.json"
    if config.paths.dataset is not None or finished.is_file():
        return 0.0
    sample = re.search(r"sample-(\d+)BT", config.data.source)
    whole = float(sample[1]) * 1e9 if sample else float(config.train.tokens)
    documents = config.data.max_documents
    return whole if documents is None else min(whole, documents * TOKENS_PER_DOCUMENT)
