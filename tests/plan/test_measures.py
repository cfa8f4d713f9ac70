"""The cheapest measures against trying every combination."""

import itertools
from dataclasses import replace
from math import prod

import pytest

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.measures import (
    ADAM_8BIT_SPEED,
    ENGINE_SPEED,
    OFFLOAD_SPEED,
    RECOMPUTE_SPEED,
    ZERO_SPEED,
    measures_to_fit,
    micro_batch_speed,
)
from gpt2dist.plan.memory.fit import memory

SMALL = ModelConfig()
LARGE = ModelConfig(layers=36, heads=20, width=1280)
XL = ModelConfig(layers=48, heads=25, width=1600)
SEQUENCES = 48


def every_combination(model, layout, gib):
    """(class, speed) of every way to fit: 0 train can do it, 1 not yet, 2 LoRA."""
    sizes = [size for size in range(1, layout.micro_batch + 1) if SEQUENCES % size == 0]
    for size, stage, engine, recompute, small, offload, lora in itertools.product(
        sizes, range(4), *[(False, True)] * 5
    ):
        if stage == 3 and layout.gpus == 1:
            continue  # nothing to shard
        if stage == 0 and (engine or offload):
            continue  # DeepSpeed needs ZeRO for both
        tried = replace(
            layout,
            micro_batch=size,
            zero_stage=stage,
            mixed_precision="engine" if engine else "autocast",
            recompute=recompute,
            optimizer="adamw8bit" if small else "adamw",
            offload="optimizer" if offload else "none",
            lora_rank=16 if lora else None,
        )
        if memory(model, tried).peak_gib > gib:
            continue
        speed = micro_batch_speed(model, size) / micro_batch_speed(model, layout.micro_batch)
        speed *= ZERO_SPEED[stage] * (ENGINE_SPEED if engine else 1)
        speed *= (RECOMPUTE_SPEED if recompute else 1) * (ADAM_8BIT_SPEED if small else 1)
        speed *= OFFLOAD_SPEED if offload else 1
        yield (2 if lora else 1 if small or offload else 0), speed


@pytest.mark.parametrize("model", [SMALL, LARGE, XL], ids=["124M", "774M", "1558M"])
@pytest.mark.parametrize(("gpus", "gib"), [(1, 3), (1, 11.6), (1, 23.7), (4, 23.7), (2, 79.15)])
def test_the_list_is_the_best_of_all_combinations(model, gpus, gib):
    layout = Layout(gpus_per_node=gpus, micro_batch=SEQUENCES)
    combinations = list(every_combination(model, layout, gib))
    found = measures_to_fit(model, layout, gib, SEQUENCES)
    if not combinations:
        assert found is None
        return
    best_class = min(kind for kind, _ in combinations)
    best_speed = max(speed for kind, speed in combinations if kind == best_class)
    assert found is not None
    end, measures = found
    assert memory(model, end).peak_gib <= gib
    assert prod(measure.speed for measure in measures) == pytest.approx(best_speed)
    assert all(measure.setting for measure in measures) == (best_class == 0)
    assert any("LoRA" in measure.name for measure in measures) == (best_class == 2)


def test_the_savings_add_up():
    layout = Layout(gpus_per_node=4, micro_batch=SEQUENCES)
    end, measures = measures_to_fit(XL, layout, 23.7, SEQUENCES)
    saved = memory(XL, layout).peak_gib - memory(XL, end).peak_gib
    assert len(measures) > 2
    assert sum(measure.saves_gib for measure in measures) == pytest.approx(saved)
    assert end.micro_batch * end.accumulation == SEQUENCES


def test_nothing_is_done_to_what_fits():
    layout = Layout(micro_batch=4)
    assert measures_to_fit(SMALL, layout, 23.7, SEQUENCES) == (layout, ())


def test_what_train_cannot_do_says_so():
    _, measures = measures_to_fit(XL, Layout(micro_batch=SEQUENCES), 23.7, SEQUENCES)
    missing = [measure for measure in measures if measure.setting is None]
    assert missing
    assert all("cannot do this yet" in measure.note for measure in missing)


def test_offload_needs_its_host_memory():
    layout = Layout(micro_batch=SEQUENCES)
    end, measures = measures_to_fit(XL, layout, 11.6, SEQUENCES)
    assert "offload optimizer" in [measure.name for measure in measures]
    host = memory(XL, end).host_gib
    assert measures_to_fit(XL, layout, 11.6, SEQUENCES, host_gib=host) == (end, measures)
    other = measures_to_fit(XL, layout, 11.6, SEQUENCES, host_gib=host * 0.5)
    assert other is None or memory(XL, other[0]).host_gib <= host * 0.5


def test_settings_are_config_keys():
    from gpt2dist.config.load import resolve

    _, measures = measures_to_fit(
        XL, Layout(gpus_per_node=4, micro_batch=SEQUENCES), 23.7, SEQUENCES
    )
    resolve("gpt2-1558m", [measure.setting for measure in measures])
