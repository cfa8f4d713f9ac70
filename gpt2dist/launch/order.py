"""One launch as it was decided: what is rented, at what price, and the task that runs there."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from gpt2dist.config.load import identity, run_name
from gpt2dist.errors import BadInput
from gpt2dist.human import human_duration, usd
from gpt2dist.launch.allowance import Allowance, Limit, Reserve
from gpt2dist.launch.record import FOLDER, LaunchRecord
from gpt2dist.launch.target import Target, settle
from gpt2dist.launch.task import (
    MOUNT,
    SECRETS,
    Rental,
    Tree,
    plan_comment,
    render,
    run_envs,
    train_tree,
)
from gpt2dist.plan.describe import as_json
from gpt2dist.plan.machine.prices import Offer
from gpt2dist.plan.plan_record import Plan

LONGEST_NAME = 50
"""Lambda takes 57 characters, and SkyPilot adds its own."""


@dataclass(frozen=True)
class LaunchRequest:
    """What the command line asks for."""

    target: str
    "A recipe, a recipe's file, or a task file such as sky/a100_124m.yaml."
    overrides: tuple[str, ...] = ()
    on: str | None = None
    "Hardware such as A100-80GB:8; a task file names its own."
    usd: float | None = None
    "Hard limit in dollars; None: the upper end of the plan's range and the reserve."
    hours: float | None = None
    "For which the machines are paid at most; None: a multiple of the plan's upper end."
    spot: bool = False
    provider: str | None = None
    bucket: str | None = None
    "s3://..., gs://..., or the name of a bucket to mount; None: runs are copied here at the end."
    data: str | None = None
    "Prepared shards: s3://... or gs://...; None: the machine prepares them."
    name: str | None = None
    runs: str = "runs"
    dry_run: bool = False
    yes: bool = False


@dataclass(frozen=True)
class Order:
    """Everything that is settled before anybody is asked; raises BadInput for a bad name."""

    request: LaunchRequest
    target: Target
    plan: Plan
    reserve: Reserve
    limit: Limit
    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(rf"[A-Za-z][-A-Za-z0-9]{{0,{LONGEST_NAME - 2}}}[A-Za-z0-9]", self.name):
            raise BadInput(
                f"--name {self.name}: letters, digits and dashes, a letter first, at most "
                f"{LONGEST_NAME}"
            )

    @property
    def budget_usd(self) -> float:
        return self.limit.usd

    @property
    def offer(self) -> Offer:
        assert self.plan.offer is not None, "what is launched has a price"
        return self.plan.offer

    @property
    def usd_per_hour(self) -> float:
        """Of all machines."""
        return self.offer.usd_per_hour * self.plan.nodes

    @property
    def task_file(self) -> Path:
        return Path(self.request.runs) / FOLDER / f"{self.name}.yaml"

    @property
    def words(self) -> list[str]:
        """Arguments for `sky`. A secret goes by its name; SkyPilot takes the value from here."""
        names = dict.fromkeys([*SECRETS, *((self.target.tree or {}).get("secrets") or {})])
        given = [word for key in names if os.environ.get(key) for word in ("--secret", key)]
        if self.target.spot:
            return ["jobs", "launch", "--yes", "--name", self.name, *given, str(self.task_file)]
        return ["launch", "--yes", "--cluster", self.name, *given, str(self.task_file)]

    @property
    def budget_line(self) -> str:
        """Plan, reserve and budget as three numbers, and how the last is kept."""
        plan, kept_usd = self.plan, self.reserve.beyond_plan_usd(self.usd_per_hour)
        assert plan.usd is not None
        assert plan.usd_range is not None
        allowance = Allowance(self.budget_usd, self.usd_per_hour, 0.0, self.reserve)
        return (
            f"budget   {usd(self.budget_usd)} at most ({self.limit.said}): planned "
            f"{usd(plan.usd)} (up to "
            f"{usd(plan.usd_range[1])}), reserve {usd(kept_usd)} for saving and giving the "
            f"machines back; the run saves and stops before {usd(allowance.run_usd)}, and is ended "
            f"by force {human_duration(allowance.deadline_s or 0)} after boot"
        )

    @property
    def question(self) -> str:
        return (
            f"rent {self.plan.nodes} x {self.offer.provider} {self.offer.instance} at "
            f"${self.usd_per_hour:.2f} per hour, about ${self.plan.usd:.2f}, at most "
            f"${self.budget_usd:.2f}?"
        )

    def task_text(self) -> str:
        """The task as YAML, whole or the task file that was named narrowed to this machine."""
        request, target, plan = self.request, self.target, self.plan
        rental, run = Rental.of(self.offer), run_name(target.config)
        settings = plan.settings(target.recipe, priced=False)  # the price goes as USD_PER_HOUR
        envs = run_envs(run, settings, [rental], [self.budget_usd], self.reserve)
        if target.tree is not None:
            envs |= self._storage(target.tree)
            tree = settle({**target.tree, "name": self.name}, rental.resources(), envs)
            how = f"{request.target}, launched"
        else:
            storage = {"BUCKET": request.bucket or "", "DATA": request.data or ""}
            envs = {"RECIPE": target.recipe, **envs, **storage}
            tree = train_tree(self.name, plan.nodes, [rental], envs)
            how = f"{plan.recipe}, written"
        return render(tree, [f"# {how} by `gpt2dist launch`.", plan_comment(plan)])

    def _storage(self, tree: Tree) -> dict[str, str]:
        """Where a task file that was named finds its data and keeps its runs, as far as asked."""
        bucket, data = self.request.bucket, self.request.data
        envs = {} if data is None else {"DATA": data}
        if bucket is None:
            return envs
        if MOUNT not in (tree.get("file_mounts") or {}):
            return {**envs, "BUCKET": bucket}
        if "://" in bucket:
            raise BadInput(
                f"--bucket {bucket}: {self.request.target} mounts a bucket; give its name"
            )
        return {**envs, "BUCKET_NAME": bucket}

    def record(self) -> LaunchRecord:
        """What is written down before renting; BadInput when the name was launched before."""
        offer, target = self.offer, self.target
        if self.task_file.with_suffix(".json").exists():
            raise BadInput(f"--name {self.name} was launched before; take another name")
        return LaunchRecord(
            name=self.name,
            task_file=str(self.task_file),
            command=("sky", *self.words),
            managed=target.spot,
            recipe=target.recipe,
            run=run_name(target.config),
            provider=offer.provider,
            instance=offer.instance,
            gpu=offer.gpu,
            gpus=offer.gpus,
            nodes=self.plan.nodes,
            region=offer.region,
            spot=offer.spot,
            usd_per_hour=offer.usd_per_hour,
            price_source=offer.source,
            budget_usd=self.budget_usd,
            bucket=self.request.bucket,
            launched_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            plan=as_json(self.plan),
        )


def new_name(target: Target) -> str:
    """Recipe, identity and minute: a new name for each launch, so that none joins another's."""
    recipe = re.sub(r"[^A-Za-z0-9]+", "-", Path(target.recipe).stem).strip("-")
    return f"{recipe[:30]}-{identity(target.config)[:4]}-{time.strftime('%m%d-%H%M%S')}"
