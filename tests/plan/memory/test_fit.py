"""Memory against closed forms: ZeRO's and Korthikanti's papers, adapters, 8-bit Adam, offload."""

import dataclasses
from dataclasses import replace
from itertools import pairwise

import pytest

from gpt2dist.config.schema import ModelConfig
from gpt2dist.plan.arithmetic import GIB, parameters
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.memory.fit import largest_micro_batch, memory, micro_batch_for
from gpt2dist.plan.memory.terms import ByteCounts, activation_bytes, estimate
from gpt2dist.plan.memory.training import training_counts

SMALL = ModelConfig()
XL = ModelConfig(layers=48, heads=25, width=1600)
N_SMALL, N_XL = 124_439_808, 1_557_611_200  # as published
ENGINE = Layout(mixed_precision="engine", zero_stage=1)


def states_gib(found):
    return found.weights_gib + found.gradients_gib + found.optimizer_gib


@pytest.mark.parametrize(
    ("stage", "per_parameter"),
    [(0, 16), (1, 4 + 12 / 64), (2, 2 + 14 / 64), (3, 16 / 64)],
)
def test_states_are_those_of_the_zero_paper(stage, per_parameter):
    """arXiv:1910.02054, figure 1: 2 + 2 + 12 bytes, 64 GPUs, 7.5 billion parameters."""
    counts = ByteCounts(weights=2, gradients=2, optimizer=12, block_width=34)
    found = estimate(SMALL, Layout(gpus_per_node=64, zero_stage=stage), counts, 7_500_000_000)
    assert states_gib(found) == pytest.approx(per_parameter * 7.5e9 / GIB, rel=1e-12)


def test_activations_are_korthikantis():
    """arXiv:2205.05198, equation 1 and table 2: s b h (34 + 5 a s / h) per layer, fp16, dropout."""
    s, b, h, a, layers = 1024, 2, 768, 12, 12
    written_out = replace(
        ENGINE, micro_batch=b, precision="fp16", kernels="eager", fused_attention=False
    )
    dropout = replace(SMALL, dropout=0.1)
    counts = replace(training_counts(dropout, written_out), block_token=0, outer_width=0)
    counts = replace(counts, outer_token=0)
    kept = activation_bytes(dropout, written_out, counts)
    assert kept == layers * s * b * h * (34 + 5 * a * s / h)
    fused = activation_bytes(dropout, written_out, replace(counts, block_attention=0))
    assert fused == layers * 34 * s * b * h
    recomputed = activation_bytes(dropout, replace(written_out, recompute=True), counts)
    assert recomputed == layers * 2 * s * b * h + s * b * h * (34 + 5 * a * s / h)


@pytest.mark.parametrize(
    ("layout", "per_parameter"),
    [
        (Layout(), 4 + 4 + 8),  # fp32 weights under autocast, one GPU
        (Layout(precision="fp32"), 4 + 4 + 8),
        (Layout(zero_stage=1), 4 + 4 + 8 + 4),  # DeepSpeed's masters even of fp32 weights
        (ENGINE, 2 + 4 + 8 + 4),
        (replace(ENGINE, gpus_per_node=8), 2 + 4 + 12 / 8),
        (replace(ENGINE, gpus_per_node=8, zero_stage=2), 2 + 4 / 8 + 12 / 8),
        (replace(ENGINE, gpus_per_node=8, zero_stage=3), 18 / 8),
        (replace(ENGINE, precision="fp16", mixed_precision="autocast"), 2 + 4 + 12),
    ],
)
def test_our_states_per_parameter(layout, per_parameter):
    assert states_gib(memory(XL, layout)) == pytest.approx(per_parameter * N_XL / GIB, rel=1e-12)


def test_the_peak_is_the_sum_of_the_gpu_terms():
    found = memory(XL, replace(ENGINE, offload="optimizer", zero_stage=2, gpus_per_node=4))
    terms = dataclasses.asdict(found)
    assert terms.pop("host_gib") > 0
    assert found.peak_gib == pytest.approx(sum(terms.values()), rel=1e-12)


def test_logits_exist_only_for_one_chunk():
    """2 bytes of logits and 4 of log-softmax for each of 50,257 tokens."""
    layout = Layout(micro_batch=16)
    whole = memory(SMALL, replace(layout, loss_chunk_tokens=None)).logits_gib
    chunked = memory(SMALL, layout).logits_gib
    assert whole - chunked == pytest.approx(15 * 1024 * 50257 * 6 / GIB, rel=1e-9)


@pytest.mark.parametrize("change", ["micro_batch", "context", "width", "layers", "vocab"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("recompute", [False, True])
def test_more_of_anything_takes_more_memory(change, stage, recompute):
    layout = Layout(gpus_per_node=4, micro_batch=2, zero_stage=stage, recompute=recompute)
    if change == "micro_batch":
        steps = [memory(SMALL, replace(layout, micro_batch=size)) for size in (1, 2, 3, 8, 64)]
    else:
        value = getattr(SMALL, change)
        models = [replace(SMALL, **{change: value * factor}) for factor in (1, 2, 3, 8)]
        steps = [memory(model, layout) for model in models]
    peaks = [step.peak_gib for step in steps]
    assert all(smaller < larger for smaller, larger in pairwise(peaks))


@pytest.mark.parametrize("model", [SMALL, XL], ids=["124M", "1558M"])
def test_zero_stages_never_take_more_on_many_gpus(model):
    peaks = [
        memory(model, Layout(gpus_per_node=8, nodes=8, zero_stage=stage)).peak_gib
        for stage in (1, 2, 3)
    ]
    assert peaks == sorted(peaks, reverse=True)


def test_zero_1_on_one_gpu_only_adds_masters_and_buckets():
    """Two buckets of 1e8 numbers, fp32: one per dtype of communication."""
    plain = memory(SMALL, Layout(micro_batch=64))
    staged = memory(SMALL, Layout(micro_batch=64, zero_stage=1))
    assert staged.optimizer_gib - plain.optimizer_gib == pytest.approx(4 * N_SMALL / GIB)
    assert staged.buffers_gib - plain.buffers_gib == pytest.approx(2 * 4 * 1e8 / GIB)


def test_lora_trains_r_times_in_plus_out_per_matrix():
    """Four matrices a block: d -> 3 d, d -> d, d -> 4 d, 4 d -> d."""
    d, rank = 1600, 16
    adapters = 48 * sum(rank * (i + o) for i, o in ((d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)))
    found = memory(XL, Layout(lora_rank=rank))
    assert found.weights_gib == pytest.approx(2 * (N_XL + adapters) / GIB, rel=1e-12)
    assert found.gradients_gib == pytest.approx(4 * adapters / GIB, rel=1e-12)
    assert found.optimizer_gib == pytest.approx((8 + 4) * adapters / GIB, rel=1e-12)


def test_8_bit_adam_keeps_two_bytes_and_a_scale_per_256():
    plain = memory(SMALL, Layout()).optimizer_gib
    small = memory(SMALL, Layout(optimizer="adamw8bit")).optimizer_gib
    assert plain == pytest.approx(8 * N_SMALL / GIB)
    assert small == pytest.approx((2 + 2 * 4 / 256) * N_SMALL / GIB)


@pytest.mark.parametrize("nodes", [1, 2])
def test_offload_moves_the_optimizer_to_the_machines(nodes):
    """Moments 8, masters 4, gradients 4 and the 2-byte copy on the way back, of one's share."""
    layout = replace(ENGINE, gpus_per_node=4, nodes=nodes, zero_stage=2)
    on_gpu, off = memory(XL, layout), memory(XL, replace(layout, offload="optimizer"))
    assert on_gpu.host_gib == 0
    assert off.host_gib == pytest.approx((8 + 4 + 4 + 2) * N_XL / nodes / GIB)
    assert (off.optimizer_gib, off.gradients_gib) == (0, 0)
    assert off.weights_gib == on_gpu.weights_gib
    assert off.peak_gib < on_gpu.peak_gib


def test_what_saves_memory_saves_it():
    def gib(**change):
        return memory(XL, Layout(gpus_per_node=8, micro_batch=4, **change)).peak_gib

    assert gib(recompute=True) < gib()
    assert gib(kernels="compiled") < gib(kernels="eager") < gib(fused_attention=False)
    assert gib(zero_stage=1, mixed_precision="engine") < gib(zero_stage=1) < gib(precision="fp32")
    assert gib(loss_chunk_tokens=512) < gib() < gib(loss_chunk_tokens=None)


@pytest.mark.parametrize("free_gib", [0.5, 3.0, 8.0, 23.7, 79.15, 1000.0])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_search_finds_what_trying_every_size_finds(free_gib, recompute):
    layout = Layout(recompute=recompute)
    fitting = [
        size
        for size in range(1, 97)
        if memory(SMALL, replace(layout, micro_batch=size)).peak_gib <= free_gib
    ]
    assert largest_micro_batch(SMALL, layout, free_gib, 96) == max(fitting, default=0)
    divisors = [size for size in fitting if 96 % size == 0]
    assert micro_batch_for(SMALL, layout, free_gib, 96) == max(divisors, default=0)


def test_1558m_trains_on_80_gib_and_not_on_24():
    """As published: GPT-2 XL with plain Adam does not fit a 3090, and does fit an A100-80GB."""
    assert parameters(XL) == N_XL
    assert micro_batch_for(XL, Layout(), 23.7, 64) == 0
    assert micro_batch_for(XL, Layout(), 79.15, 64) >= 8
