"""Which parameters decay, and what a step of AdamW is."""

import torch

from gpt2dist.config.schema import ModelConfig, OptimConfig
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.model.optim import build_adamw, parameter_groups


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
    optimizer = build_adamw(model, OptimConfig(peak_lr=0.01), "cpu")
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter).sign()
    optimizer.step()
    for name, parameter in model.named_parameters():
        # After bias correction the first step is lr x sign(g), after decoupled decay (AdamW).
        decay = 0.1 if parameter.dim() >= 2 else 0.0
        expected = before[name] * (1 - 0.01 * decay) - 0.01 * parameter.grad.sign()
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=0)
