"""`gpt2dist launch`: plan, show the price, ask, and only then rent."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from gpt2dist.config.load import NOT_YAML
from gpt2dist.errors import BadInput
from gpt2dist.launch.allowance import Limit, Reserve
from gpt2dist.launch.order import LaunchRequest, Order, new_name
from gpt2dist.launch.providers import PROVIDERS, require_credentials
from gpt2dist.launch.record import LaunchRecord
from gpt2dist.launch.sky_command import (
    DETACHED,
    JOB_FAILED,
    call,
    fetch_runs,
    find_sky,
    give_back,
    works_on,
)
from gpt2dist.launch.target import (
    Target,
    choose,
    file_target,
    recipe_target,
    require_affordable,
)
from gpt2dist.plan.describe import describe

NEEDED_FILES = ("cluster/ray_cluster.sh", "gpt2dist/launch/machine/rented.sh", "constraints.txt")
"What tells the root of a clone; a machine runs them."


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
    reserve = Reserve.of(choice.plan, bucket=bool(request.bucket or target.bucket))
    limit = Limit.of(choice.plan, reserve, request.usd, request.hours)
    require_affordable(target, choice.plan, reserve, limit)
    name = request.name or new_name(target)
    order = Order(request, target, choice.plan, reserve, limit, name)
    text = order.task_text()
    say(describe(order.plan))
    for note in choice.notes:
        say(f"note     {note}")
    say(order.budget_line)
    if request.dry_run:
        say(f"{text}\n# sky {shlex.join(order.words)}")
        return 0
    record, runs = order.record(), Path(request.runs)
    sky = _prepare(order, text)
    if not request.yes and not _agreed(confirm, order):
        say("nothing was launched")
        return 0
    record.write(runs)
    code = call(sky, order.words)
    record.ended(code).write(runs)
    return _after(record, runs, sky, code, say)


def _target(request: LaunchRequest) -> Target:
    name, words, on = request.target, request.overrides, request.on
    if not _is_task_file(name):
        target = recipe_target(name, words, on, spot=request.spot, provider=request.provider)
    elif on is None:
        target = file_target(name, words, spot=request.spot, provider=request.provider)
    else:
        raise BadInput(f"on={on}: {name} names its own machines; leave it out")
    return replace(target, data_ready=request.data is not None)


def _is_task_file(target: str) -> bool:
    """A YAML file with a run section; a recipe's file has none."""
    if not target.endswith((".yaml", ".yml")) or not Path(target).is_file():
        return False
    try:
        tree = yaml.safe_load(Path(target).read_text(encoding="utf-8"))
    except (OSError, *NOT_YAML):
        return True  # file_target says what is wrong with it
    return isinstance(tree, dict) and ("run" in tree or "resources" in tree)


def _prepare(order: Order, text: str) -> str:
    """Write the task and see that SkyPilot, the clone and the credentials are there."""
    for needed in NEEDED_FILES:
        if not Path(needed).is_file():
            raise BadInput(
                f"there is no {needed} here: machines are given this folder, so launch from the "
                "root of a clone of gpt2dist"
            )
    order.task_file.parent.mkdir(parents=True, exist_ok=True)
    order.task_file.write_text(text, encoding="utf-8")
    provider = PROVIDERS[order.offer.provider]
    try:
        sky = find_sky(provider.name)
        require_credentials(provider, os.environ)
    except BadInput as missing:
        raise BadInput(f"{missing}; the task is ready in {order.task_file}") from None
    return sky


def _agreed(confirm: Callable[[str], bool] | None, order: Order) -> bool:
    if confirm is None:
        raise BadInput("nobody is there to agree to the price: give --yes")
    return confirm(order.question)


def _after(
    record: LaunchRecord, runs: Path, sky: str, code: int, say: Callable[[str], None]
) -> int:
    """The job ended, or the machine never worked: nothing is left rented without need."""
    if record.managed:
        return code  # its controller gives the machine back
    if code in (0, JOB_FAILED):
        if record.bucket is None and fetch_runs(record.name, runs):
            say(
                f"note     the run could not be copied here; {record.name} is given back when idle:"
                f" before that, rsync -a {record.name}:sky_workdir/runs/ {runs}/"
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
    give_back(sky, ["down", "--yes", record.name], record.provider)
    return code
