"""Where the time of a step goes, by kind of kernel, and how often the host waits for the device."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile

from gpt2dist.train.core.control import single_process_group
from proof.bench import TINY, Bench, build, placed, train_step

STEPS = 3
KINDS = [
    ("copies", r"memcpy|memset|copy_"),
    ("attention", r"flash|fmha|sdpa|attention|cudnn.*sdp"),
    ("matrix products", r"gemm|nvjet|cutlass|xmma|\bmm\b|addmm|matmul|mkldnn_linear"),
    ("optimizer", r"adam|multi_tensor|foreach"),
    ("loss", r"softmax|nll|cross_entropy"),
    ("norms and elementwise", r""),
]
"What a kernel's name says, the first that fits; the last takes the rest."
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
QUESTIONS = "aten::_local_scalar_dense"
"A number asked of a tensor: on a GPU the host waits for it."


def measure(bench: Bench) -> None:
    """Three optimizer steps of 124M, or of a tiny model when there is little time."""
    with bench.each("profile"), single_process_group(bench.device):
        words = TINY if bench.quick else ["train.batch_tokens=262144"]
        recipe = "debug" if bench.quick else "gpt2-124m"
        config, placement = placed(recipe, *words, f"cluster.device={bench.device}")
        engine = build(config, placement)
        for step in range(3):
            train_step(engine, config, step)
        kinds = [ProfilerActivity.CPU]
        kinds += [ProfilerActivity.CUDA] if bench.device == "cuda" else []
        began = bench.now()
        with profile(activities=kinds) as seen:
            for step in range(STEPS):
                train_step(engine, config, step)
            bench.now()
        wall = bench.now() - began
        events = seen.events() or []
        _shares(bench, events, wall)
        asked = sum(event.name == QUESTIONS for event in events) / STEPS
        # train_step of the proof asks for the loss of every micro-batch; the run's own loop too
        own = placement.accumulation
        bench.found("numbers asked of the device a step, beside the losses", asked - own)
        waits = sum(event.name in WAITS for event in events) / STEPS
        bench.found("waits for the device a step", waits)


def _shares(bench: Bench, events: Any, wall: float) -> None:
    """Shares of the wall clock; what no kernel covers is idle."""
    seconds: Counter[str] = Counter()
    attention: Counter[str] = Counter()
    for event in events:
        on_gpu = bench.device == "cuda"
        spent = _device_seconds(event) if on_gpu else event.self_cpu_time_total / 1e6
        if spent <= 0:
            continue
        kind = next(kind for kind, names in KINDS if re.search(names, event.name.lower()))
        seconds[kind] += spent
        if kind == "attention":
            attention[event.name[:60]] += spent
    for kind, _ in KINDS:
        note = ", ".join(name for name, _ in attention.most_common(2)) * (kind == "attention")
        bench.found(f"time in {kind}", seconds[kind] / wall, "of the step", note=note)
    bench.found("time in which nothing runs", 1 - sum(seconds.values()) / wall, "of the step")


def _device_seconds(event: Any) -> float:
    """Of a kernel itself, not of what the CPU called around it."""
    if "cuda" not in str(getattr(event, "device_type", "")).lower():
        return 0.0
    return event.self_device_time_total / 1e6
