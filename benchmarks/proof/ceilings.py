"""What this device can do at best: our own matrix products, and memory."""

from __future__ import annotations

import torch

from gpt2dist.config.load import resolve
from gpt2dist.config.schema import ModelConfig
from proof.bench import SIZES, Bench


def measure(bench: Bench) -> None:
    """Products of one micro-batch of every size in 16 bits, and a copy within the memory."""
    for recipe in SIZES[:1] if bench.quick else SIZES:
        model = resolve(recipe).model
        tokens = 256 if bench.quick else 16 * model.context
        flops, seconds = map(sum, zip(*_timed(bench, model, tokens)))
        rate = flops / seconds
        bench.found(f"{recipe}: matrix products", rate / 1e12, "TFLOP/s", least=0)
    size = 2**24 if bench.quick else 2**31
    source = torch.empty(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copied_s = bench.timed(lambda: target.copy_(source), 5)
    bench.found("copy within the memory", 2 * size / copied_s / 1e9, "GB/s", least=0)


def _timed(bench: Bench, model: ModelConfig, tokens: int) -> list[tuple[float, float]]:
    """FLOPs and seconds of the forward products of a model, each as often as it has layers."""
    width, found = model.width, []
    products = [
        (model.layers, width, 3 * width),
        (model.layers, width, width),
        (model.layers, width, 4 * width),
        (model.layers, 4 * width, width),
        (1, width, 64 * -(-model.vocab // 64)),
    ]
    for times, inner, outer in products:
        dtype = torch.bfloat16 if bench.machine.gpu_has_bf16 else torch.float16
        if bench.device == "cpu":
            dtype = torch.bfloat16 if bench.machine.cpu_has_bf16 else torch.float32
        x = torch.randn(tokens, inner, device=bench.device, dtype=dtype)
        weight = torch.randn(outer, inner, device=bench.device, dtype=dtype)
        seconds = bench.timed(lambda x=x, weight=weight: x @ weight.t(), 3 if bench.quick else 10)
        found.append((times * 2.0 * tokens * inner * outer, times * seconds))
    return found
