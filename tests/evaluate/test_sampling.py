"""Generated ids against Hugging Face, brute force and known distributions."""

import itertools

import pytest
import torch
from transformers import GPT2LMHeadModel

from gpt2dist.config.schema import ModelConfig
from gpt2dist.errors import BadInput
from gpt2dist.evaluate.sampling import Sampling, generate, token_probabilities
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.model.hf import export_hf

CONFIG = ModelConfig(layers=2, heads=4, width=32, context=24, vocab=61)
PROMPTS = [[3, 1, 4, 1], [5, 9, 2, 6]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GPT2(CONFIG)
    with torch.no_grad():  # confident enough that greedy choices are no ties
        for parameter in model.parameters():
            parameter.mul_(6.0 if parameter.dim() > 1 else 1.0)
    return model


def drawn(model, prompt_ids, **choices):
    return list(generate(model, prompt_ids, Sampling(**choices)))


def test_greedy_equals_hugging_face(model, tmp_path):
    export_hf(model.state_dict(), CONFIG, tmp_path / "export")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "export").eval()
    prompt_BT = torch.tensor(PROMPTS)
    expected_BT = theirs.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        do_sample=False,
        max_new_tokens=20,
        eos_token_id=None,
        pad_token_id=0,
    )
    steps = drawn(model, PROMPTS, max_new_tokens=20, temperature=0)
    assert torch.tensor(steps).t().tolist() == expected_BT[:, 4:].tolist()
    assert len({tuple(step) for step in steps}) > 3


def test_cached_sampling_equals_sampling_without_a_cache(model):
    """Also across full windows: each restarts from its newer half, 12 of 24 tokens."""
    seen = [3, 1, 4, 1]
    window = list(seen)
    generator = torch.Generator().manual_seed(5)
    for _ in range(60):
        if len(window) > CONFIG.context:
            window = seen[-CONFIG.context // 2 :]
        with torch.no_grad():
            logits_BV = model.eval()(torch.tensor([window]))[:, -1]
        probs_BV = token_probabilities(logits_BV, 0.9, 20, 0.9)
        token = torch.multinomial(probs_BV, 1, generator=generator).item()
        seen.append(token)
        window.append(token)
    steps = drawn(
        model, [3, 1, 4, 1], max_new_tokens=60, temperature=0.9, top_k=20, top_p=0.9, seed=5
    )
    assert [step[0] for step in steps] == seen[4:]


def test_a_long_prompt_counts_with_its_newest_window(model):
    prompt = [i % 61 for i in range(100)]
    steps = drawn(model, prompt, max_new_tokens=8, temperature=0)
    assert steps == drawn(model, prompt[-24:], max_new_tokens=8, temperature=0)


def test_top_k_and_top_p_equal_their_definitions():
    generator = torch.Generator().manual_seed(0)
    for top_k, top_p in itertools.product((None, 1, 3, 50), (None, 0.05, 0.5, 0.93, 1.0)):
        logits_V = torch.randn(12, generator=generator, dtype=torch.float64) * 2
        probs_BV = token_probabilities(logits_V.unsqueeze(0), 0.7, top_k, top_p)
        weights = [(p, i) for i, p in enumerate((logits_V / 0.7).softmax(0).tolist())]
        ranked = sorted(weights, reverse=True)[: top_k or 12]
        mass = sum(p for p, _ in ranked)
        kept, held = [], 0.0
        for weight, index in ranked:
            kept.append((weight, index))
            held += weight / mass
            if top_p is not None and held >= top_p:
                break
        total = sum(p for p, _ in kept)
        expected_V = torch.zeros(12, dtype=torch.float64)
        for weight, index in kept:
            expected_V[index] = weight / total
        torch.testing.assert_close(probs_BV[0], expected_V, atol=1e-12, rtol=1e-9)


def test_draws_follow_the_models_distribution(model):
    """20,000 first tokens from a nucleus against their probabilities (chi-square)."""
    count = 20_000
    with torch.no_grad():
        logits_BV = model.eval()(torch.tensor([[3, 1, 4, 1]]))[:, -1]
    probs_V = token_probabilities(logits_BV, 2.0, 10)[0]
    (ids,) = drawn(model, [[3, 1, 4, 1]] * count, max_new_tokens=1, temperature=2.0, top_k=10)
    seen_V = torch.bincount(torch.tensor(ids), minlength=CONFIG.vocab)
    assert seen_V[probs_V == 0].sum() == 0
    expected = probs_V[probs_V > 0] * count
    chi_square = ((seen_V[probs_V > 0] - expected) ** 2 / expected).sum().item()
    assert len(expected) == 10
    assert chi_square < 27.9  # 99.9 % of the distribution with 9 degrees of freedom


def test_a_seed_decides_the_text_and_trainings_random_state_is_untouched(model):
    state = torch.get_rng_state()
    first, again, other = (
        drawn(model, PROMPTS, max_new_tokens=12, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_streaming_stops_when_every_sample_has_stopped(model):
    free = drawn(model, PROMPTS, max_new_tokens=15, seed=3)
    stop = free[4][0]
    steps = drawn(model, PROMPTS, max_new_tokens=15, seed=3, stop_id=stop)
    first = next(i for i, step in enumerate(free) if step[0] == stop)
    assert [step[0] for step in steps] == [step[0] for step in free[:first]] + [stop] * (
        len(steps) - first
    )
    alone = drawn(model, PROMPTS[0], max_new_tokens=15, temperature=0)
    until = drawn(model, PROMPTS[0], max_new_tokens=15, temperature=0, stop_id=alone[3][0])
    assert until == alone[: alone.index(alone[3]) + 1]


def test_the_models_mode_returns_even_when_the_reader_leaves(model):
    model.train()
    stream = generate(model, PROMPTS, Sampling(5))
    next(stream)
    stream.close()
    assert model.training


@pytest.mark.parametrize(
    ("prompt", "choices", "message"),
    [
        ([], {}, "prompt is empty"),
        ([[1], []], {}, "prompt is empty"),
        ([[1], [1, 2]], {}, "same length"),
        ([61], {}, "token 61 is outside"),
        ([-1], {}, "token -1 is outside"),
        ([1], {"temperature": -0.1}, "temperature=-0.1"),
        ([1], {"temperature": float("nan")}, "temperature=nan"),
        ([1], {"top_k": 0}, "top_k=0"),
        ([1], {"top_p": 0.0}, "top_p=0.0"),
        ([1], {"top_p": 1.5}, "top_p=1.5"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens=0"),
    ],
)
def test_what_cannot_be_sampled_is_refused_at_the_call(model, prompt, choices, message):
    with pytest.raises(BadInput, match=message):
        generate(model, prompt, Sampling(**{"max_new_tokens": 3, **choices}))
