"""Validation loss: the same function inside the loop, offline, and on any number of ranks."""
# B rows of a batch, T tokens of a window

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from gpt2dist.errors import BadInput
from gpt2dist.model.loss import IGNORE


def validation_loss(
    forward: Callable[[Tensor, Tensor], Tensor],
    batches: Iterable[tuple[Tensor, int]],
    *,
    device: torch.device,
    all_reduce: Callable[[tuple[float, float]], Sequence[float]] | None = None,
) -> tuple[float, int]:
    """Mean cross-entropy in nats per token, and the tokens it is the mean of.

    `forward(tokens_BT, targets_BT)` returns a summed loss. A batch is windows of T + 1 ids and
    the number of its rows that count; the rest is padding, run only because a sharded model's
    forward pass is collective. `all_reduce` sums (loss, tokens) over the ranks. A module runs in
    eval mode and returns to the mode it was in. Raises BadInput when there is no token.
    """
    modules = list(forward.modules()) if isinstance(forward, torch.nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    loss_sum = torch.zeros((), dtype=torch.float64)
    tokens = 0
    try:
        with torch.no_grad():
            for windows, valid_rows in batches:
                windows_BT = windows.to(device)
                targets_BT = windows_BT[:, 1:].clone()
                targets_BT[valid_rows:] = IGNORE
                loss = forward(windows_BT[:, :-1], targets_BT)
                loss_sum = loss_sum.to(device) + loss.double()
                tokens += valid_rows * targets_BT.shape[1]
    finally:
        for module, mode in zip(modules, modes):
            module.training = mode
    total, counted = loss_sum.item(), float(tokens)
    if all_reduce is not None:
        total, counted = all_reduce((total, counted))
    if counted == 0:
        raise BadInput("there is no validation token; raise eval.tokens or data.val_fraction")
    return total / counted, int(counted)
