"""Parameters, FLOPs and peaks against closed forms and published figures."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from gpt2dist.config.schema import ModelConfig
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.plan.arithmetic import flops_per_token, parameters
from gpt2dist.plan.machine.hardware import find_gpu, peak_tflops

SMALL = ModelConfig()


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


def test_planning_imports_no_heavy_package():
    code = (
        "import sys, gpt2dist.plan.measures, gpt2dist.plan.machine.hardware as h; h.find_gpu('x');"
        "assert not {'torch', 'numpy', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
