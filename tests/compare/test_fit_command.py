"""`gpt2dist fit`, down to the file that the planner reads."""

from __future__ import annotations

import pytest

from gpt2dist.compare.fit_command import FitRequest, describe_fit, fit
from gpt2dist.compare.stats.scaling import CONSTANTS, ScalingFit
from gpt2dist.config.load import resolve
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import parameters
from gpt2dist.plan.loss.law import Law
from gpt2dist.plan.loss.own_fit import OWN_FIT_FILE, OwnFit, load_own_fit
from gpt2dist.plan.loss.predict import predict_loss

TRUTH = Law(1.2, 60.0, 0.25, 150.0, 0.3, "")
WIDTHS, STEPS = (16, 64, 128), (4, 16, 64)


def ladder(make, *overrides):
    """Nine runs that end where TRUTH says."""
    for width in WIDTHS:
        for steps in STEPS:
            settings = [f"model.width={width}", "optim.warmup_steps=0", *overrides]
            config = resolve("debug", settings)
            tokens = steps * config.train.batch_tokens
            loss = TRUTH.loss(parameters(config.model), tokens)
            name = f"{'sweeps/ladder/' if steps == 4 else ''}w{width}-{steps}"
            settings.append(f"train.tokens={tokens}")
            make(name, *settings, curve=((1, 9.0), (steps, loss)))


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


@pytest.mark.parametrize("settings", [6, 9, 10, 40])
def test_intervals_of_fewer_than_ten_settings_are_called_approximate(settings):
    own = OwnFit(1.2, 60.0, 0.25, 150.0, 0.3, spread=0.01, runs=settings, made="")
    found = ScalingFit(own, dict.fromkeys(CONSTANTS, (0.2, 0.4)), ())
    lines = describe_fit(found, "own.txt")
    assert sum("95 % interval 0.2 to 0.4" in line for line in lines) == 5
    assert any("approximate" in line for line in lines) == (settings < 10)


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
