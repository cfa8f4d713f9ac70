"""The chunked loss against the plain formula in fp64."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from gpt2dist.errors import BadInput
from gpt2dist.model import loss as loss_module
from gpt2dist.model.loss import linear_cross_entropy

N, D, V = 37, 16, 101


def problem(dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(N, D, generator=generator, dtype=torch.float64)
    weight_VD = torch.randn(V, D, generator=generator, dtype=torch.float64) * scale
    targets_N = torch.randint(0, V, (N,), generator=generator)
    targets_N[[0, 5, 36]] = -100
    return (
        x_ND.to(dtype).requires_grad_(),
        weight_VD.to(dtype).requires_grad_(),
        targets_N,
    )


def plain(x_ND, weight_VD, targets_N):
    x_ND, weight_VD = (t.detach().double().requires_grad_() for t in (x_ND, weight_VD))
    loss = cross_entropy(x_ND @ weight_VD.t(), targets_N, ignore_index=-100, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss * 0.3, (x_ND, weight_VD))


def chunked(x_ND, weight_VD, targets_N, chunk_tokens=None):
    loss = linear_cross_entropy(x_ND, weight_VD, targets_N, chunk_tokens)
    return loss.detach(), *torch.autograd.grad(loss * 0.3, (x_ND, weight_VD))


@pytest.fixture(params=["in place", "by log"])
def softmax_form(request, monkeypatch):
    """Both devices' forms of the softmax run here; only CUDA uses the second for real."""
    if request.param == "by log":
        monkeypatch.setattr(
            loss_module,
            "_softmax_with_scratch",
            lambda z, t, scratch: loss_module._softmax_by_log(
                z, t, torch.promote_types(z.dtype, torch.float32), V
            ),
        )


@pytest.mark.usefixtures("softmax_form")
@pytest.mark.parametrize("chunk_tokens", [1, 5, 36, 37, 64, None])
def test_every_chunk_size_gives_the_plain_loss_and_gradients(chunk_tokens):
    for ours, exact in zip(chunked(*problem(), chunk_tokens), plain(*problem())):
        torch.testing.assert_close(ours, exact, atol=1e-12, rtol=1e-12)


@pytest.mark.usefixtures("softmax_form")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.bfloat16, 0.01), (torch.float16, 0.002)],
)
def test_precisions_stay_within_their_rounding(dtype, tolerance):
    args = problem(dtype)
    ours, exact = chunked(*args, 8), plain(*args)
    assert [t.dtype for t in ours] == [torch.float32, dtype, dtype]
    for got, want in zip(ours, exact):
        assert (got.double() - want).norm() / want.norm() < tolerance


def test_gradients_agree_with_finite_differences():
    x_ND, weight_VD, targets_N = problem()
    _, dX_ND, dW_VD = chunked(x_ND, weight_VD, targets_N, 8)
    step, u_ND, u_VD = 1e-5, torch.randn_like(x_ND), torch.randn_like(weight_VD)
    with torch.no_grad():
        ahead, behind = (
            linear_cross_entropy(x_ND + s * u_ND, weight_VD + s * u_VD, targets_N, 8)
            for s in (step, -step)
        )
    slope = (dX_ND * u_ND).sum() + (dW_VD * u_VD).sum()
    torch.testing.assert_close(slope, 0.3 * (ahead - behind) / (2 * step), rtol=1e-7, atol=0)


def test_autocast_computes_in_bf16_and_returns_the_inputs_dtypes():
    x_ND, weight_VD, targets_N = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = chunked(x_ND, weight_VD, targets_N, 8)
    rounded = chunked(x_ND.bfloat16(), weight_VD.bfloat16(), targets_N, 8)
    assert [t.dtype for t in ours] == [torch.float32] * 3
    assert torch.equal(ours[0], rounded[0])
    for got, want in zip(ours[1:], plain(x_ND, weight_VD, targets_N)[1:]):
        assert (got.double() - want).norm() / want.norm() < 0.01


def test_ignored_tokens_contribute_nothing_even_when_not_finite():
    x_ND, weight_VD, _ = problem()
    targets_N = torch.full((N,), -100)
    assert all(t.abs().sum() == 0 for t in chunked(x_ND, weight_VD, targets_N, 8))
    targets_N[20] = 3
    loss, dX_ND, _ = chunked(x_ND, weight_VD, targets_N, 8)
    alone = plain(x_ND[20:21], weight_VD, targets_N[20:21])
    torch.testing.assert_close(loss, alone[0])
    assert dX_ND[:20].abs().sum() == dX_ND[21:].abs().sum() == 0


@pytest.mark.usefixtures("softmax_form")
def test_loss_is_exact_where_the_probability_underflows():
    args = problem(torch.float32, scale=200.0)
    ours, exact = chunked(*args)[0], plain(*args)[0]
    assert exact / N > 500
    torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=0)


def test_fp16_keeps_the_gradient_of_improbable_tokens():
    # 50,257 equal logits: each probability is 2e-5, of which unscaled fp16 holds 8 bits.
    x_ND = torch.ones(4, 8, dtype=torch.float16, requires_grad=True)
    weight_VD = torch.zeros(50257, 8, dtype=torch.float16, requires_grad=True)
    targets_N = torch.zeros(4, dtype=torch.int64)
    _, _, dW_VD = chunked(x_ND, weight_VD, targets_N)
    torch.testing.assert_close(
        dW_VD[1:].float().mean(), torch.tensor(4 * 0.3 / 50257), rtol=2e-3, atol=0
    )


def test_no_gradient_is_computed_when_none_is_wanted(monkeypatch):
    asked = []
    original = loss_module._chunked
    monkeypatch.setattr(loss_module, "_chunked", lambda *a: asked.append(a[-1]) or original(*a))
    x_ND, weight_VD, targets_N = problem()
    with torch.no_grad():
        linear_cross_entropy(x_ND, weight_VD, targets_N)
    linear_cross_entropy(x_ND, weight_VD.detach(), targets_N).backward()
    assert asked == [(False, False), (True, False)]
    torch.testing.assert_close(x_ND.grad * 0.3, plain(x_ND, weight_VD, targets_N)[1])


def test_a_second_backward_is_refused():
    loss = linear_cross_entropy(*problem())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="already handed out"):
        loss.backward()


@pytest.mark.parametrize("wrong", [V, 127, 128, 10**6, -1, -101])
def test_a_target_outside_the_vocabulary_is_named(wrong):
    """127: the logits are padded to 128 columns, where the loss was infinite instead."""
    x_ND, weight_VD, targets_N = problem()
    targets_N[[17, 30]] = wrong
    with pytest.raises(BadInput, match=f"target {wrong} at position 17 of the batch .* of 101 tok"):
        linear_cross_entropy(x_ND, weight_VD, targets_N)


def test_cuda_s_form_leaves_no_target_in_the_padding_unnoticed():
    """Its check is torch's own of `gather`, which has the same bounds on every device."""
    padded_CP = torch.zeros(2, 128)
    with pytest.raises(RuntimeError, match=r"index 127 is out of bounds .* size 101"):
        loss_module._softmax_by_log(padded_CP, torch.tensor([[0], [127]]), torch.float32, V)
