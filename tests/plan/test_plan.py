"""Parameters, FLOPs, peaks and memory against closed forms and published figures."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from gpt2dist.config.schema import ModelConfig
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.plan.arithmetic import flops_per_token, parameters
from gpt2dist.plan.hardware import find_gpu, peak_tflops
from gpt2dist.plan.memory import _block_bytes, _state_bytes, largest_micro_batch, training_gib

SMALL = ModelConfig()
XL = ModelConfig(layers=48, heads=25, width=1600)
PLACE = {
    "precision": "bf16",
    "mixed_precision": "autocast",
    "zero_stage": 0,
    "world": 1,
    "recompute": False,
}


def test_parameters_equal_a_model_of_odd_shape():
    config = ModelConfig(layers=3, heads=5, width=35, context=17, vocab=101)
    assert parameters(config) == sum(p.numel() for p in GPT2(config).parameters())


def test_flops_equal_those_torch_counts():
    """Torch's counter on one forward and backward pass, with attention written as matmuls."""
    config = ModelConfig(layers=2, heads=4, width=32, context=16, vocab=128)
    model = GPT2(config)
    tokens_BT = torch.randint(0, 128, (2, 16))
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        # Plain logits: the counter does not know addmm_, which the chunked loss uses.
        cross_entropy(model(tokens_BT).flatten(0, 1), tokens_BT.flatten()).backward()
    assert counter.get_total_flops() == 32 * flops_per_token(config)


def test_124m_costs_what_nanogpt_counts():
    # 6 x (124,439,808 - positions - biases and norms) + 12 x 12 x 768 x 1024
    matmul = 124_439_808 - 1024 * 768 - 12 * 13 * 768 - 2 * 768
    assert flops_per_token(SMALL) == 6 * matmul + 113_246_208


@pytest.mark.parametrize(
    ("device_name", "precision", "tflops"),
    [
        ("NVIDIA GeForce RTX 3090", "bf16", 71),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16", 80),
        ("NVIDIA GeForce RTX 4090", "fp16", 165.2),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5),
        ("NVIDIA A100 80GB PCIe", "bf16", 312),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA RTX A6000", "bf16", 154.8),
        ("NVIDIA A10G", "bf16", 70),
        ("Tesla T4", "fp16", 65),
        ("Tesla T4", "bf16", None),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "bf16", None),
        ("cpu", "fp32", None),
    ],
)
def test_peaks_are_the_data_sheets(device_name, precision, tflops):
    assert peak_tflops(device_name, precision) == tflops


def test_a_gpu_names_its_memory_and_source():
    gpu = find_gpu("NVIDIA GeForce RTX 3090")
    assert (gpu.name, gpu.memory_gib, gpu.watts) == ("RTX 3090", 23.7, 350)
    assert "whitepaper" in gpu.source


def test_states_are_those_of_the_zero_paper():
    """Engine mode, world 64: 2 + 4 (fp32 gradients) + 12 bytes, less what a stage shards."""
    n = 10**9 + 1
    buckets = 4 * 500_000_000
    for stage, per_parameter in ((1, 6 + 12 / 64), (2, 2 + 16 / 64)):
        assert _state_bytes(n, 2, False, stage, 64) == per_parameter * n + buckets
    assert _state_bytes(n, 2, False, 3, 64) == 18 / 64 * n + buckets + 2 * 10**9
    assert _state_bytes(n, 4, True, 0, 1) == (16 + 2) * n  # autocast, one GPU
    assert _state_bytes(n, 4, False, 0, 1) == 16 * n  # plain fp32


def test_activations_are_korthikantis_and_llm_cs():
    """34 T d with dropout (arXiv:2205.05198), 32 T d without (llm.c, exact on its logs)."""
    per_block = 2 * 1024 * 768
    dropout = replace(SMALL, dropout=0.1)
    workspace = 16 * per_block
    assert _block_bytes(dropout, 2, 2, 2, False) == 12 * 34 * per_block + workspace
    assert _block_bytes(SMALL, 2, 2, 2, False) == 12 * 32 * per_block + workspace
    assert _block_bytes(dropout, 2, 2, 2, True) == (12 * 2 + 34) * per_block


def test_activations_cover_what_autograd_saves():
    """Bytes that a live fp32 model keeps for its backward pass, weights aside."""
    config = ModelConfig(layers=4, heads=4, width=64, context=128, vocab=64)
    model = GPT2(config)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens_BT = torch.randint(0, 64, (2, 128))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(tokens_BT, tokens_BT)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    workspace = 2 * 128 * 64 * 8 * 4
    estimate = _block_bytes(config, 2, 4, 4, False) - workspace
    assert 0.9 < kept / estimate < 1.1


def test_largest_micro_batch_is_the_largest_divisor_that_fits():
    for free_gib in (0.5, 3.0, 8.0, 23.7, 79.1, 1000.0):
        best = largest_micro_batch(SMALL, 48, free_gib, **PLACE)
        fitting = [
            b for b in range(1, 49) if 48 % b == 0 and training_gib(SMALL, b, **PLACE) <= free_gib
        ]
        assert best == max(fitting, default=0)
    assert largest_micro_batch(SMALL, 48, 0.5, **PLACE) == 0


def test_what_saves_memory_saves_it_in_the_estimate():
    def gib(**change):
        return training_gib(XL, 4, **{**PLACE, "world": 8, **change})

    assert gib() > gib(zero_stage=1) > gib(zero_stage=2) > gib(zero_stage=3)
    assert gib(recompute=True) < gib()
    assert gib(mixed_precision="engine") < gib() < gib(precision="fp32")
    assert gib(precision="fp16") == gib(mixed_precision="engine")  # fp16 is always engine mode


def test_1558m_trains_on_80_gib_and_not_on_24():
    """As published: GPT-2 XL with plain Adam does not fit a 3090, and does fit an A100-80GB."""
    assert largest_micro_batch(XL, 64, 23.7, **PLACE) == 0
    assert largest_micro_batch(XL, 64, 79.15, **PLACE) >= 8


def test_planning_imports_no_heavy_package():
    code = (
        "import sys, gpt2dist.plan.memory, gpt2dist.plan.hardware as h; h.find_gpu('x');"
        "assert not {'torch', 'numpy', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
