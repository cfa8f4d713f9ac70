"""SkyPilot task files: what is rented, what is installed, what is run and what it may cost.

Everything that a machine does is in `setup.sh`, `rented.sh` and `cluster/ray_cluster.sh`; the
files only name hardware, price, budget and the run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from gpt2dist.errors import TRY_AGAIN
from gpt2dist.launch.allowance import Reserve
from gpt2dist.launch.providers import require_capable
from gpt2dist.plan.machine.costs import IDLE_MINUTES
from gpt2dist.plan.machine.prices import DISK_GIB, Offer
from gpt2dist.plan.plan_record import Plan

Tree = dict[str, Any]

SETUP = "timeout 1800 bash gpt2dist/launch/machine/setup.sh\n"
TRAIN = (
    "bash gpt2dist/launch/machine/rented.sh 'bash cluster/ray_cluster.sh\n"
    '  gpt2dist train "$RECIPE" --name "$RUN" cluster.device=cuda "${overrides[@]}"\n'
    '  budget.usd="$RUN_BUDGET_USD"\'\n'
)
MOUNT = "/gpt2dist-bucket"
"""Where a bucket that SkyPilot mounts appears; runs are copied there."""

SECRETS = (
    "HF_TOKEN",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
)
"""Given to the machine when this one has them; none is needed to launch."""


@dataclass(frozen=True)
class Rental:
    """One kind of machine that a task may run on."""

    provider: str
    gpu: str
    "As SkyPilot names it at that provider."
    gpus: int
    usd_per_hour: float
    "The most that one machine may cost."
    spot: bool = False
    instance: str | None = None
    "None leaves the choice among machines with that GPU to SkyPilot."
    region: str | None = None
    "None: wherever the price holds."

    @classmethod
    def of(cls, offer: Offer) -> Rental:
        """The offer itself: a card that its GPU's name does not tell is pinned by instance.

        GCP sells GPU and machine apart, and SkyPilot compares only the GPU with the price limit:
        there the region is pinned, to which the price belongs.
        """
        return cls(
            provider=offer.provider,
            gpu=offer.gpu,
            gpus=offer.gpus,
            usd_per_hour=offer.usd_per_hour,
            spot=offer.spot,
            instance=offer.instance if offer.card else None,
            region=offer.region if offer.provider == "gcp" else None,
        )

    def resources(self) -> Tree:
        """SkyPilot refuses machines above `max_hourly_cost`: a stale price cannot overspend."""
        infra = f"{self.provider}/{self.region}" if self.region else self.provider
        tree: Tree = {"infra": infra, "accelerators": f"{self.gpu}:{self.gpus}"}
        if self.instance:
            tree["instance_type"] = self.instance
        if self.spot:
            tree["use_spot"] = True
        return {**tree, "max_hourly_cost": self.usd_per_hour}


def run_envs(
    run: str,
    settings: Sequence[str],
    rentals: Sequence[Rental],
    budget_usd: Sequence[float],
    reserve: Reserve,
) -> dict[str, str]:
    """What a training task is told of its run; `budget_usd` as `amounts` takes it."""
    return {
        "OVERRIDES": shlex.join(settings),
        "RUN": run,
        "BUDGET_USD": amounts(rentals, budget_usd),
        "USD_PER_HOUR": amounts(rentals, [rental.usd_per_hour for rental in rentals]),
        "GRACE_S": f"{reserve.grace_s:g}",
        "UPLOAD_S": f"{reserve.upload_s:g}",
    }


def train_tree(name: str, nodes: int, rentals: Sequence[Rental], envs: Mapping[str, str]) -> Tree:
    """The task that trains `envs["RECIPE"]` on the first of `rentals` that can be had.

    `envs`: RECIPE, those of `run_envs`, BUCKET (an address such as s3://..., the name of a bucket
    to mount, or empty) and DATA (the address of prepared shards, or empty).
    Raises BadInput when a provider lacks what the task needs.
    """
    bucket = envs["BUCKET"]
    mounted = bool(bucket) and "://" not in bucket
    for rental in rentals:
        require_capable(rental.provider, nodes=nodes, spot=rental.spot, bucket_mount=mounted)
    told = {**envs, "BUCKET": MOUNT} if mounted else envs
    share = {"SHARE": "nfs"} if nodes > 1 else {}
    tree = task_tree(name, nodes, rentals, {**told, **share}, TRAIN)
    if nodes > 1 and rentals[0].spot:  # a managed job; from its bucket it goes on
        tree["resources"]["job_recovery"] = {"recover_on_exit_codes": [TRY_AGAIN]}
    if mounted:
        tree["file_mounts"] = {MOUNT: {"name": bucket, "mode": "MOUNT"}}
    return tree


def task_tree(
    name: str, nodes: int, rentals: Sequence[Rental], envs: Mapping[str, str | None], run: str
) -> Tree:
    """What every task has in common: it is given back when idle, and installs itself once."""
    machines = [rental.resources() for rental in rentals]
    return {
        "name": name,
        "workdir": ".",
        "num_nodes": nodes,
        "resources": {
            **(machines[0] if len(machines) == 1 else {"any_of": machines}),
            "disk_size": DISK_GIB,
            # Not `jobs_and_ssh`, the default: a forgotten terminal would keep the bill running.
            "autostop": {"idle_minutes": int(IDLE_MINUTES), "down": True, "wait_for": "jobs"},
        },
        "envs": dict(envs),
        "secrets": dict.fromkeys(SECRETS, ""),
        "setup": SETUP,
        "run": run,
    }


def amounts(rentals: Sequence[Rental], dollars: Sequence[float]) -> str:
    """Dollars for each rental as `allowance.amount_at` reads them; one amount holds for all."""
    if len(dollars) == 1:
        return f"{dollars[0]:g}"
    return " ".join(f"{rental.provider}={usd:g}" for rental, usd in zip(rentals, dollars))


def plan_comment(plan: Plan) -> str:
    """`# plan: 8 x A100-80GB at runpod, 35.0 h, $389 (331 to 470), $11.12/h, table of ...`."""
    assert plan.offer is not None
    assert plan.usd is not None
    assert plan.usd_range is not None
    low, high = plan.usd_range
    spot = " spot" if plan.offer.spot else ""
    nodes = f" on {plan.nodes} machines" if plan.nodes > 1 else ""
    return (
        f"# plan: {plan.gpus} x {plan.offer.gpu}{spot} at {plan.offer.provider}{nodes}, "
        f"{plan.hours:.1f} h, ${plan.usd:.2f} ({low:.2f} to {high:.2f}), "
        f"${plan.usd_per_hour:.2f}/h, {plan.offer.source}"
    )


def render(tree: Tree, comment: Sequence[str]) -> str:
    """The task as YAML: comment on top, keys in their order, scripts as blocks."""
    text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return "\n".join([*comment, text])


class _Dumper(yaml.SafeDumper):
    """Scripts with line ends, as people write them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_Dumper.add_representer(str, _text)
