"""How fast is a step beside what others would run? One case, every peer in turn, medians.

    python benchmarks/peers.py [--case 6x384] [--rounds 3] [--steps 30] [--peers PEER ...]

nanogpt     a bare loop in nanoGPT's manner: its own GPT-2, full logits, autocast, fused AdamW
bare        the same loop around our model and loss
trainer     Hugging Face's Trainer around its GPT-2 (needs transformers and accelerate)
ours-local  `gpt2dist train --local`
ours-ray    `gpt2dist train`: Ray, DeepSpeed, Ray Data, tracking

All read the same shards with the same batch, context and dtype, each in a process of its own, on
a GPU when there is one (compiled, but for the Trainer's default), else on all cores.
"""
# B sequences of a micro-batch, T tokens of a context, D width, H heads, K head width

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CASES = {
    "tiny": {"layers": 1, "heads": 2, "width": 64, "context": 64, "vocab": 257, "micro": 4},
    "6x384": {"layers": 6, "heads": 6, "width": 384, "context": 256, "vocab": 257, "micro": 16},
    "124m": {"layers": 12, "heads": 12, "width": 768, "context": 1024, "vocab": 50257, "micro": 2},
    "124m-gpu": {"layers": 12, "heads": 12, "width": 768, "context": 1024, "vocab": 50257,
                 "micro": 32},
}  # fmt: skip
ACCUMULATION = 2
WARMUP_STEPS = 5
PEERS = ("nanogpt", "bare", "trainer", "ours-local", "ours-ray")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=CASES, default="6x384")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=usable_peers())
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--shards", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        print(_rate(arguments.peer, CASES[arguments.case], arguments.shards, arguments.steps))
        return
    found = compare(arguments.case, arguments.peers, arguments.rounds, arguments.steps)
    fastest = max(found, key=lambda peer: statistics.median(found[peer]))
    for peer, rates in found.items():
        ratios = [rate / other for rate, other in zip(rates, found[fastest])]
        print(f"{peer:11} {statistics.median(rates):>12,.0f} tokens/s, "
              f"{statistics.median(ratios):.3f} of {fastest}")  # fmt: skip


def usable_peers() -> list[str]:
    """Those whose packages are installed."""
    needs = {"trainer": ("transformers", "accelerate"), "ours-ray": ("ray",)}
    return [peer for peer in PEERS if all(importlib.util.find_spec(n) for n in needs.get(peer, ()))]


def compare(case: str, peers: list[str], rounds: int, steps: int) -> dict[str, list[float]]:
    """Tokens per second of every peer and round; the peers take turns."""
    found: dict[str, list[float]] = {peer: [] for peer in peers}
    with tempfile.TemporaryDirectory() as folder:
        shards = _prepared(Path(folder), tokenizer_of(CASES[case]))
        for number in range(1, rounds + 1):
            for peer in peers:
                command = [sys.executable, __file__, "--peer", peer, "--case", case]
                command += ["--shards", str(shards), "--steps", str(steps)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                found[peer].append(float(done.stdout.split()[-1]))
            said = ", ".join(f"{peer} {rates[-1]:,.0f}" for peer, rates in found.items())
            print(f"round {number}: {said} tokens/s", flush=True)
    return found


def tokenizer_of(case: dict[str, int]) -> str:
    return "bytes" if case["vocab"] == 257 else "gpt2"


def _prepared(home: Path, tokenizer: str) -> Path:
    """Python's own source as shards."""
    text, shards = home / "text", home / "shards"
    text.mkdir()
    for number, source in enumerate(sorted(Path(json.__file__).parents[1].glob("*.py"))):
        (text / f"{number}.txt").write_text(source.read_text(errors="replace"))
    words = ["data", "prepare", str(text), "--out", str(shards), "--tokenizer", tokenizer,
             "--val-fraction", "0.05", "--local"]  # fmt: skip
    subprocess.run([sys.executable, "-m", "gpt2dist", *words], check=True, capture_output=True)
    return shards


def _rate(peer: str, case: dict[str, int], shards: Path, steps: int) -> float:
    if peer == "nanogpt":
        return _loop(_nanogpt(case), case, shards, steps)
    if peer == "bare":
        return _loop(_our_model(case), case, shards, steps)
    if peer == "trainer":
        return _trainer(case, shards, steps)
    return _ours(case, shards, steps, ["--local"] if peer == "ours-local" else [])


def _device() -> tuple[str, Any]:
    """Where the peers run, and their dtype."""
    import torch

    from gpt2dist.train.machine import probe_machine

    machine = probe_machine()
    if machine.gpus:
        torch.set_float32_matmul_precision("high")
        return "cuda", torch.bfloat16 if machine.gpu_has_bf16 else torch.float16
    torch.set_num_threads(machine.cpu_cores)
    return "cpu", torch.bfloat16 if machine.cpu_has_bf16 else torch.float32


def _windows(case: dict[str, int], shards: Path) -> Iterator[Any]:
    """Micro-batches [B, T + 1] of random windows, int64."""
    import numpy as np
    import torch

    tokens = np.memmap(sorted(shards.glob("train-*.bin"))[0], "<u2", "r")
    draw, context = np.random.default_rng(0), case["context"]
    while True:
        starts = draw.integers(0, len(tokens) - context - 1, case["micro"])
        rows = np.stack([tokens[start : start + context + 1] for start in starts])
        yield torch.from_numpy(rows.astype(np.int64))


def _loop(model: Any, case: dict[str, int], shards: Path, steps: int) -> float:
    """The bare loop: `model(inputs, targets)` is a mean loss."""
    import torch

    device, dtype = _device()
    model.to(device)
    if device == "cuda":
        model = torch.compile(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    windows, seconds = _windows(case, shards), []
    for _ in range(steps):
        began = time.perf_counter()
        for _ in range(ACCUMULATION):
            batch_BT = next(windows).to(device, non_blocking=True)
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                loss = model(batch_BT[:, :-1], batch_BT[:, 1:]) / ACCUMULATION
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return _tokens(case) / statistics.median(seconds[WARMUP_STEPS:])


def _tokens(case: dict[str, int]) -> int:
    return ACCUMULATION * case["micro"] * case["context"]


def _our_model(case: dict[str, int]) -> Callable[..., Any]:
    from torch import nn

    from gpt2dist.config.load import resolve
    from gpt2dist.model.gpt2 import GPT2

    names = ("layers", "heads", "width", "context", "vocab")
    words = [f"model.{name}={case[name]}" for name in names]
    words.append(f"data.tokenizer={tokenizer_of(case)}")

    class MeanLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = GPT2(resolve("debug", words).model)

        def forward(self, inputs_BT: Any, targets_BT: Any) -> Any:
            return self.model(inputs_BT, targets_BT) / targets_BT.numel()

    return MeanLoss()


def _nanogpt(case: dict[str, int]) -> Any:
    """GPT-2 as one would write it for one GPU: full logits, a tied head, no biases left out."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads = case["width"], case["heads"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
            self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x_BTD: Any) -> Any:
            qkv = self.qkv(self.norms[0](x_BTD)).split(width, dim=2)
            q, k, v = (y.unflatten(2, (heads, -1)).transpose(1, 2) for y in qkv)
            mixed_BHTK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x_BTD = x_BTD + self.mix(mixed_BHTK.transpose(1, 2).flatten(2))
            up = F.gelu(self.up(self.norms[1](x_BTD)), approximate="tanh")
            return x_BTD + self.down(up)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            vocab = 64 * math.ceil(case["vocab"] / 64)
            self.token, self.place = (
                nn.Embedding(vocab, width),
                nn.Embedding(case["context"], width),
            )
            self.blocks = nn.ModuleList(Block() for _ in range(case["layers"]))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)
            self.head.weight = self.token.weight
            nn.init.normal_(self.token.weight, std=0.02)

        def forward(self, inputs_BT: Any, targets_BT: Any) -> Any:
            places = torch.arange(inputs_BT.shape[1], device=inputs_BT.device)
            x_BTD = self.token(inputs_BT) + self.place(places)
            for block in self.blocks:
                x_BTD = block(x_BTD)
            logits_BTV = self.head(self.norm(x_BTD))
            return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())

    torch.manual_seed(0)
    return Model()


def _trainer(case: dict[str, int], shards: Path, steps: int) -> float:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback
    from transformers import TrainingArguments as Arguments

    device, dtype = _device()
    config = GPT2Config(
        vocab_size=case["vocab"], n_positions=case["context"], n_embd=case["width"],
        n_layer=case["layers"], n_head=case["heads"],
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    windows, seconds = _windows(case, shards), []

    class Text(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for rows in windows:
                for row in rows[:, :-1]:  # its model shifts the labels itself
                    yield {"input_ids": row, "labels": row}

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - self.began)

    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            output_dir=folder, per_device_train_batch_size=case["micro"],
            gradient_accumulation_steps=ACCUMULATION, max_steps=steps, learning_rate=3e-4,
            bf16=dtype == torch.bfloat16, fp16=dtype == torch.float16, use_cpu=device == "cpu",
            optim="adamw_torch_fused", max_grad_norm=1.0, weight_decay=0.1, save_strategy="no",
            logging_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
        Trainer(model=model, args=arguments, train_dataset=Text(), callbacks=[Watch()]).train()
    return _tokens(case) / statistics.median(seconds[WARMUP_STEPS:])


def _ours(case: dict[str, int], shards: Path, steps: int, options: list[str]) -> float:
    names = ("layers", "heads", "width", "context", "vocab")
    with tempfile.TemporaryDirectory() as runs:
        command = [
            sys.executable, "-m", "gpt2dist", "train", "debug", *options, f"paths.runs={runs}",
            f"paths.dataset={shards}", f"data.source={shards.parent / 'text'}",
            f"data.tokenizer={tokenizer_of(case)}", "data.val_fraction=0.05",
            *(f"model.{name}={case[name]}" for name in names), "cluster.workers=1",
            f"cluster.micro_batch={case['micro']}", f"train.batch_tokens={_tokens(case)}",
            f"train.tokens={steps * _tokens(case)}", "track.every_steps=1", "eval.tokens=4096",
            "optim.warmup_steps=1", "eval.every_steps=null", "eval.sample_every_steps=null",
            "checkpoint.every_steps=null",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = next(Path(runs).glob("*/metrics.jsonl")).read_text().splitlines()
    rows = [json.loads(line) for line in lines][WARMUP_STEPS:]
    wait = sum(row["data_wait_s"] for row in rows) / sum(row["step_s"] for row in rows)
    print(f"waiting for data: {wait:.2%} of the time", file=sys.stderr)
    return statistics.median(row["tokens_per_s"] for row in rows)


if __name__ == "__main__":
    main()
