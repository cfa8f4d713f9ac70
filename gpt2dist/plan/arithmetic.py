"""How many parameters a model has and how many FLOPs a trained token costs."""

from __future__ import annotations

from gpt2dist.config.schema import ModelConfig


def parameters(model: ModelConfig) -> int:
    """Trained numbers: token and position embeddings (the head is tied), L blocks, final norm.

    A block has four matrices (3 + 1 + 4 + 4) d^2, their biases 9 d and two norms 4 d.
    """
    d = model.width
    block = 12 * d * d + 13 * d
    return (model.vocab + model.context) * d + model.layers * block + 2 * d


def flops_per_token(model: ModelConfig) -> int:
    """Model FLOPs of one trained token, forward and backward, at full context.

    6 N_matmul + 12 L d T with N_matmul = 12 L d^2 + V d: PaLM (arXiv:2204.02311), appendix B, as
    nanoGPT counts. Attention is counted in full, not its causal half, as in published MFU.
    """
    d = model.width
    matmul = 12 * model.layers * d * d + model.vocab * d
    return 6 * matmul + 12 * model.layers * d * model.context
