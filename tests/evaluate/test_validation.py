"""Validation loss against the plain mean over all tokens."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from gpt2dist.config.schema import ModelConfig
from gpt2dist.errors import BadInput
from gpt2dist.evaluate.validation import validation_loss
from gpt2dist.model.gpt2 import GPT2

CONFIG = ModelConfig(layers=1, heads=2, width=16, context=8, vocab=31, dropout=0.5)
CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT2(CONFIG)


@pytest.fixture
def windows():
    return torch.randint(0, 31, (10, 9), generator=torch.Generator().manual_seed(0))


def padded(windows, micro_batch):
    for start in range(0, len(windows), micro_batch):
        rows = windows[start : start + micro_batch]
        padding = rows[-1:].expand(micro_batch - len(rows), -1)
        yield torch.cat((rows, padding)), len(rows)


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 10])
def test_loss_is_the_mean_over_all_tokens_whatever_the_batch(model, windows, micro_batch):
    with torch.no_grad():
        logits_BTV = model.eval()(windows[:, :-1])
    expected = cross_entropy(logits_BTV.flatten(0, 1).double(), windows[:, 1:].flatten())
    loss, tokens = validation_loss(model, padded(windows, micro_batch), device=CPU)
    assert tokens == 80
    assert loss == pytest.approx(expected.item(), rel=1e-6)


def test_ranks_together_see_what_one_sees(model, windows):
    """Also with a rank whose only batch is padding."""
    alone = validation_loss(model, padded(windows, 5), device=CPU)
    shares = [[(windows[:7], 7)], [(windows[7:], 3)], [(windows[:2], 0)]]
    pairs = []
    for share in shares:
        validation_loss(
            model, share, device=CPU, all_reduce=lambda pair: pairs.append(pair) or (1.0, 1.0)
        )
    together = [sum(column) for column in zip(*pairs)]
    loss, tokens = validation_loss(model, shares[0], device=CPU, all_reduce=lambda _: together)
    assert tokens == alone[1]
    assert loss == pytest.approx(alone[0], rel=1e-6)


def test_modes_return_and_no_gradient_is_left(model, windows):
    model.train()
    model.blocks[0].eval()
    validation_loss(model, padded(windows, 5), device=CPU)
    assert model.training
    assert not model.blocks[0].mlp.training
    assert all(p.grad is None for p in model.parameters())

    def failing(*_):
        raise OSError

    model.ln_f.register_forward_hook(failing)
    with pytest.raises(OSError):  # noqa: PT011
        validation_loss(model, padded(windows, 5), device=CPU)
    assert model.training


def test_an_empty_validation_set_is_refused(model):
    with pytest.raises(BadInput, match="no validation token"):
        validation_loss(model, [], device=CPU)
