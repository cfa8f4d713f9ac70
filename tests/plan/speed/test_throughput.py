"""Predicted speed against closed forms, bounds of physics, and published runs."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2dist.config.schema import ModelConfig
from gpt2dist.errors import BadInput
from gpt2dist.plan.arithmetic import flops_per_token
from gpt2dist.plan.layout import Layout
from gpt2dist.plan.machine.hardware import all_gpus, gpu_named, parse_on
from gpt2dist.plan.speed.roofline import step_seconds
from gpt2dist.plan.speed.throughput import ceiling_tflops, fitted, predict, step_work

ROOT = Path(__file__).resolve().parents[3]
SMALL = ModelConfig()
XL = ModelConfig(layers=48, heads=25, width=1600)
WEIGHTS = 12 * 12 * 768**2 + (50257 + 1024) * 768
"""Of SMALL, in matrices: what is reduced and stepped."""


def laid_out(on, model=SMALL, internode_gbs=12.5, **layout):
    hardware = replace(parse_on(on), network_gbit=8 * internode_gbs)
    layout = {"micro_batch": 16, "accumulation": 4, **layout}
    counts = {"gpus_per_node": hardware.gpus_per_node, "nodes": hardware.nodes}
    return model, hardware, Layout(**counts, **layout)


def speed(on, *model, **layout):
    return predict(*laid_out(on, *model, **layout))


def parts(on, *model, **layout):
    """Seconds of a step: computing, communication that nothing hides, the optimizer."""
    work = step_work(*laid_out(on, *model, **layout))
    return *step_seconds(work, fitted()[0]), work.optimizer_seconds


@pytest.mark.parametrize(
    ("on", "layout", "published"),
    [
        # llm.c run_gpt2_774M.sh: about 1.7 s per step of 524,288 tokens.
        (
            "A100-80GB:8",
            {"model": ModelConfig(layers=36, heads=20, width=1280), "micro_batch": 32}
            | {"accumulation": 2, "kernels": "hand-written", "zero_stage": 1},
            308_405,
        ),
        # modded-nanogpt, GPT-2 350M with llm.c: 5.8 h for 60,000 steps.
        (
            "H100:8",
            {"model": ModelConfig(layers=24, heads=16, width=1024), "micro_batch": 64}
            | {"accumulation": 1, "kernels": "hand-written", "zero_stage": 1},
            1_506_575,
        ),
        # nanoGPT's README, before fused attention: 250 ms and 135 ms per 12 x 1,024 tokens.
        (
            "A100",
            {"micro_batch": 12, "accumulation": 1, "kernels": "eager", "fused_attention": False},
            49_152,
        ),
        (
            "A100",
            {"micro_batch": 12, "accumulation": 1, "kernels": "compiled", "fused_attention": False},
            91_022,
        ),
        # llm-foundry, MPT 125M in PyTorch with FlashAttention.
        (
            "A100-80GB:8",
            {"micro_batch": 64, "accumulation": 2, "kernels": "eager", "zero_stage": 3}
            | {"mixed_precision": "engine"},
            1_251_751,
        ),
    ],
)
def test_published_runs_lie_in_the_predicted_range(on, layout, published):
    predicted = speed(on, **layout)
    assert predicted.low < published < predicted.high


@pytest.mark.parametrize(
    ("gpu", "gpus", "layout", "published"),
    [
        # gollem@9bdf113 6_gpt2_124M_DDP.ipynb: 412,307 tokens/s on 1 H100, 782,975 on 2, 3,046,409
        # on 8, one micro-batch of 64 a step.
        ("H100", 2, {"micro_batch": 64, "accumulation": 1}, 0.950),
        ("H100", 8, {"micro_batch": 64, "accumulation": 1}, 0.924),
        # modded-nanogpt@f411b3d track 3: 1,073.9 ms a step on 1 H200, 144.0 on 8.
        ("H200", 8, {"micro_batch": 64, "accumulation": 1}, 0.932),
        # LLMs-from-scratch@28c65cd: 142,156 tokens/s on 1 A100, 419,259 on 4, all in bf16.
        (
            "A100-PCIE-40GB",
            4,
            {"micro_batch": 32, "accumulation": 1, "mixed_precision": "engine"},
            0.737,
        ),
    ],
)
def test_data_parallelism_loses_what_it_does_in_published_runs(gpu, gpus, layout, published):
    alone, together = speed(gpu, **layout), speed(f"{gpu}:{gpus}", **layout)
    kept = together.tokens_per_s / gpus / alone.tokens_per_s
    assert kept == pytest.approx(published, abs=0.05)


def test_time_flops_and_tokens_agree():
    p = speed("A100:8", XL, micro_batch=8, zero_stage=1)
    assert p.step_seconds == pytest.approx(sum(parts("A100:8", XL, micro_batch=8, zero_stage=1)))
    assert p.tokens_per_s * p.step_seconds == pytest.approx(8 * 8 * 4 * 1024)
    assert p.mfu == pytest.approx(p.tokens_per_s * flops_per_token(XL) / 8 / 312e12)
    assert p.low < p.tokens_per_s < p.high


def collectives(on, **layout):
    """Seconds of communication without the wait for the slowest GPU."""
    compute, communication, _ = parts(on, **layout)
    wait = fitted()[0].gpu_spread * math.sqrt(math.log(parse_on(on).gpus)) * compute
    return communication - wait


def test_all_reduce_is_the_ring_of_the_textbook():
    """2 (n-1)/n bytes / bandwidth + 2 (n-1) hops, of fp32 gradients: stage 0 hides nothing."""
    constants, _, _ = fitted()
    hop = 1e-6 * constants.hop_us

    def ring(n, gbs):
        return 2 * (n - 1) / n * 4 * WEIGHTS / (gbs * 1e9) + 2 * (n - 1) * hop

    for n in (2, 4, 8):
        # 0.83 of one direction, as measured on V100s.
        assert collectives(f"A100:{n}") == pytest.approx(ring(n, 0.83 * 300))
        pcie = constants.pcie_share * 31.5
        assert collectives(f"RTX4090:{n}") == pytest.approx(ring(n, pcie))
    two_nodes = collectives("A100:8x2", internode_gbs=25)
    assert two_nodes == pytest.approx(ring(16, 0.83 * 25))
    assert parts("A100")[1] == 0


def test_zero_volumes_are_those_of_the_paper():
    """16-bit engine: psi per pass. Stages 0 and 1 move 2 psi per step, stage 2 accumulation + 1."""
    constants, _, _ = fitted()

    def moved(stage, accumulation):
        layout = {"mixed_precision": "engine", "zero_stage": stage, "accumulation": accumulation}
        hops = 1 + accumulation if stage == 2 else 2
        seconds = collectives("A100:8", **layout) - 7 * hops * 1e-6 * constants.hop_us
        return seconds * 0.83 * 300e9 / (7 / 8 * 2 * WEIGHTS)

    for accumulation in (1, 5):
        assert moved(0, accumulation) == pytest.approx(2)
        assert moved(1, accumulation) == pytest.approx(2)
        assert moved(2, accumulation) == pytest.approx(accumulation + 1)


def test_stage_3_hides_collectives_behind_the_backward_pass_in_part():
    """Short ones: all but `overlap` of them shows. Long ones: what the backward pass leaves."""
    constants, _, _ = fitted()

    def shown(internode_gbs):
        layout = {"zero_stage": 3, "accumulation": 1, "internode_gbs": internode_gbs}
        hops = 15 * 3 * 12 * 1e-6 * constants.hop_us
        # Weights gathered twice and gradients reduced, in 16 bits.
        volume = 15 / 16 * 2 * (2 * 124_439_808 + WEIGHTS)
        whole = volume / (0.83 * internode_gbs * 1e9)
        exposed = collectives("A100:8x2", **layout) - hops
        return exposed, whole, 2 / 3 * parts("A100:8x2", **layout)[0]

    exposed, whole, backward = shown(200)
    assert whole < backward
    assert exposed == pytest.approx((1 - constants.overlap) * whole, rel=1e-3)
    exposed, whole, backward = shown(2)
    assert whole > backward
    assert exposed == pytest.approx(whole - constants.overlap * backward, rel=1e-3)


def test_optimizer_is_sharded_from_stage_1_on():
    *_, whole = parts("A100:8")
    *_, sharded = parts("A100:8", zero_stage=1)
    assert whole == pytest.approx(8 * sharded)
    assert whole == pytest.approx(44 * WEIGHTS / 1555e9)


@pytest.mark.parametrize("gpu", ["A100", "H100", "RTX3090", "RTX4090", "B200"])
@pytest.mark.parametrize("model", [SMALL, XL])
def test_more_gpus_are_faster_and_at_most_linearly(gpu, model):
    speeds = [speed(f"{gpu}:{n}", model, micro_batch=4).tokens_per_s for n in (1, 2, 4, 8)]
    speeds.append(speed(f"{gpu}:8x2", model, micro_batch=4, accumulation=4).tokens_per_s)
    for n, less, more in zip((1, 2, 4, 8), speeds, speeds[1:]):
        # A second node behind 12.5 GB/s need not pay for itself with 1558M.
        assert more > less or n == 8
        assert more <= 2 * less


@pytest.mark.parametrize("gpu", all_gpus(), ids=lambda gpu: gpu.key)
def test_bounds_that_hold_on_every_gpu(gpu):
    half = "bf16" if gpu.has_bf16 else "fp16"
    for model in (SMALL, XL):
        for kernels in ("eager", "compiled", "hand-written"):
            for micro_batch in (1, 8, 64):
                options = {"precision": half, "kernels": kernels, "micro_batch": micro_batch}
                plain = speed(gpu.key, model, **options)
                assert 0 < plain.mfu < 1
                compute, *_ = parts(gpu.key, model, **options)
                again, *_ = parts(gpu.key, model, recompute=True, **options)
                assert 1 <= again / compute <= 4 / 3
                lora = speed(gpu.key, model, lora_rank=8, **options)
                assert plain.tokens_per_s < lora.tokens_per_s < 1.6 * plain.tokens_per_s
                assert 0 < lora.mfu < 1
                stored, *_ = parts(gpu.key, model, fused_attention=False, **options)
                assert stored >= compute
                full = speed(gpu.key, model, **{**options, "precision": "fp32"})
                assert 0 < full.mfu < 1
                assert full.tokens_per_s <= plain.tokens_per_s


def test_16_bits_pay_on_tensor_cores():
    for on, precision in (("A100", "bf16"), ("T4", "fp16"), ("V100", "fp16"), ("RTX4090", "bf16")):
        assert (
            speed(on, precision=precision).tokens_per_s
            > 1.5 * speed(on, precision="fp32").tokens_per_s
        )


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("on", ["A100:8", "RTX3090:4", "A100:8x2", "RTX4090"])
def test_accumulation_is_never_slower(on, stage):
    speeds = [speed(on, zero_stage=stage, accumulation=n).tokens_per_s for n in (1, 2, 4, 8, 16)]
    assert speeds == sorted(speeds)


def test_kernels_and_micro_batches_order_the_speeds():
    for gpu in all_gpus():
        half = "bf16" if gpu.has_bf16 else "fp16"
        eager, compiled, written = (
            speed(gpu.key, precision=half, kernels=kernels).tokens_per_s
            for kernels in ("eager", "compiled", "hand-written")
        )
        assert eager < compiled < written
        batches = [
            speed(gpu.key, precision=half, micro_batch=b).tokens_per_s for b in (1, 2, 8, 32)
        ]
        assert batches == sorted(batches)


def test_offload_pays_the_bus_and_the_cpu():
    *_, on_gpu = parts("RTX4090", XL, zero_stage=1, micro_batch=1)
    *_, on_cpu = parts("RTX4090", XL, zero_stage=1, micro_batch=1, offload="optimizer")
    # At least the weights and gradients over PCIe 4: 4 bytes each way over 31.5 GB/s.
    assert on_cpu - on_gpu > 4 * 1.47e9 / 31.5e9


@pytest.mark.parametrize("on", ["T4", "V100", "V100-32GB:8"])
def test_bf16_is_refused_where_there_is_none(on):
    with pytest.raises(BadInput, match=r"cluster.precision=bf16: .* use cluster.precision=fp16"):
        speed(on)


def test_a_layout_of_other_hardware_is_a_mistake():
    with pytest.raises(ValueError, match="layout of 8 GPUs on hardware of 1"):
        predict(SMALL, parse_on("A100"), Layout(gpus_per_node=8))


def test_ceilings_are_measured_or_scaled_by_power():
    assert ceiling_tflops(gpu_named("A100"), "bf16") == pytest.approx(271.2)
    assert ceiling_tflops(gpu_named("A100"), "fp32") == pytest.approx(271.2 / 2)  # TF32
    assert ceiling_tflops(gpu_named("RTX4090"), "fp16") == pytest.approx(172)
    # A T4 has 70 W for 65 TFLOP/s where a V100 has 300 W for 125 and reaches 95.
    t4 = 65 * 95 / 125 * ((70 / 65) / (300 / 125)) ** (1 / 3)
    assert ceiling_tflops(gpu_named("T4"), "fp16") == pytest.approx(t4)
    for gpu in all_gpus():
        assert ceiling_tflops(gpu, "fp16") < 1.05 * gpu.peak_tflops["fp16"]


def test_bigger_vocabulary_costs_what_its_head_does():
    """Twice the vocabulary, same blocks: slower by less than its share of FLOPs plus traffic."""
    double = replace(SMALL, vocab=2 * 50257)
    slower = speed("A100").tokens_per_s / speed("A100", double).tokens_per_s
    assert flops_per_token(double) / flops_per_token(SMALL) == pytest.approx(1.271, abs=1e-3)
    assert 1.2 < slower < 1.4


def test_constants_are_finite_and_shares_are_shares():
    constants, low, high = fitted()
    for name, value in vars(constants).items():
        assert math.isfinite(value)
        assert value > 0
        assert value < 1 or "share" not in name
    assert constants.forward_share < 1 / 3
    assert low < 1 < high


def test_committed_constants_and_tables_are_those_the_fit_gives():
    """benchmarks/fit_throughput.py, held-out errors included, from the published rows."""
    command = [sys.executable, "benchmarks/fit_throughput.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
