"""`gpt2dist fit`, down to the file that the planner reads."""

from __future__ import annotations

from itertools import product

import pytest

from gpt2dist.compare.fit_command import FitRequest, fit
from gpt2dist.config.load import resolve
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.loss.law import Law
from gpt2dist.plan.loss.own_fit import OWN_FIT_FILE, load_own_fit
from gpt2dist.plan.loss.predict import predict_loss

TRUTH = Law(1.2, 60.0, 0.25, 150.0, 0.3, "")
WIDTHS, STEPS = (16, 64, 128), (4, 16, 64)


def ladder(make, *overrides, steps=STEPS):
    """Runs of three widths that end where TRUTH says: nine, unless `steps` are others."""
    for width, length in product(WIDTHS, steps):
        settings = [f"model.width={width}", "optim.warmup_steps=0", *overrides]
        config = resolve("debug", settings)
        tokens = length * config.train.batch_tokens
        loss = TRUTH.loss(parameters(config.model), tokens)
        name = f"{'sweeps/ladder/' if length == 4 else ''}w{width}-{length}"
        settings.append(f"train.tokens={tokens}")
        make(name, *settings, curve=((1, 9.0), (length, loss)))


def test_planner_predicts_with_the_fit_of_own_runs(make, runs_dir):
    ladder(make)
    lines: list[str] = []
    assert fit(FitRequest(runs_dir=str(runs_dir)), lines.append) == 0
    own = load_own_fit(runs_dir / OWN_FIT_FILE)
    assert own.runs == 9
    assert own.spread < 1e-3
    estimate = predict_loss(10_000_000, 5e8, "own.txt", own_fit=own)
    assert estimate.loss == pytest.approx(TRUTH.loss(1e7, 5e8), rel=1e-3)
    assert lines[0].startswith("loss = 1.200 + 60")
    assert any(line.startswith("  approximate: 9 settings are few") for line in lines)
    ladder(make, "train.seed=2", steps=(256,))
    again: list[str] = []
    fit(FitRequest(runs_dir=str(runs_dir)), again.append)
    assert "from 12 settings" in again[1]
    assert not [line for line in again if "approximate" in line]


def test_refusal_writes_nothing_and_force_says_what_is_doubtful(make, runs_dir):
    for steps in (2, 4, 8, 16, 32, 64):
        settings = ["optim.warmup_steps=0", f"train.tokens={8192 * steps}"]
        make(f"s{steps}", *settings, curve=((1, 9.0), (steps, 3 + 1 / steps)))
    with pytest.raises(BadInput, match="1 different sizes"):
        fit(FitRequest(runs_dir=str(runs_dir)), lambda _: None)
    assert not (runs_dir / OWN_FIT_FILE).exists()
    lines: list[str] = []
    fit(FitRequest(runs_dir=str(runs_dir), force=True), lines.append)
    assert any(line.startswith("doubtful: 1 different sizes") for line in lines)
    assert load_own_fit(runs_dir / OWN_FIT_FILE).made.endswith("forced")


def test_runs_of_two_texts_are_not_one_law(make, runs_dir):
    make("a", "data.source=a.txt")
    make("b", "data.source=b.txt")
    with pytest.raises(BadInput, match=r"different text: .*a\.txt.*b\.txt"):
        fit(FitRequest(runs_dir=str(runs_dir), force=True), lambda _: None)
