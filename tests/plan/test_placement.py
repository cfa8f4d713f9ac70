"""One solver for plans and for training: the same facts, the same placement."""

from dataclasses import replace

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.errors import BadInput
from gpt2dist.plan.machine.hardware import Hardware, gpu_named
from gpt2dist.plan.placement import Machine, Placement, place
from gpt2dist.plan.planner import plan_run

RECIPES = ("gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m")
GPUS = (
    "V100", "T4", "L4", "RTX4070Ti", "RTX4070TiSUPER", "RTX3090", "RTX4090",
    "A100", "A100-80GB", "H100", "H200",
)  # fmt: skip

LAPTOP = Machine(0, "", None, False, 8, False)
A100x3 = Machine(3, "NVIDIA A100-SXM4-40GB", 39.0, True, 24, False)
T4 = Machine(1, "Tesla T4", 14.5, False, 4, False)


def placed(machine: Machine, *words: str, recipe: str = "gpt2-124m", **options) -> Placement:
    return place(resolve(recipe, words), machine, **options)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_planned_is_how_it_trains(recipe, gpu, count):
    """The recipe alone, and with the settings that the plan prints, on a machine with that card."""
    card = gpu_named(gpu)
    plan = plan_run(resolve(recipe), Hardware(card, count), None)
    machine = Machine(
        gpus=count,
        gpu_name=f"NVIDIA {card.name}",
        gpu_gib=card.memory_gib,
        gpu_has_bf16=card.has_bf16,
        cpu_cores=8 * count,
        cpu_has_bf16=False,
    )
    if plan.fits:
        assert placed(machine, recipe=recipe).layout == plan.layout
    else:
        with pytest.raises(BadInput, match=f"{recipe} needs .* GiB a GPU"):
            placed(machine, recipe=recipe)
    if plan.runs:
        assert placed(machine, *plan.settings(), recipe=recipe).layout == plan.layout


def test_auto_takes_every_gpu_and_the_best_precision_it_has():
    found = placed(A100x3, "train.batch_tokens=491520")
    assert (found.device, found.workers, found.precision) == ("cuda", 3, "bf16")
    assert found.micro_batch * found.accumulation * 3 * 1024 == 491520
    assert placed(LAPTOP, recipe="debug").precision == "fp32"
    amx = replace(LAPTOP, cpu_has_bf16=True)
    assert placed(amx, recipe="debug").precision == "bf16"


def test_a_gpu_without_bf16_trains_in_fp16_with_loss_scaling():
    """DeepSpeed scales the loss only under one of its ZeRO optimizers."""
    layout = placed(T4).layout
    assert (layout.precision, layout.zero_stage, layout.mixed_precision) == ("fp16", 1, "engine")


def test_one_gpu_has_nothing_to_shard_unless_the_precision_needs_it():
    one = replace(A100x3, gpus=1)
    assert placed(one, "zero.stage=2").zero_stage == 0
    assert placed(one, "zero.stage=2", "cluster.mixed_precision=engine").zero_stage == 2
    assert placed(LAPTOP, "zero.stage=2", recipe="debug").zero_stage == 2


def test_one_recipe_fills_the_same_batch_on_every_machine():
    words = ["train.batch_tokens=491520"]
    for machine in (LAPTOP, A100x3, T4):
        found = placed(machine, *words)
        assert found.workers * found.micro_batch * found.accumulation == 480


def test_local_is_one_process_whatever_the_config_says():
    assert placed(A100x3, "cluster.workers=2", single_process=True).workers == 1


def test_cores_are_shared_between_the_workers_of_a_cpu():
    found = placed(LAPTOP, "cluster.workers=2", recipe="debug")
    assert (found.workers, found.threads) == (2, 4)


def test_a_cluster_counts_all_its_machines():
    found = placed(T4, "cluster.workers=4", gpus=4, cores=16)
    assert (found.workers, found.layout.nodes, found.layout.gpus_per_node) == (4, 4, 1)


@pytest.mark.parametrize(
    ("machine", "words", "said"),
    [
        (A100x3, [], "524,288 is not a multiple of 1,024 x 3 GPUs; nearest: 522,240 or 525,312"),
        (A100x3, ["train.batch_tokens=2048"], "nearest: 3,072, or another number"),
        (A100x3, ["cluster.workers=4"], "more than the 3 GPUs here; use cluster.workers=3"),
        (LAPTOP, ["cluster.device=cuda"], "no CUDA device is visible; use cluster.device=cpu"),
        (LAPTOP, ["cluster.workers=9"], "cluster.workers=9 is more than the 8 CPU cores here"),
        (LAPTOP, ["cluster.precision=fp16"], "fp16 does not train on a CPU; use bf16 or fp32"),
        (T4, ["cluster.precision=bf16"], "Tesla T4 has no bf16 units; use fp16 or fp32"),
        (T4, ["cluster.micro_batch=24"], "does not divide the 512 sequences"),
        (T4, ["cluster.micro_batch=24"], "nearest: 16"),
        (T4, ["cluster.micro_batch=64"], "micro-batch of 64, Tesla T4 has 14.5; it fits with "
         "cluster.micro_batch="),
        (replace(A100x3, gpus=1, gpu_gib=3.9), [], "it fits with cluster.recompute=true"),
        (replace(T4, gpu_gib=0.2), [], "no setting makes it fit"),
    ],
)  # fmt: skip
def test_what_cannot_be_placed_is_refused_with_a_remedy(machine, words, said):
    with pytest.raises(BadInput) as refusal:
        placed(machine, *words)
    assert said in str(refusal.value)
