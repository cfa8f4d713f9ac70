"""Closed forms of the schedule, and which parameters decay."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from gpt2dist.config.schema import ModelConfig, OptimConfig
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.model.optim import build_adamw, parameter_groups
from gpt2dist.model.schedule import learning_rate

OPTIM = OptimConfig(peak_lr=1.0, final_lr_fraction=0.1, warmup_steps=10, decay_fraction=0.2)
STEPS = 110


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_every_schedule_warms_up_linearly_and_ends_at_its_final_rate(schedule):
    optim = replace(OPTIM, schedule=schedule)
    rates = [learning_rate(step, optim, STEPS) for step in range(STEPS)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[9:]))


def test_cosine_and_linear_are_halfway_down_in_the_middle():
    for schedule in ("cosine", "linear"):
        assert learning_rate(59, replace(OPTIM, schedule=schedule), STEPS) == pytest.approx(0.55)
    quarter = learning_rate(34, replace(OPTIM, schedule="cosine"), STEPS)
    assert quarter == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))


def test_wsd_holds_the_peak_and_falls_over_the_last_fifth():
    rates = [learning_rate(s, replace(OPTIM, schedule="wsd"), STEPS) for s in range(STEPS)]
    assert rates[10:88] == [1.0] * 78
    assert rates[88:] == pytest.approx([1 - 0.9 * k / 22 for k in range(1, 23)])


def test_schedules_survive_odd_lengths():
    assert learning_rate(0, replace(OPTIM, warmup_steps=0), 1) == pytest.approx(0.1)
    assert learning_rate(4, OPTIM, 5) == pytest.approx(0.5)
    assert learning_rate(500, OPTIM, STEPS) == pytest.approx(0.1)


def test_matrices_and_embeddings_decay_and_nothing_else():
    model = GPT2(ModelConfig(layers=2, heads=2, width=16, context=8, vocab=11))
    decayed, kept = parameter_groups(model, 0.1)
    names = {id(p): n for n, p in model.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert [names[id(p)] for p in kept["params"]] == [
        n for n in names.values() if n.endswith("bias") or "ln_" in n
    ]
    assert {n for p in decayed["params"] if (n := names[id(p)]).endswith("embed.weight")} == {
        "token_embed.weight",
        "position_embed.weight",
    }
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_one_adamw_step_follows_the_formula():
    model = GPT2(ModelConfig(layers=1, heads=2, width=16, context=8, vocab=11))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = build_adamw(model, replace(OPTIM, peak_lr=0.01), "cpu")
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter).sign()
    optimizer.step()
    for name, parameter in model.named_parameters():
        # After bias correction the first step is lr x sign(g), after decoupled decay (AdamW).
        decay = 0.1 if parameter.dim() >= 2 else 0.0
        expected = before[name] * (1 - 0.01 * decay) - 0.01 * parameter.grad.sign()
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=0)
