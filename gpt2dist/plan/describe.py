"""Plans as people and programs read them: text, a table, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2dist.human import columns, human_count, human_duration, usd
from gpt2dist.plan.loss.own_fit import OwnFit
from gpt2dist.plan.loss.predict import compute_optimal
from gpt2dist.plan.machine.costs import JobCost
from gpt2dist.plan.machine.prices import (
    DISK_BILLED_BESIDE,
    DISK_GIB,
    DISK_USD_PER_GIB_MONTH,
    why_no_offer,
)
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.ranking import Refused, quickest

UNKNOWN = "unknown"
HOURS_OF_MONTH = 730


def describe(plan: Plan) -> str:
    """One plan, priced, for a terminal."""
    parts = (_what, _memory, _speed, _money, _budget, _beside, _loss)
    return "\n".join(line for part in parts for line in part(plan))


def compute_optimal_line(plan: Plan, own_fit: OwnFit | None = None) -> str:
    """The size and length at which the plan's compute would reach the lowest loss."""
    flops = 6.0 * plan.params * plan.tokens
    params, tokens = compute_optimal(flops, plan.config.data.source, own_fit=own_fit)
    return (
        f"for this compute the lowest loss comes from about {human_count(params)} parameters "
        f"and {human_count(tokens)} tokens"
    )


def table(plans: Sequence[Plan], limit: int | None = None, *, equal_hours: bool = False) -> str:
    """One line per plan, in the order given; the quickest is marked unless all take the same."""
    fastest = None if equal_hours else quickest(plans)
    head = ("recipe", "on", "offer", "$/h", "tokens", "hours", "dollars", "loss", "memory", "with")
    rows = [head]
    shown = list(plans[:limit])
    if fastest is not None and not any(plan is fastest for plan in shown):
        shown.append(fastest)
    for plan in shown:
        offer = plan.offer
        rows.append(
            (
                plan.recipe,
                _machine(plan),
                f"{offer.provider}{' spot' if offer.spot else ''}" if offer else UNKNOWN,
                f"{plan.usd_per_hour:.2f}" if plan.usd_per_hour is not None else UNKNOWN,
                human_count(plan.tokens),
                _hours(plan.hours) + (" *" if plan is fastest else ""),
                usd(plan.usd) if plan.usd is not None else UNKNOWN,
                f"{plan.val_loss:.2f}" if plan.val_loss is not None else UNKNOWN,
                f"{plan.peak_gib:.0f} of {plan.gpu_memory_gib:.0f} GiB",
                ", ".join(measure.name for measure in plan.measures) or "-",
            )
        )
    lines = columns(rows, left=range(len(head)))
    if len(plans) > len(shown):
        lines.append(f"... {len(plans) - len(shown)} more; --rows shows them")
    if fastest is not None:
        lines.append("* the fewest hours")
    return "\n".join(lines)


def refusals(refused: Sequence[Refused], limit: int = 8) -> str:
    """Why combinations are missing from a table."""
    lines = [f"not possible: {r.recipe} on {r.on}: {r.reason}" for r in refused[:limit]]
    if len(refused) > limit:
        lines.append(f"... and {len(refused) - limit} more that are not possible")
    return "\n".join(lines)


def as_json(plan: Plan, recipe: str | None = None) -> dict[str, Any]:
    """The plan as plain data; the names of its fields are kept stable.

    `settings` are overrides of `recipe`, by default the plan's own.
    """
    layout, speed, loss = plan.layout, plan.throughput, plan.loss
    offer, cost = plan.offer, plan.cost
    return {
        "recipe": plan.recipe,
        "params": plan.params,
        "flops_per_token": plan.flops_per_token,
        "tokens": plan.tokens,
        "steps": plan.steps,
        "gpu": plan.gpu,
        "gpus": plan.gpus,
        "nodes": plan.nodes,
        "fits": plan.fits,
        "runs": plan.runs,
        "peak_gib": plan.peak_gib,
        "gpu_memory_gib": plan.gpu_memory_gib,
        "memory": vars(plan.memory),
        "micro_batch": layout.micro_batch,
        "largest_micro_batch": plan.largest_micro_batch,
        "grad_accum": layout.accumulation,
        "zero_stage": layout.zero_stage,
        "precision": layout.precision,
        "recompute": layout.recompute,
        "kernels": layout.kernels,
        "measures": [vars(measure) for measure in plan.measures],
        "tokens_per_s": plan.tokens_per_s,
        "tokens_per_s_range": (speed.low, speed.high) if speed else None,
        "mfu": speed.mfu if speed else None,
        "measured": plan.measured,
        "hours": plan.hours,
        "hours_by_phase": phases(cost) if cost else None,
        "usd": plan.usd,
        "usd_range": plan.usd_range,
        "usd_per_hour": plan.usd_per_hour,
        "offer": vars(offer) if offer else None,
        "val_loss": plan.val_loss,
        "val_loss_range": (loss.low, loss.high) if loss else None,
        "val_loss_basis": loss.basis if loss else None,
        "generation": vars(plan.generation),
        "runs_at_once": plan.runs_at_once,
        "settings": plan.settings(recipe),
    }


def phases(cost: JobCost) -> dict[str, float]:
    """Hours by phase, in the order in which they pass."""
    return {
        "setup": cost.setup_hours,
        "data": cost.data_hours,
        "compile": cost.compile_hours,
        "train": cost.train_hours,
        "evaluate": cost.eval_hours,
        "checkpoints": cost.checkpoint_hours,
        "lost": cost.lost_hours,
    }


def _what(plan: Plan) -> list[str]:
    return [
        f"{plan.recipe}: {human_count(plan.params)} parameters, {human_count(plan.tokens)} tokens "
        f"in {plan.steps:,} steps, {plan.flops_per_token / 1e9:.2f} GFLOPs a token, "
        f"on {_machine(plan)}"
    ]


def _memory(plan: Plan) -> list[str]:
    memory, room = plan.memory, plan.gpu_memory_gib
    terms = [
        (name.removesuffix("_gib"), value)
        for name, value in vars(memory).items()
        if name.endswith("_gib") and name != "host_gib" and value >= 0.005
    ]
    parts = " + ".join(f"{name} {value:.2f}" for name, value in terms)
    spare = room - plan.peak_gib
    if plan.fits:
        verdict = f"fits, {spare:.1f} GiB to spare"
    elif plan.measures:
        verdict = f"fits with the measures below, {spare:.1f} GiB to spare"
    else:
        verdict = f"does not fit: {-spare:.1f} GiB too much"
    if plan.measured_peak_gib is not None:
        return [f"memory   {plan.peak_gib:.1f} of {room:.1f} GiB, measured here", *_batch(plan)]
    lines = [f"memory   {memory.peak_gib:.1f} of {room:.1f} GiB a GPU, {verdict}"]
    lines.append(f"         {parts} GiB")
    if memory.host_gib:
        lines.append(f"         and {memory.host_gib:.0f} GiB of host memory a machine")
    lines += _batch(plan)
    if not plan.fits and plan.measures:
        lines.append(
            f"         does not fit as configured ({plan.wanted_gib:.1f} GiB); it does with:"
        )
        for measure in plan.measures:
            how = measure.setting or "arithmetic only, `gpt2dist train` does not offer it"
            lines.append(
                f"         - {measure.name} ({how}): saves {measure.saves_gib:.1f} GiB, "
                f"{measure.speed:.2f} x the speed{'; ' + measure.note if measure.note else ''}"
            )
    elif not plan.fits:
        lines.append("         no measure makes it fit: take a larger GPU or more of them")
    return lines


def _batch(plan: Plan) -> list[str]:
    layout = plan.layout
    line = (
        f"batch    micro-batch {layout.micro_batch} x {layout.accumulation} accumulated x "
        f"{plan.gpus} device{'s' if plan.gpus > 1 else ''}, {layout.precision}, ZeRO "
        f"{layout.zero_stage}{', recomputation' if layout.recompute else ''}, "
        f"{layout.kernels} kernels"
    )
    if plan.measured_peak_gib is None:
        line += f"; largest micro-batch that fits: {plan.largest_micro_batch}"
    return [line]


def _speed(plan: Plan) -> list[str]:
    speed = plan.throughput
    if speed is None:
        return []
    how = (
        "measured here"
        if plan.measured
        else f"{human_count(speed.low)} to {human_count(speed.high)}"
    )
    return [
        f"speed    {human_count(speed.tokens_per_s)} tokens/s ({how})"
        + (f", MFU {100 * speed.mfu:.0f} %" if speed.mfu is not None else "")
        + f"; a step takes {speed.step_seconds:.2f} s"
    ]


def _money(plan: Plan) -> list[str]:
    cost = plan.cost
    if cost is None:
        return []
    parts = ", ".join(
        f"{name} {_hours(hours)}" for name, hours in phases(cost).items() if hours >= 0.005
    )
    lines = [f"time     {_hours(cost.hours)}: {parts}"]
    offer = plan.offer
    if offer is None:
        asked = (plan.gpu, plan.gpus // plan.nodes, plan.nodes)
        why = "unknown: this machine has no price" if plan.measured else why_no_offer(*asked)
        lines.append(
            f"money    {why}; cluster.usd_per_hour=... prices your own, or cluster.watts=... with "
            "cluster.usd_per_kwh=..."
        )
        return lines
    low, high = plan.usd_range or (cost.usd, cost.usd)
    lines.append(
        f"money    {usd(cost.usd)} ({usd(low)} to {usd(high)}) at ${plan.usd_per_hour:.2f}/h: "
        f"{plan.nodes} x {offer.provider} {offer.instance}{' spot' if offer.spot else ''}"
        f"{', ' + offer.region if offer.region else ''} ({offer.source})"
    )
    if offer.provider in DISK_BILLED_BESIDE:
        disk_usd = plan.nodes * DISK_GIB * DISK_USD_PER_GIB_MONTH / HOURS_OF_MONTH
        lines.append(
            f"         without disks ({DISK_GIB} GiB a machine: about ${disk_usd:.3f}/h more) "
            "and traffic"
        )
    return lines


def _budget(plan: Plan) -> list[str]:
    """The limits of the config that the run would not keep within."""
    budget = plan.config.budget
    planned = {"usd": plan.usd, "hours": plan.hours, "tokens": plan.tokens}
    return [
        f"budget   budget.{unit}={limit} ends the run before its end; "
        f"--{unit} {limit} instead plans the longest run within it"
        for unit, takes in planned.items()
        if (limit := getattr(budget, unit)) is not None and takes is not None and takes > limit
    ]


def _loss(plan: Plan) -> list[str]:
    if plan.loss is None:
        return ["loss     unknown: no published run learns from this text, and no fit of your own"]
    loss = plan.loss
    return [f"loss     {loss.loss:.2f} ({loss.low:.2f} to {loss.high:.2f}); {loss.basis}"]


def _beside(plan: Plan) -> list[str]:
    """What else people ask of a GPU: how fast it writes, how many models it trains at once."""
    if plan.measured or not plan.runs:
        return []
    write, several = plan.generation, plan.runs_at_once
    side = f"; {several} such runs fit on one GPU side by side" if several > 1 else ""
    return [
        f"sample   {human_count(write.tokens_per_s_at_most)} tokens/s at most on one GPU, "
        f"{write.weights_gib:.2f} GiB and {write.cache_gib:.3f} GiB a sequence{side}"
    ]


def _machine(plan: Plan) -> str:
    return plan.on if plan.gpus > 1 else plan.gpu


def _hours(hours: float | None) -> str:
    return UNKNOWN if hours is None else human_duration(3600 * hours)
