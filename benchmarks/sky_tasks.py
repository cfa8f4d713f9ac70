"""The task files in `sky/`, as a table; `python benchmarks/sky_tasks.py sky` rewrites them.

They are plain SkyPilot files for `sky launch`. Being written from plans, the dollars on top of
each are the planner's, and a test keeps them so.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from importlib.resources import files as package_files
from pathlib import Path

from gpt2dist.config.load import resolve, run_name
from gpt2dist.launch.allowance import Limit, Reserve
from gpt2dist.launch.task import (
    MOUNT,
    Rental,
    Tree,
    amounts,
    plan_comment,
    render,
    run_envs,
    task_tree,
    train_tree,
)
from gpt2dist.plan.machine.costs import INSTALL_MINUTES, PROVISION_MINUTES, preparation_hours
from gpt2dist.plan.machine.hardware import Hardware, parse_on
from gpt2dist.plan.machine.prices import TABLE_DATE, Offer, offers
from gpt2dist.plan.plan_record import Plan
from gpt2dist.plan.planner import plan_run

HEADROOM = 1.15
"""How far a price may have risen since the package's table before SkyPilot refuses the machine."""


@dataclass(frozen=True)
class Training:
    """One file of `sky/`: a recipe on machines that are alike, at every provider that has them."""

    title: str
    recipe: str
    places: tuple[tuple[str, str], ...]
    "Provider and hardware there, the cheapest first."
    spot: bool = False


TRAININGS = {
    "a100_124m": Training(
        "GPT-2 124M, 10B tokens, on one A100.",
        "gpt2-124m",
        (("vast", "A100"), ("runpod", "A100-80GB"), ("gcp", "A100")),
    ),
    "lambda_a100_124m": Training(
        "GPT-2 124M, 10B tokens, on one A100 at Lambda, which has no spot machines and stops none.",
        "gpt2-124m",
        (("lambda", "A100"),),
    ),
    "rtx4090_124m": Training(
        "GPT-2 124M, 10B tokens, on one RTX 4090.",
        "gpt2-124m",
        (("vast", "RTX4090"), ("runpod", "RTX4090")),
    ),
    "spot_a100_124m": Training(
        "GPT-2 124M, 10B tokens, as a managed job on a spot A100; a bucket carries it on.",
        "gpt2-124m",
        (("gcp", "A100"),),
        spot=True,
    ),
    "rtx3090x4_355m": Training(
        "GPT-2 355M, 10B tokens, on one machine with four RTX 3090.",
        "gpt2-355m",
        (("vast", "RTX3090:4"), ("runpod", "RTX3090:4")),
    ),
    "h100x8_774m": Training(
        "GPT-2 774M, 30B tokens, on one machine with eight H100.",
        "gpt2-774m",
        (("vast", "H100:8"), ("runpod", "H100-SXM:8"), ("lambda", "H100:8"), ("aws", "H100:8")),
    ),
    "h100x8_1558m": Training(
        "GPT-2 1558M (XL), 30B tokens, on one machine with eight H100.",
        "gpt2-1558m",
        (("vast", "H100:8"), ("runpod", "H100-SXM:8"), ("lambda", "H100:8"), ("aws", "H100:8")),
    ),
    "a100x8_1558m": Training(
        "GPT-2 1558M (XL), 30B tokens, on one machine with eight A100 80GB.",
        "gpt2-1558m",
        (
            ("runpod", "A100-80GB-SXM:8"),
            ("lambda", "A100-80GB:8"),
            ("aws", "A100-80GB:8"),
        ),
    ),
    "a100x8x2_1558m": Training(
        "GPT-2 1558M (XL), 30B tokens, on two machines with eight A100 40GB each.",
        "gpt2-1558m",
        (("lambda", "A100:8x2"), ("aws", "A100:8x2"), ("gcp", "A100:8x2")),
    ),
}

USAGE = """\
#
#   sky launch -c {name} sky/{name}.yaml
#   sky launch -c {name} sky/{name}.yaml --env BUDGET_USD=20 --env OVERRIDES='train.tokens=1e9'
#
# The run stops by itself before BUDGET_USD, is ended by force when it does not, and the machine is
# given back five minutes later. What shall outlive the machine needs --env BUCKET=s3://... or
# gs://..., from where the same command continues it. sky/prepare_data.yaml makes the shards for
# --env DATA=... on a cheap machine. docs/renting.md says more."""

SPOT_USAGE = """\
#
#   sky jobs launch -n {name} sky/{name}.yaml --env BUCKET_NAME=gpt2dist-YOURNAME
#
# The bucket is made when there is none of that name. After a preemption the job goes on from the
# newest checkpoint there, on another machine and with what is left of BUDGET_USD."""

CPU_USD_PER_HOUR = {"aws": 1.632, "gcp": 1.5537}
"""On demand, 32 vCPUs: m6i.8xlarge or cheaper in us-east-1 (c6i.8xlarge 1.36), n2-standard-32 in
us-central1 (list prices of 2026-11); a ceiling, SkyPilot takes the cheapest machine below it."""

PREPARE_RUN = """\
mirror="${GPT2DIST_VENV:-$HOME/gpt2dist-venv}/bin/python -m gpt2dist.launch.machine.mirror"
timeout 120 $mirror check "$TARGET" &&
bash gpt2dist/launch/machine/rented.sh 'gpt2dist data prepare "$SOURCE" --out data/shards' &&
timeout 7200 $mirror copy data/shards "$TARGET"
"""

SWEEP_RUN = """\
bash gpt2dist/launch/machine/rented.sh 'bash cluster/ray_cluster.sh
  gpt2dist tune "$SWEEP" "${overrides[@]}" --resume --usd "$RUN_BUDGET_USD"'
"""


def files() -> dict[str, str]:
    """Text of every file in `sky/`, by its name."""
    texts = {name: training_file(name, training) for name, training in TRAININGS.items()}
    texts["prepare_data"] = prepare_file()
    texts["sweep"] = sweep_file()
    return {f"{name}.yaml": text for name, text in texts.items()}


def plans(training: Training) -> list[Plan]:
    """The plan at each provider, with the prices of the package's table."""
    config = resolve(training.recipe)
    found = []
    for provider, on in training.places:
        hardware = parse_on(on)
        offer = _packaged_offer(hardware, provider, training.spot)
        found.append(plan_run(config, hardware, offer))
    return found


def _packaged_offer(hardware: Hardware, provider: str, spot: bool) -> Offer:
    """From the package's table, whatever catalog this machine has: the files are for everyone."""
    table = Path(str(package_files("gpt2dist.plan.machine").joinpath("prices.csv")))
    name, count = hardware.name, hardware.gpus_per_node
    found = offers(name, count, spot=spot, provider=provider, table=table)
    return replace(found[0], source=f"package table of {TABLE_DATE}")


def _rental(plan: Plan) -> Rental:
    """Accounted at the most that it may cost: a budget then holds at any price up to that."""
    assert plan.offer is not None
    rental = Rental.of(plan.offer)
    return replace(rental, usd_per_hour=math.ceil(HEADROOM * 100 * rental.usd_per_hour) / 100)


def training_file(name: str, training: Training) -> str:
    """One training task, with a plan for each provider on top."""
    priced = plans(training)
    rentals = [_rental(plan) for plan in priced]
    settings = {word for plan in priced for word in plan.settings(priced=False) if plan.measures}
    kept = [Reserve.of(plan, bucket=True) for plan in priced]
    reserve = Reserve(max(r.grace_s for r in kept), max(r.upload_s for r in kept))
    run = run_name(resolve(training.recipe))
    budgets_usd = [math.ceil(HEADROOM * Limit.of(plan, reserve, None, None).usd) for plan in priced]
    told = run_envs(run, sorted(settings), rentals, budgets_usd, reserve)
    envs = {"RECIPE": training.recipe, **told, "BUCKET": "", "DATA": ""}
    tree = train_tree(name.replace("_", "-"), priced[0].nodes, rentals, envs)
    usage = USAGE
    if training.spot:
        _carry_on_from_bucket(tree)
        usage = SPOT_USAGE
    comment = [f"# {training.title}", *map(plan_comment, priced)]
    return render(tree, [*comment, usage.format(name=name)])


def _carry_on_from_bucket(tree: Tree) -> None:
    """SkyPilot refuses the task until BUCKET_NAME is given: without it a preemption loses all."""
    tree["envs"]["BUCKET"] = MOUNT
    tree["envs"]["BUCKET_NAME"] = None
    tree["file_mounts"] = {MOUNT: {"name": "${BUCKET_NAME}", "mode": "MOUNT"}}


def prepare_file() -> str:
    """Ten billion tokens of FineWeb-Edu into shards in a bucket, on a machine without GPUs."""
    hours = preparation_hours(10e9, vcpus=32) + (PROVISION_MINUTES + INSTALL_MINUTES) / 60
    dearest = max(CPU_USD_PER_HOUR.values())
    envs = {
        "SOURCE": "hf:HuggingFaceFW/fineweb-edu:sample-10BT",
        "TARGET": None,
        "RUN": "",
        "BUDGET_USD": "5",
        "USD_PER_HOUR": " ".join(f"{name}={usd:g}" for name, usd in CPU_USD_PER_HOUR.items()),
        "BUCKET": "",
    }
    tree = task_tree("prepare-data", 1, [], envs, PREPARE_RUN)
    machines = [
        {"infra": name, "cpus": "32+", "memory": "64+", "max_hourly_cost": usd}
        for name, usd in CPU_USD_PER_HOUR.items()
    ]
    tree["resources"]["any_of"] = machines
    comment = f"""\
# Text to token shards on a machine without GPUs, once for all runs.
# plan: 32 vCPUs, {hours:.1f} h, ${hours * dearest:.2f} at ${dearest:.2f}/h, list prices of 2026-11
#
#   sky launch -c prepare-data sky/prepare_data.yaml --env TARGET=gs://BUCKET/fineweb-10B
#   sky launch -c a100-124m sky/a100_124m.yaml --env DATA=gs://BUCKET/fineweb-10B
#
# A GPU machine prepares the same data itself when it is given no DATA, at its own price."""
    return render(tree, [comment])


def sweep_file() -> str:
    """A learning rate sweep of the 124M model on one A100."""
    priced = plans(TRAININGS["a100_124m"])
    rentals = [_rental(plan) for plan in priced]
    envs = {
        "SWEEP": "tune/lr_124m.yaml",
        "OVERRIDES": "",
        "BUDGET_USD": "25",
        "USD_PER_HOUR": amounts(rentals, [rental.usd_per_hour for rental in rentals]),
        "BUCKET": "",
        "DATA": "",
    }
    tree = task_tree("sweep", 1, rentals, envs, SWEEP_RUN)
    hours = [25 / rental.usd_per_hour for rental in rentals]
    comment = f"""\
# A sweep over learning rates of GPT-2 124M on one A100; it ends with its budget.
# plan: $25.00, which is {min(hours):.1f} h at ${max(r.usd_per_hour for r in rentals):.2f}/h to \
{max(hours):.1f} h at ${min(r.usd_per_hour for r in rentals):.2f}/h
#
#   sky launch -c sweep sky/sweep.yaml --env SWEEP=tune/lr_124m.yaml --env BUDGET_USD=25
#
# With --env BUCKET=s3://... or gs://... the trials outlive the machine, and the same command
# continues the sweep on another one with what is left of BUDGET_USD."""
    return render(tree, [comment])


def main() -> int:
    """Write every file into the folder given."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: python benchmarks/sky_tasks.py sky", file=sys.stderr)
        return 2
    for name, text in files().items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
