"""What a sweep file means, and the one line that each mistake in it gets."""

from __future__ import annotations

import pytest
import yaml

from gpt2dist.errors import BadInput
from gpt2dist.sweep.spec.sweep_file import changes, load_sweep

GRID = {"optim.peak_lr": {"grid": ["3e-4", 1e-3]}, "model.dropout": {"grid": [0, 0.1, 0.2]}}


def load(folder, *overrides, usd=None, **tree):
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({"base": "debug", "space": GRID, **tree}, sort_keys=False))
    return load_sweep(str(path), overrides, usd)


def test_overrides_reach_the_base_and_the_sweep(tmp_path):
    sweep = load(
        tmp_path,
        "optim.warmup_steps=3",
        "sweep.at_once=2",
        "sweep.budget.hours=2",
        "on=A100:8",
        usd=5,
        set={"train.tokens": "1_048_576", "eval": {"every_steps": 8}},
        budget={"usd": 50},
    )
    assert sweep.config.optim.warmup_steps == 3
    assert sweep.config.train.tokens == 1_048_576
    assert sweep.config.eval.every_steps == 8
    assert (sweep.at_once, sweep.budget.usd, sweep.budget.hours, sweep.hardware) == (
        2,
        5,
        2,
        "A100:8",
    )


def test_where_and_for_how_much_may_change_and_nothing_else(tmp_path):
    first = load(tmp_path, budget={"usd": 3}, at_once=1)
    more = load(tmp_path, budget={"usd": 30}, at_once=2, resources={"cpus": 2})
    assert changes(first.tree, more.tree) == []
    other = load(tmp_path, "optim.warmup_steps=5", seeds=[1])
    assert changes(first.tree, other.tree) == [
        "base.optim.warmup_steps: 10 before, 5 now",
        "seeds: absent before, [1] now",
    ]


BAD = {
    "unknown key of the space": (
        {"space": {"optim.peek_lr": {"grid": [1]}}},
        "unknown config key optim.peek_lr; did you mean optim.peak_lr?",
    ),
    "empty grid": (
        {"space": {"optim.peak_lr": {"grid": []}}},
        "space.optim.peak_lr: grid=[] is empty",
    ),
    "no space": ({"space": {}}, "space={} must name what is swept"),
    "unknown kind": (
        {"space": {"optim.peak_lr": {"loguniforn": [1, 2]}}},
        "unknown kind 'loguniforn'; did you mean loguniform?",
    ),
    "two kinds": (
        {"space": {"optim.peak_lr": {"grid": [1], "choice": [2]}}},
        "must be one of grid, choice, uniform, loguniform, int with its values",
    ),
    "wrong type": (
        {"space": {"model.layers": {"grid": [1.5]}}},
        "model.layers=1.5 is not a whole number",
    ),
    "twice the same": (
        {"space": {"optim.peak_lr": {"grid": ["1e-3", 0.001]}}},
        "space.optim.peak_lr: grid lists (0.001,) twice",
    ),
    "turned range": (
        {"space": {"optim.peak_lr": {"uniform": [2, 1]}}},
        "space.optim.peak_lr: uniform=[2, 1] is empty",
    ),
    "log of zero": (
        {"space": {"optim.peak_lr": {"loguniform": [0, 1]}}},
        "loguniform needs a low end above 0, not 0",
    ),
    "broken int": ({"space": {"model.layers": {"int": [1, 2.5]}}}, "int needs whole numbers"),
    "linked range": (
        {"space": {"model.width, model.heads": {"int": [1, 2]}}},
        "linked keys need grid or choice, not int",
    ),
    "linked values that do not match": (
        {"space": {"model.width, model.heads": {"grid": [[64, 2], [128]]}}},
        "grid must list lists of 2 values",
    ),
    "seed in the space": (
        {"space": {"train.seed": {"grid": [1, 2]}}},
        "space.train.seed cannot be swept: name the seeds of every point in `seeds`",
    ),
    "budget in the space": (
        {"space": {"budget.usd": {"grid": [1, 2]}}},
        "space.budget.usd cannot be swept: the sweep's own budget limits every trial",
    ),
    "unknown key of the file": ({"sed": [1]}, "unknown sweep key sed; did you mean seeds?"),
    "unknown key of a section": (
        {"budget": {"usdd": 1}},
        "unknown sweep key budget.usdd; did you mean budget.usd?",
    ),
    "unknown base": ({"base": "gpt2-124"}, "unknown recipe 'gpt2-124'; did you mean gpt2-124m?"),
    "swept and set": (
        {"set": {"optim.peak_lr": 1}},
        "optim.peak_lr=1: optim.peak_lr is swept; change space.optim.peak_lr instead",
    ),
    "no money": ({"budget": {"usd": 0}}, "budget.usd=0.0 must be a positive number"),
    "no trials": ({"budget": {"trials": -1}}, "budget.trials=-1 must be at least 1"),
    "grid larger than its budget": (
        {"budget": {"trials": 4}},
        "the grid has 6 trials (6 points x 1 seeds), budget.trials=4",
    ),
    "grid over a range": (
        {"space": {"optim.peak_lr": {"uniform": [1, 2]}}, "search": {"kind": "grid"}},
        "search.kind=grid needs lists, but optim.peak_lr is uniform",
    ),
    "random without an end": (
        {"search": {"kind": "random"}},
        "search.kind=random needs budget.trials",
    ),
    "fewer trials than seeds": (
        {"search": {"kind": "random"}, "budget": {"trials": 2}, "seeds": [1, 2, 3]},
        "budget.trials=2 is below one point of 3 seeds",
    ),
    "unknown search": ({"search": {"kind": "bayes"}}, "search.kind=bayes is none of grid, random"),
    "same seed twice": ({"seeds": [1, 1]}, "seeds=[1, 1] must list different whole numbers"),
    "unknown objective": (
        {"objective": "loss"},
        "objective=['loss'] must name different ones of val",
    ),
    "judged at no time": (
        {"scheduler": {"kind": "asha"}},
        "scheduler.first=None must say after how many tokens trials are first compared",
    ),
    "judged after the end": (
        {"scheduler": {"kind": "asha", "first": 1e9}},
        "scheduler.first=1,000,000,000 tokens is not before the end of a trial (train.tokens=",
    ),
    "judged by time": (
        {"scheduler": {"kind": "asha", "by": "seconds", "first": 1}},
        "scheduler.by=seconds is none of tokens, usd",
    ),
    "judged by what is not the objective": (
        {"scheduler": {"kind": "median", "first": 8192}, "objective": "tokens_per_s"},
        "scheduler.kind=median compares val_loss",
    ),
    "judged without evaluations": (
        {"scheduler": {"kind": "asha", "first": 8192}, "set": {"eval.every_steps": None}},
        "scheduler.kind=asha needs evaluations: set eval.every_steps",
    ),
    "half a GPU more": ({"resources": {"gpus": 1.5}}, "resources.gpus=1.5 must be whole GPUs"),
    "a shared GPU of unknown room": (
        {"resources": {"gpus": 0.25}},
        "resources.gpus=0.25: trials share a GPU's memory, so none can measure what is free",
    ),
    "nothing at once": ({"at_once": 0}, "at_once=0 must be at least 1"),
    "a name that leaves the folder": ({"name": "../x"}, "name='../x' must be at most 100 letters"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_mistake_gets_one_line_that_names_it(case, tmp_path):
    tree, line = BAD[case]
    with pytest.raises(BadInput) as error:
        load(tmp_path, **tree)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
