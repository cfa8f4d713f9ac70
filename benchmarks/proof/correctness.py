"""Does this device compute what a CPU computes in fp32? Loss kernel, curves, skips, resume."""
# N tokens, D width, V vocabulary

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from gpt2dist.errors import BadInput
from gpt2dist.model.loss import linear_cross_entropy
from gpt2dist.train.core import checkpoint
from gpt2dist.train.core.control import Control, single_process_group
from gpt2dist.train.core.loop import TrainState
from proof.bench import TINY, Bench, build, placed, train_step

LOSS_ERROR = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"Of loss, dX and dW against fp64, relative to the norm: some roundings of each dtype."
CURVE_NATS = {"fp32": 2e-3, "bf16": 0.05, "fp16": 0.05}
"Between a curve and the CPU's in fp32, at its worst step; TF32 products are within the first."
STEPS = 12


def measure(bench: Bench) -> None:
    """The loss kernel, then whole engines in every mode that the config allows."""
    loss_kernel(bench)
    with single_process_group(bench.device):
        expected = _curve("cluster.device=cpu", "cluster.precision=fp32", "zero.stage=0")
        bench.found("loss of the CPU in fp32, first step", expected[0], "nats")
        for words in modes(bench):
            name = "curve, " + " ".join(word.partition(".")[2] for word in words)
            with bench.each(name, seconds=20 if "cluster.compile=true" in words else 5):
                try:
                    curve = _curve(*words)
                except BadInput as refusal:
                    bench.found(name, None, note=f"refused: {refusal}")
                    continue
                worst = max(abs(a - b) for a, b in zip(curve, expected))
                bench.found(name, worst, "nats", most=CURVE_NATS[words[1].partition("=")[2]])
        with bench.each("poisoned step", seconds=5):
            poisoned(bench)
        with bench.each("saved and resumed", seconds=10):
            resumed(bench)


def modes(bench: Bench) -> Iterator[tuple[str, ...]]:
    """Every allowed pair of stage and precision; compilation and recomputation where usual."""
    precisions = ["fp32"]
    if bench.device == "cpu" or bench.machine.gpu_has_bf16:
        precisions.append("bf16")
    if bench.device == "cuda":
        precisions.append("fp16")
    device = f"cluster.device={bench.device}"
    stages = (0, 2) if bench.quick else (0, 1, 2, 3)
    for precision in precisions:
        usual = (device, f"cluster.precision={precision}", "cluster.compile=false")
        for stage in stages:
            if precision == "fp16" and stage == 0:
                continue  # its loss scaling needs a sharded optimizer
            yield (*usual, f"zero.stage={stage}")
        if precision == "bf16" and not bench.quick:
            for stage in (1, 2, 3):
                yield (*usual, f"zero.stage={stage}", "cluster.mixed_precision=engine")
        yield (*usual, f"zero.stage={stages[1]}", "cluster.recompute=true")
    if not bench.quick:
        compiled = (device, f"cluster.precision={precisions[-1]}", "cluster.compile=true")
        for stage in (1, 2):
            yield (*compiled, f"zero.stage={stage}")
        yield (*compiled, "zero.stage=1", "cluster.recompute=true")


def _curve(*words: str) -> list[float]:
    config, placement = placed("debug", *TINY, *words)
    engine = build(config, placement)
    return [train_step(engine, config, step) for step in range(STEPS)]


def loss_kernel(bench: Bench) -> None:
    """Loss, dX and dW of the head against fp64, from the same rounded inputs."""
    tokens, width, vocab = (256, 64, 1000) if bench.quick else (4096, 768, 50257)
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(tokens, width, generator=generator).to(bench.device)
    weight_VD = (0.02 * torch.randn(vocab, width, generator=generator)).to(bench.device)
    targets_N = torch.randint(0, vocab, (tokens,), generator=generator).to(bench.device)
    targets_N[::7] = -100
    was = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    for dtype, most in LOSS_ERROR.items():
        name = f"loss kernel, {str(dtype).removeprefix('torch.')}"
        with bench.each(name):
            x, weight = (t.to(dtype, copy=True).requires_grad_() for t in (x_ND, weight_VD))
            loss = linear_cross_entropy(x, weight, targets_N)
            loss.backward()
            true_x, true_weight = (t.detach().double().requires_grad_() for t in (x, weight))
            truth = cross_entropy(true_x @ true_weight.t(), targets_N, reduction="sum")
            truth.backward()
            pairs = [(loss, truth), (x.grad, true_x.grad), (weight.grad, true_weight.grad)]
            for part, (ours, true) in zip(("loss", "dX", "dW"), pairs):
                error = float((ours.double() - true).norm() / true.norm())
                bench.found(f"{name}: {part}", error, "relative", most=most)
    torch.set_float32_matmul_precision(was)


def poisoned(bench: Bench) -> None:
    """A step whose gradient is infinite is skipped, and the next one is not."""
    config, placement = placed("debug", *TINY, f"cluster.device={bench.device}")
    engine = build(config, placement)
    train_step(engine, config, 0)
    before = [parameter.detach().clone() for parameter in engine.module.parameters()]
    for part in torch.randint(0, 64, (8, 129), device=engine.device).split(placement.micro_batch):
        # 1 / 5e-324 is infinite
        engine.accumulate(part[:, :-1], part[:, 1:], 5e-324)  # type: ignore[arg-type]
    skipped = not engine.step(1e-3).applied
    same = all(map(torch.equal, before, engine.module.parameters()))
    bench.found("poisoned step: skipped, weights unchanged", float(skipped and same), least=1)
    train_step(engine, config, 1)
    moved = not all(map(torch.equal, before, engine.module.parameters()))
    bench.found("poisoned step: the next one is applied", float(moved), least=1)


def resumed(bench: Bench) -> None:
    """A checkpoint of one stage goes on at another as if nothing had happened."""
    device = f"cluster.device={bench.device}"
    config, placement = placed("debug", *TINY, device, "zero.stage=1")
    engine = build(config, placement)
    for step in range(3):
        train_step(engine, config, step)
    with tempfile.TemporaryDirectory() as folder:
        state = TrainState(3, 3, 3 * config.train.batch_tokens, "proof", config.batch_sequences)
        began = bench.now()
        checkpoint.save(Path(folder), engine, state, Control().gather)
        bench.found("save of a tiny model", bench.now() - began, "s")
        expected = [train_step(engine, config, step) for step in range(3, 6)]
        for stage in (1, 2) if bench.quick else (0, 1, 2, 3):
            found = checkpoint.newest_valid(Path(folder), print)
            assert found is not None
            config, placement = placed("debug", *TINY, device, f"zero.stage={stage}")
            engine = build(config, placement, found.weights())
            engine.load_optimizer(found.parameter_reader(), found.state.applied_steps)
            curve = [train_step(engine, config, step) for step in range(3, 6)]
            worst = max(abs(a - b) for a, b in zip(curve, expected))
            most = CURVE_NATS[placement.precision] / 10
            bench.found(f"stage 1 resumed at stage {stage}", worst, "nats", most=most)
