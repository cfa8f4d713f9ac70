"""Recipes, precedence, identity, and errors that name key, value and remedy."""

import dataclasses

import pytest
import yaml

from gpt2dist.config.load import (
    dump,
    from_tree,
    identity,
    load_dumped,
    recipe_names,
    resolve,
    run_name,
)
from gpt2dist.errors import BadInput


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_resolves_and_survives_a_round_trip(recipe, tmp_path):
    config = resolve(recipe)
    assert from_tree(yaml.safe_load(dump(config)), "test") == config
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load_dumped(tmp_path / "config.yaml") == config


def test_recipes_are_the_published_shapes():
    shapes = {
        name: dataclasses.astuple(resolve(name).model)[:5]
        for name in recipe_names()
        if name != "debug"
    }
    assert shapes == {
        "gpt2-124m": (12, 12, 768, 1024, 50257),
        "gpt2-355m": (24, 16, 1024, 1024, 50257),
        "gpt2-774m": (36, 20, 1280, 1024, 50257),
        "gpt2-1558m": (48, 25, 1600, 1024, 50257),
    }


def test_command_line_beats_file_beats_recipe_beats_default(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: debug\noptim: {peak_lr: 6e-4, beta1: 0.8}\n")
    config = resolve(str(path), ["optim.beta1=0.7"])
    assert config.optim.beta1 == 0.7
    assert config.optim.peak_lr == 6e-4  # PyYAML reads 6e-4 as text
    assert config.model.layers == resolve("debug").model.layers
    assert config.optim.eps == 1e-8


@pytest.mark.parametrize(
    ("text", "value"), [("1e9", 10**9), ("1_000_000", 10**6), ("2.0", 2), ("8192", 8192)]
)
def test_whole_numbers_may_be_written_as_people_write_them(text, value):
    assert resolve("gpt2-124m", [f"budget.tokens={text}"]).budget.tokens == value


PLACEMENT = [
    "cluster.workers=2",
    "zero.stage=3",
    "checkpoint.every_steps=7",
    "eval.every_steps=3",
    "budget.usd=5",
    "track.mlflow=false",
    "paths.runs=elsewhere",
]
LEARNED = ["model.dropout=0.1", "data.source=x.txt", "optim.peak_lr=1e-3", "train.seed=1"]


@pytest.mark.parametrize("override", PLACEMENT)
def test_placement_does_not_change_the_identity(override):
    assert identity(resolve("debug", [override])) == identity(resolve("debug"))


@pytest.mark.parametrize("override", LEARNED)
def test_what_is_learned_changes_the_identity_and_the_name(override):
    assert identity(resolve("debug", [override])) != identity(resolve("debug"))
    assert run_name(resolve("debug", [override])) != run_name(resolve("debug"))


BAD = [
    ("optim.peek_lr=1", "unknown config key optim.peek_lr; did you mean optim.peak_lr?"),
    ("peak_lr=1", "unknown config key peak_lr; did you mean optim.peak_lr?"),
    ("zeros.stage=1", "unknown config key zeros"),
    ("optim.peak_lr=fast", "optim.peak_lr='fast' is not a number"),
    ("model.layers=2.5", "model.layers=2.5 is not a whole number"),
    ("track.mlflow=1", "track.mlflow=1 is not true or false"),
    ("zero.stage=4", "zero.stage=4 is none of 0, 1, 2, 3"),
    ("optim.schedule=cosin", "is none of cosine, linear, wsd, constant"),
    ("train.tokens=0", "train.tokens=0 must be at least 1"),
    ("optim.peak_lr=-1", "optim.peak_lr=-1.0 must be a positive number"),
    ("optim.peak_lr=.nan", "must be a positive number"),
    ("model.dropout=1", "model.dropout=1.0 must be at least 0 and below 1"),
    ("model.heads=3", "model.width=128 is not a multiple of model.heads=3; nearest: 126 or 129"),
    ("train.batch_tokens=5000", "not a multiple of model.context=256; nearest: 4,864 or 5,120"),
    ("data.tokenizer=bytes", "model.vocab=50257 does not match data.tokenizer=bytes"),
    ("optim.warmup_steps=9999", "is longer than the run of 64 steps"),
    ("cluster.watts=300", "needs cluster.usd_per_kwh"),
    ("cluster.purchase_usd=2500", "cluster.lifetime_hours make a price together"),
    ("cluster.lifetime_hours=2500", "cluster.lifetime_hours make a price together"),
    ("cluster.lifetime_hours=0", "cluster.lifetime_hours=0.0 must be a positive number"),
    ("cluster.purchase_usd=-1", "cluster.purchase_usd=-1.0 must not be negative"),
    ("cluster.network_gbit=0", "cluster.network_gbit=0.0 must be a positive number"),
    ("budget.usd=0", "budget.usd=0.0 must be a positive number"),
    ("nonsense", "write section.key=value"),
]


@pytest.mark.parametrize(("override", "message"), BAD)
def test_bad_overrides_are_one_line_that_names_key_and_remedy(override, message):
    with pytest.raises(BadInput) as caught:
        resolve("debug", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_impossible_precisions_are_refused():
    with pytest.raises(BadInput, match="fp16 does not train on a CPU"):
        resolve("debug", ["cluster.device=cpu", "cluster.precision=fp16"])
    with pytest.raises(BadInput, match=r"engine with zero.stage=0 drifts"):
        resolve("debug", ["cluster.mixed_precision=engine", "zero.stage=0"])


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(BadInput, match="did you mean gpt2-124m"):
        resolve("gpt2-124")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optim: [1, 2]", "optim must hold keys"),
        ("just text", "must hold `section"),
        ("a: b: c", "is not valid YAML"),
        ("optim: {peek_lr: 1}", "did you mean optim.peak_lr"),
    ],
)
def test_bad_files_are_named(content, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(BadInput) as caught:
        resolve(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_is_named():
    with pytest.raises(BadInput, match=r"no such config file: absent.yaml"):
        resolve("absent.yaml")
