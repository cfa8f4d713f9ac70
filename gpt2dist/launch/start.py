"""`gpt2dist launch`: plan, show the price, ask, and only then rent."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from gpt2dist.config.load import identity, run_name
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.human import human_duration, usd
from gpt2dist.launch.allowance import Allowance, Reserve
from gpt2dist.launch.providers import PROVIDERS, require_credentials
from gpt2dist.launch.record import FOLDER, LaunchRecord
from gpt2dist.launch.sky_command import DETACHED, JOB_FAILED, call, fetch_runs, find_sky, works_on
from gpt2dist.launch.target import (
    Target,
    choose,
    default_budget_usd,
    file_target,
    recipe_target,
    require_affordable,
    settle,
)
from gpt2dist.launch.task import (
    MOUNT,
    SECRETS,
    Rental,
    plan_comment,
    render,
    train_tree,
)
from gpt2dist.plan.describe import as_json, describe
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


def launch(
    request: LaunchRequest,
    say: Callable[[str], None] = print,
    confirm: Callable[[str], bool] | None = None,
) -> int:
    """Rent what a plan needs and run it there; the exit code is SkyPilot's.

    `confirm` asks a yes-or-no question; None where nobody can answer. Raises BadInput, with
    nothing rented, when the plan does not fit, exceeds the dollars, or cannot be launched here.
    """
    target = _target(request)
    if target.spot and request.bucket is None:
        raise BadInput(
            "a preempted spot machine takes its disk with it: give --bucket s3://... or gs://... "
            "for the checkpoints, or launch without --spot"
        )
    choice = choose(target)
    plan = choice.plan
    reserve = Reserve.of(plan, bucket=request.bucket is not None)
    budget_usd = default_budget_usd(plan, reserve) if request.usd is None else request.usd
    require_affordable(target, plan, reserve, budget_usd)
    name = request.name or _name(target)
    text = _task_text(request, target, plan, reserve, name, budget_usd)
    say(describe(plan))
    for note in choice.notes:
        say(f"note     {note}")
    say(_budget_line(plan, reserve, budget_usd))
    runs = Path(request.runs)
    task_file = runs / FOLDER / f"{name}.yaml"
    words = _sky_words(name, task_file, target.spot)
    if request.dry_run:
        say(f"{text}\n# sky {shlex.join(words)}")
        return 0
    record = _record(request, plan, target, name, task_file, words, budget_usd)
    sky = _prepare(request, plan, task_file, text)
    if not request.yes and not _agreed(confirm, plan, budget_usd):
        say("nothing was launched")
        return 0
    record.write(runs)
    code = call(sky, words)
    record.ended(code).write(runs)
    return _after(request, record, sky, code, say)


def _budget_line(plan: Plan, reserve: Reserve, budget_usd: float) -> str:
    assert plan.usd is not None
    assert plan.usd_range is not None
    assert plan.usd_per_hour is not None
    allowance = Allowance(budget_usd, plan.usd_per_hour, 0.0, reserve)
    return (
        f"budget   {usd(budget_usd)} at most: planned {usd(plan.usd)} (up to "
        f"{usd(plan.usd_range[1])}), reserve "
        f"{usd(reserve.beyond_plan_usd(plan.usd_per_hour))} for saving and giving the machines "
        f"back; the run saves and stops before {usd(allowance.run_usd)}, and is ended by force "
        f"{human_duration(allowance.deadline_s or 0)} after boot"
    )


def _target(request: LaunchRequest) -> Target:
    if _is_task_file(request.target):
        if request.on is not None:
            raise BadInput(
                f"on={request.on}: {request.target} names its own machines; leave it out"
            )
        target = file_target(
            request.target, request.overrides, provider=request.provider, spot=request.spot
        )
    else:
        on, provider = request.on, request.provider
        target = recipe_target(
            request.target, request.overrides, on, spot=request.spot, provider=provider
        )
    return replace(target, data_ready=request.data is not None)


def _is_task_file(target: str) -> bool:
    """A YAML file with a run section; a recipe's file has none."""
    if not target.endswith((".yaml", ".yml")) or not Path(target).is_file():
        return False
    try:
        tree = yaml.safe_load(Path(target).read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return True  # file_target says what is wrong with it
    return isinstance(tree, dict) and ("run" in tree or "resources" in tree)


def _name(target: Target) -> str:
    """Recipe, identity and minute: a new name for each launch, so that none joins another's."""
    recipe = re.sub(r"[^A-Za-z0-9]+", "-", Path(target.recipe).stem).strip("-")
    return f"{recipe[:30]}-{identity(target.config)[:4]}-{time.strftime('%m%d-%H%M%S')}"


def _task_text(
    request: LaunchRequest,
    target: Target,
    plan: Plan,
    reserve: Reserve,
    name: str,
    budget_usd: float,
) -> str:
    if not re.fullmatch(rf"[A-Za-z][-A-Za-z0-9]{{0,{LONGEST_NAME - 2}}}[A-Za-z0-9]", name):
        raise BadInput(
            f"--name {name}: letters, digits and dashes, a letter first, at most {LONGEST_NAME}"
        )
    assert plan.offer is not None
    rental = Rental.of(plan.offer)
    settings = plan.settings(target.recipe, priced=False)  # the price reaches it as USD_PER_HOUR
    if target.tree is None:
        tree = train_tree(
            name=name,
            rentals=[rental],
            nodes=plan.nodes,
            recipe=target.recipe,
            run=run_name(plan.config),
            budget_usd=[budget_usd],
            reserve=reserve,
            overrides=settings,
            bucket=request.bucket,
            data=request.data,
        )
        comment = [f"# {plan.recipe}, written by `gpt2dist launch`.", plan_comment(plan)]
        return render(tree, comment)
    envs = {
        "OVERRIDES": shlex.join(settings),
        "RUN": run_name(target.config),
        "BUDGET_USD": f"{budget_usd:g}",
        "GRACE_S": f"{reserve.grace_s:g}",
        "UPLOAD_S": f"{reserve.upload_s:g}",
        "USD_PER_HOUR": f"{rental.usd_per_hour:g}",
    }
    if request.data is not None:
        envs["DATA"] = request.data
    if request.bucket is not None:
        if MOUNT in (target.tree.get("file_mounts") or {}):
            if "://" in request.bucket:
                raise BadInput(
                    f"--bucket {request.bucket}: {request.target} mounts a bucket; give its name"
                )
            envs["BUCKET_NAME"] = request.bucket
        else:
            envs["BUCKET"] = request.bucket
    tree = settle({**target.tree, "name": name}, rental.resources(), envs)
    return render(tree, [f"# {request.target}, launched by `gpt2dist launch`.", plan_comment(plan)])


def _sky_words(name: str, task_file: Path, managed: bool) -> list[str]:
    """Arguments for `sky`. A secret goes by its name; SkyPilot takes the value from here."""
    given = [word for key in SECRETS if os.environ.get(key) for word in ("--secret", key)]
    if managed:
        return ["jobs", "launch", "--yes", "--name", name, *given, str(task_file)]
    return ["launch", "--yes", "--cluster", name, *given, str(task_file)]


def _prepare(request: LaunchRequest, plan: Plan, task_file: Path, text: str) -> str:
    """Write the task and see that SkyPilot, the clone and the credentials are there."""
    assert plan.offer is not None
    for needed in (
        "cluster/ray_cluster.sh",
        "gpt2dist/launch/machine/rented.sh",
        "constraints.txt",
    ):
        if not Path(needed).is_file():
            raise BadInput(
                f"there is no {needed} here: machines are given this folder, so launch from the "
                "root of a clone of gpt2dist"
            )
    task_file.parent.mkdir(parents=True, exist_ok=True)
    task_file.write_text(text, encoding="utf-8")
    provider = PROVIDERS[plan.offer.provider]
    try:
        sky = find_sky(provider.name)
        require_credentials(provider, os.environ)
    except BadInput as missing:
        raise BadInput(f"{missing}; the task is ready in {task_file}") from None
    return sky


def _agreed(confirm: Callable[[str], bool] | None, plan: Plan, budget_usd: float) -> bool:
    if confirm is None:
        raise BadInput("nobody is there to agree to the price: give --yes")
    assert plan.offer is not None
    return confirm(
        f"rent {plan.nodes} x {plan.offer.provider} {plan.offer.instance} at "
        f"${plan.usd_per_hour:.2f} per hour, about ${plan.usd:.2f}, at most ${budget_usd:.2f}?"
    )


def _record(
    request: LaunchRequest,
    plan: Plan,
    target: Target,
    name: str,
    task_file: Path,
    words: Sequence[str],
    budget_usd: float,
) -> LaunchRecord:
    offer = plan.offer
    assert offer is not None
    if (Path(request.runs) / FOLDER / f"{name}.json").exists():
        raise BadInput(f"--name {name} was launched before; take another name")
    return LaunchRecord(
        name=name,
        task_file=str(task_file),
        command=("sky", *words),
        managed=target.spot,
        recipe=target.recipe,
        run=run_name(target.config),
        provider=offer.provider,
        instance=offer.instance,
        gpu=offer.gpu,
        gpus=offer.gpus,
        nodes=plan.nodes,
        region=offer.region,
        spot=offer.spot,
        usd_per_hour=offer.usd_per_hour,
        price_source=offer.source,
        budget_usd=budget_usd,
        bucket=request.bucket,
        launched_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        plan=as_json(plan),
    )


def _after(
    request: LaunchRequest,
    record: LaunchRecord,
    sky: str,
    code: int,
    say: Callable[[str], None],
) -> int:
    """The job ended, or the machine never worked: nothing is left rented without need."""
    if record.managed:
        return code  # its controller gives the machine back
    if code in (0, JOB_FAILED):
        if record.bucket is None and fetch_runs(record.name, Path(request.runs)):
            say(
                f"note     the run could not be copied here; {record.name} is given back when idle:"
                f" before that, rsync -a {record.name}:sky_workdir/runs/ {request.runs}/"
            )
            return code
        say(f"giving {record.name} back")
    elif code == DETACHED or works_on(sky, record.name):
        say(
            f"note     the run goes on without this terminal, until it ends or its budget does: "
            f"gpt2dist launch logs {record.name}, gpt2dist launch stop {record.name}"
        )
        return code
    else:
        say(f"`sky launch` failed with {code}; giving back whatever it rented")
    if call(sky, ["down", "--yes", record.name]):
        raise RunFailure(
            f"`sky down {record.name}` failed: the machine may still be billed; look at "
            f"`sky status --refresh` and at the console of {record.provider}"
        )
    return code
