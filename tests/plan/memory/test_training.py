"""The activation counts against what autograd really saves of our GPT-2, tensor by tensor."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from gpt2dist.config.schema import ModelConfig
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.plan.arithmetic import block_matrices
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.memory.terms import activation_bytes
from gpt2dist.plan.memory.training import training_counts

BATCH = 2
SHAPE = ModelConfig(layers=1, heads=4, width=64, context=128, vocab=64)
AUTOCAST = Layout(micro_batch=BATCH, kernels="eager")
ENGINE = Layout(micro_batch=BATCH, kernels="eager", mixed_precision="engine")
FP32 = Layout(micro_batch=BATCH, kernels="eager", precision="fp32")
PARTITIONER = "aot_eager_decomp_partition"
"""torch.compile's own choice of what to keep, without generating code."""


def with_layers(layers):
    return ModelConfig(layers=layers, heads=4, width=64, context=128, vocab=64)


def saved_bytes(config, layout):
    """All storages that the graph of one forward pass holds, weights aside, each once."""
    model = GPT2(config, recompute=layout.recompute)
    if layout.mixed_precision == "engine":
        model = model.bfloat16()
    if layout.kernels == "compiled":
        for block in model.blocks:
            block.compile(backend=PARTITIONER)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = tensor  # holding it keeps its address unique
        return tensor

    autocast = layout.precision == "bf16" and layout.mixed_precision == "autocast"
    tokens_BT = torch.randint(0, config.vocab, (BATCH, config.context))
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext(),
    ):
        model._hidden(tokens_BT, None)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def counts_on_cpu(config, layout):
    """A CPU's norms keep mean and deviation in the weights' dtype, CUDA's in fp32."""
    counts = training_counts(config, layout)
    if layout.mixed_precision == "engine":
        counts = replace(counts, block_token=8, outer_token=counts.outer_token - 4)
    return counts


@pytest.mark.parametrize("layout", [AUTOCAST, ENGINE, FP32], ids=["autocast", "engine", "fp32"])
def test_eager_blocks_save_what_the_formula_says(layout):
    config = with_layers(3)
    counts = counts_on_cpu(config, layout)
    estimate = activation_bytes(config, layout, counts) + counts.cast * block_matrices(config)
    positions = 8 * config.context  # the one thing that does not grow with the batch
    assert saved_bytes(config, layout) == estimate + positions


@pytest.mark.filterwarnings("ignore")  # those of the compiler itself
def test_compiled_blocks_save_what_the_formula_says():
    layout = Layout(micro_batch=BATCH, kernels="compiled")
    counts = training_counts(SHAPE, layout)
    per_layer = saved_bytes(with_layers(2), layout) - saved_bytes(SHAPE, layout)
    one = activation_bytes(with_layers(2), layout, counts) - activation_bytes(SHAPE, layout, counts)
    assert per_layer == one + counts.cast * block_matrices(SHAPE)


@pytest.mark.parametrize("layout", [AUTOCAST, ENGINE, FP32], ids=["autocast", "engine", "fp32"])
def test_recomputation_keeps_only_the_residual_stream(layout):
    layout = replace(layout, recompute=True)
    per_layer = (saved_bytes(with_layers(3), layout) - saved_bytes(SHAPE, layout)) / 2
    stream = training_counts(SHAPE, layout).stream
    assert per_layer == BATCH * SHAPE.context * SHAPE.width * stream
