"""GPT2 against Hugging Face's GPT-2 and against its own other ways of computing the same."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2dist.config.schema import ModelConfig
from gpt2dist.model.gpt2 import GPT2, Cache
from gpt2dist.model.hf import from_hf_names
from gpt2dist.plan.arithmetic import parameters

TINY = ModelConfig(layers=2, heads=4, width=64, context=32, vocab=257)
WIDE = ModelConfig(layers=1, heads=2, width=128, context=48, vocab=1001)
"""Head width 64, as in every released GPT-2."""

RELEASED = {
    (12, 12, 768): 124_439_808,
    (24, 16, 1024): 354_823_168,
    (36, 20, 1280): 774_030_080,
    (48, 25, 1600): 1_557_611_200,
}


def hugging_face(config: ModelConfig) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=config.layers,
            n_head=config.heads,
            n_embd=config.width,
            n_positions=config.context,
            vocab_size=config.vocab,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()


def tokens_for(config: ModelConfig, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, config.vocab, (batch, config.context + 1), generator=generator)


@pytest.mark.parametrize("config", [TINY, WIDE])
def test_logits_loss_and_every_gradient_match_hugging_face(config):
    theirs = hugging_face(config)
    with torch.no_grad():  # biases and norms away from their init, or their paths go untested
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    ours = GPT2(config)
    ours.load_state_dict(from_hf_names(theirs.state_dict()))
    windows_BT = tokens_for(config)
    inputs_BT, targets_BT = windows_BT[:, :-1], windows_BT[:, 1:].clone()
    targets_BT[0, :5] = -100

    logits_BTV = theirs(inputs_BT).logits
    expected = cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum")
    expected.backward()
    loss = ours(inputs_BT, targets_BT)
    loss.backward()

    torch.testing.assert_close(ours(inputs_BT), logits_BTV, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, expected, atol=0, rtol=1e-6)
    gradients = from_hf_names({n: p.grad for n, p in theirs.named_parameters()})
    assert gradients.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        error = (parameter.grad - gradients[name]).norm() / gradients[name].norm()
        assert error < 1e-5, name


@pytest.mark.parametrize(("shape", "count"), RELEASED.items())
def test_released_sizes_have_their_published_parameter_counts(shape, count):
    layers, heads, width = shape
    config = ModelConfig(layers=layers, heads=heads, width=width)
    with torch.device("meta"):
        model = GPT2(config)
    assert sum(p.numel() for p in model.parameters()) == count
    assert parameters(config) == count


def test_initial_weights_have_the_stated_spread():
    config = ModelConfig(layers=8, heads=4, width=128, context=256, vocab=2000)
    torch.manual_seed(0)
    model = GPT2(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            assert torch.equal(
                parameter, torch.full_like(parameter, float("ln_" in name and "weight" in name))
            )
            continue
        expected = 0.02 / math.sqrt(16) if "c_proj" in name else 0.02
        assert abs(parameter.std().item() / expected - 1) < 0.03, name
        assert abs(parameter.mean().item()) < expected * 0.05, name


def test_initial_loss_is_that_of_a_uniform_guess():
    torch.manual_seed(0)
    windows_BT = tokens_for(TINY, 16)
    loss = GPT2(TINY)(windows_BT[:, :-1], windows_BT[:, 1:]).item() / windows_BT[:, 1:].numel()
    assert abs(loss - math.log(TINY.vocab)) < 0.05


def test_no_position_sees_a_later_token():
    model = GPT2(TINY).eval()
    tokens_BT = tokens_for(TINY)[:, :-1]
    changed_BT = tokens_BT.clone()
    changed_BT[:, 20:] = (changed_BT[:, 20:] + 1) % TINY.vocab
    before, after = model(tokens_BT), model(changed_BT)
    torch.testing.assert_close(before[:, :20], after[:, :20], atol=0, rtol=0)
    assert not torch.allclose(before[:, 20:], after[:, 20:])


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_recomputed_gradients_equal_stored_ones(dropout):
    torch.manual_seed(0)
    model = GPT2(replace(TINY, dropout=dropout)).train()
    windows_BT = tokens_for(TINY)
    results = []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        torch.manual_seed(7)
        loss = model(windows_BT[:, :-1], windows_BT[:, 1:])
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for stored, recomputed in zip(*results):
        assert torch.equal(stored, recomputed)


def test_dropout_drops_its_share_in_training_only():
    model = GPT2(replace(TINY, dropout=0.25))
    seen = {}

    def share_of_zeros(module, _, output):
        seen[module] = (output == 0).float().mean().item()

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(share_of_zeros)
    tokens_BT = tokens_for(TINY, 32)[:, :-1]
    model.train()(tokens_BT)
    assert len(seen) == 1 + 2 * TINY.layers
    assert all(abs(share - 0.25) < 0.01 for share in seen.values()), seen
    model.eval()
    assert torch.equal(model(tokens_BT), model(tokens_BT))


def test_attention_drops_whole_keys_and_rescales():
    """Uniform attention over ones is 1 without dropout, and 1 on average with it."""
    attention = GPT2(replace(TINY, dropout=0.25)).blocks[0].attn.train()
    attention.resid_dropout.p = 0.0
    with torch.no_grad():
        attention.c_attn.weight.zero_()
        attention.c_attn.bias[:128] = 0.0
        attention.c_attn.bias[128:] = 1.0
        attention.c_proj.weight.copy_(torch.eye(64))
    out_BTD = attention(torch.zeros(2000, 32, 64))
    assert abs(out_BTD.mean().item() - 1) < 0.01
    # Position 0 attends to one key: dropped in a quarter of the cases, else 1 / 0.75.
    first_BD = out_BTD[:, 0]
    assert abs((first_BD == 0).float().mean().item() - 0.25) < 0.02
    torch.testing.assert_close(first_BD.max().item(), 1 / 0.75, rtol=1e-6, atol=0)


def test_cached_logits_equal_the_full_forward():
    model = GPT2(TINY).eval()
    tokens_BT = tokens_for(TINY)[:, :-1]
    with torch.no_grad():
        full_BTV = model(tokens_BT)
        cache = Cache(TINY, 3, device=torch.device("cpu"), dtype=torch.float32)
        start = 0
        for fed in (7, 1, 4, 1, 19):  # a prompt, single tokens, and chunks onto a filled cache
            logits_BV = model(tokens_BT[:, start : start + fed], cache=cache)
            start += fed
            torch.testing.assert_close(logits_BV, full_BTV[:, start - 1], atol=1e-6, rtol=1e-5)
        assert cache.length == TINY.context
        with pytest.raises(ValueError, match="do not fit a context of 32"):
            model(tokens_BT[:, :1], cache=cache)


@pytest.mark.parametrize("way", ["autocast", "bf16 weights"])
def test_bf16_stays_near_fp32(way):
    torch.manual_seed(0)
    model = GPT2(TINY)
    windows_BT = tokens_for(TINY)
    inputs_BT, targets_BT = windows_BT[:, :-1], windows_BT[:, 1:]
    exact = model(inputs_BT, targets_BT)
    exact.backward()
    gradient = model.token_embed.weight.grad.clone()
    model.zero_grad()
    if way == "bf16 weights":
        model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        loss = model(inputs_BT, targets_BT)
    loss.backward()
    assert loss.dtype == torch.float32
    assert abs(loss.item() / exact.item() - 1) < 1e-3
    assert (model.token_embed.weight.grad - gradient).norm() / gradient.norm() < 0.02


def test_blocks_trace_into_one_graph_without_breaks():
    block = GPT2(replace(TINY, dropout=0.1)).train().blocks[0]
    explained = torch._dynamo.explain(block)(torch.randn(2, 32, 64))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)
