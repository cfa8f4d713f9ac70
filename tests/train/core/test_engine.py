"""Every ZeRO stage and world size follows one plain PyTorch process."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gpt2dist.model.gpt2 import GPT2
from tests.train.ranks import run_ranks
from tests.train.scenarios import RATE, SEQUENCES, batch, targets, tiny_config

STEPS = 10


def plain_curve(steps: int = STEPS) -> list[tuple[float, float]]:
    """(loss, gradient norm) of a bare PyTorch loop over whole batches, written without our code.

    Only the model is ours; its equality with Hugging Face's is tested where it lives.
    """
    config = tiny_config()
    torch.manual_seed(7)
    model = GPT2(config.model)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=RATE,
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=False,
    )
    curve = []
    for step in range(steps):
        tokens = batch(step)
        logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), targets(tokens).flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        curve.append((loss.item(), norm.item()))
    return curve


@pytest.mark.parametrize("world", [1, 2])
def test_zero_stages_follow_one_plain_process(world, tmp_path):
    expected = plain_curve()
    assert expected[-1][0] < expected[0][0]
    results = run_ranks(tmp_path, "follow", world, stages=[0, 1, 2, 3], micro_batch=2, steps=STEPS)
    for curves in results:
        for stage in range(4):
            understood = curves[f"understood {stage}"]
            assert understood["stage"] == stage
            assert understood["accumulation"] == SEQUENCES // world // 2
            assert not understood["autocast"]
            for step, (loss, norm) in enumerate(expected):
                row = curves[str(stage)][step]
                where = f"stage {stage}, step {step}"
                assert row["loss"] == pytest.approx(loss, abs=2e-5), where
                assert row["grad_norm"] == pytest.approx(norm, rel=2e-4), where


def test_accumulation_equals_one_big_batch(tmp_path):
    """Targets are ignored unevenly, so an average of averages would differ."""
    whole = run_ranks(tmp_path, "follow", 1, stages=[0], micro_batch=SEQUENCES, steps=STEPS)[0]
    cut = run_ranks(tmp_path, "follow", 1, stages=[0], micro_batch=1, steps=STEPS)[0]
    for one, many in zip(whole["0"], cut["0"]):
        assert many["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert many["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


def test_bf16_autocast_stays_close_to_fp32_at_every_stage(tmp_path):
    expected = plain_curve()
    curves = run_ranks(
        tmp_path, "follow", 1, stages=[0, 1, 2, 3], micro_batch=4, steps=STEPS, precision="bf16"
    )[0]
    for stage in range(4):
        assert curves[f"understood {stage}"]["autocast"]
        for step, (loss, _) in enumerate(expected):
            assert curves[str(stage)][step]["loss"] == pytest.approx(loss, abs=0.05)


@pytest.mark.parametrize("world", [1, 2])
def test_a_step_with_non_finite_gradients_changes_nothing(world, tmp_path):
    cases = [*(f"fp32-autocast-{stage}" for stage in range(4)), "bf16-engine-1"]
    for outcome in run_ranks(tmp_path, "poisoned", world, cases=cases):
        for case in cases:
            result = outcome[case]
            assert result["applied"] is False
            assert result["unchanged"], case
            assert result["next"]["applied"] is True
            assert result["steps"] == 2
