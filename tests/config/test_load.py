"""Recipes, precedence, identity, and errors that name key, value and remedy."""

import dataclasses

import pytest
import yaml

from gpt2dist.config.load import (
    ALIASES,
    dump,
    from_tree,
    identity,
    load_dumped,
    overrides_of,
    recipe_names,
    resolve,
    run_name,
    to_tree,
)
from gpt2dist.config.schema import TrackConfig, TrainConfig
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


GOLDEN_IDENTITIES = {
    "debug": "d0f8190e90780092",
    "gpt2-124m": "69e8053cfa72b9ec",
    "gpt2-355m": "40ecb18680109a1d",
    "gpt2-774m": "7dd70ced2d259d13",
    "gpt2-1558m": "161547f89b1c14c1",
}


def test_the_identity_of_every_recipe_stays_what_it_was():
    """A new value would part all earlier runs of the recipe from all later ones."""
    assert {name: identity(resolve(name)) for name in recipe_names()} == GOLDEN_IDENTITIES


def test_command_line_beats_file_beats_recipe_beats_default(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: debug\noptim: {peak_lr: 6e-4, beta1: 0.8}\n")
    config = resolve(str(path), ["optim.beta1=0.7"])
    assert config.optim.beta1 == 0.7
    assert config.optim.peak_lr == 6e-4  # PyYAML reads 6e-4 as text
    assert config.model.layers == resolve("debug").model.layers
    assert config.optim.eps == 1e-8


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


@pytest.mark.parametrize(
    ("written", "recipe"),
    [
        ("gpt2", "gpt2-124m"),
        ("gpt2-small", "gpt2-124m"),
        ("124m", "gpt2-124m"),
        ("124M", "gpt2-124m"),
        ("gpt2-medium", "gpt2-355m"),
        ("medium", "gpt2-355m"),
        ("GPT2-Large", "gpt2-774m"),
        ("gpt2-xl", "gpt2-1558m"),
        ("gpt2-1.5b", "gpt2-1558m"),
        ("1.5B", "gpt2-1558m"),
        ("debug", "debug"),
    ],
)
def test_a_size_may_be_named_as_people_name_it(written, recipe, tmp_path):
    assert resolve(written) == resolve(recipe)
    (tmp_path / "mine.yaml").write_text(f"recipe: {written}\n")
    assert resolve(str(tmp_path / "mine.yaml")) == resolve(recipe)


def test_every_alias_leads_to_a_recipe():
    assert set(ALIASES.values()) <= set(recipe_names())
    assert not set(ALIASES) & set(recipe_names())


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.source=007", "007"),
        ("data.source=1.50", "1.50"),
        ("data.source=2026-13-45", "2026-13-45"),
        ("data.source=yes", "yes"),
        ("data.source=*.txt", "*.txt"),
        ("data.source=a: b", "a: b"),
        ("data.source='two words'", "two words"),
    ],
)
def test_a_text_is_what_was_typed(override, value):
    assert resolve("debug", [override]).data.source == value


def test_a_config_is_written_without_the_password_that_an_old_one_holds(tmp_path):
    old = dataclasses.replace(
        resolve("debug"), track=TrackConfig(uri="postgresql://me:hunter2@db/x?sslmode=require")
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_tree(old)))
    read = load_dumped(tmp_path / "config.yaml")
    assert read == old
    (tmp_path / "config.yaml").write_text(dump(read))
    assert load_dumped(tmp_path / "config.yaml").track.uri == "postgresql://db/x"
    assert identity(read) == identity(resolve("debug"))


@pytest.mark.parametrize(
    "text", ["my_texts/*.txt", "*.txt", "007", "a: b", "[x", "null", "'", '"', "1e5", " x ", "# y",
             "two\nlines", "\n", "tab\there", "back\\slash", "é 😀", "~", "- a"]
)  # fmt: skip
def test_differences_are_overrides_that_lead_back(text):
    base = resolve("debug")
    changed = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, source=text if text.isprintable() else "x"),
        eval=dataclasses.replace(base.eval, sample_prompt=text, every_steps=None),
        paths=dataclasses.replace(base.paths, dataset=text if text.isprintable() else None),
    )
    words = overrides_of(changed, base)
    assert resolve("debug", words) == changed


def test_a_text_that_may_be_absent_can_be_taken_back(tmp_path):
    (tmp_path / "mine.yaml").write_text("recipe: debug\npaths: {dataset: shards}\n")
    assert resolve(str(tmp_path / "mine.yaml")).paths.dataset == "shards"
    assert resolve(str(tmp_path / "mine.yaml"), ["paths.dataset=null"]).paths.dataset is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.peek_lr=1", "unknown config key optim.peek_lr; did you mean optim.peak_lr?"),
        ("peak_lr=1", "unknown config key peak_lr; did you mean optim.peak_lr?"),
        ("zeros.stage=1", "unknown config key zeros"),
        ("nonsense", "write section.key=value"),
        ("optim.peak_lr=-1", "(in the command line)"),
    ],
)
def test_bad_overrides_are_one_line_that_names_key_and_remedy(override, message):
    with pytest.raises(BadInput) as caught:
        resolve("debug", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


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
        ("optim: {peak_lr: 1}\ndata: {}\noptim: {beta1: 0.5}", "the key optim is there twice"),
        ("optim: {beta1: 0.5, beta2: 0.9, beta1: 0.6}", "the key beta1 is there twice"),
        ("train: {tokens: 1e300}", "train.tokens=1.00e+300 must be at most 1e+15 (Llama 3"),
        ("model: {heads: 5}", "model.width=768 is not a multiple of model.heads=5"),
    ],
)
def test_bad_files_are_named(content, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(BadInput) as caught:
        resolve(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_has_run_is_not_judged_again(tmp_path):
    """Bounds of today must not hide the runs of yesterday."""
    config = dataclasses.replace(resolve("debug"), train=TrainConfig(tokens=10**18, seed=2**60))
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load_dumped(tmp_path / "config.yaml") == config
    with pytest.raises(BadInput, match=r"train\.tokens"):
        resolve(str(tmp_path / "config.yaml"))


def test_missing_file_is_named():
    with pytest.raises(BadInput, match=r"no such config file: absent.yaml"):
        resolve("absent.yaml")
