"""Use a run's checkpoint without training: the same loss, and text."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from gpt2dist.config.schema import Config, Device
from gpt2dist.data.prepare.pipeline import dataset_dir
from gpt2dist.data.serve.validation import validation_batches
from gpt2dist.data.serve.windows import Windows
from gpt2dist.data.shards import load_dataset_folder
from gpt2dist.data.tokenizer import Tokenizer, load_tokenizer
from gpt2dist.errors import BadInput
from gpt2dist.evaluate.sampling import Sampling, generate
from gpt2dist.evaluate.validation import validation_loss
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.plan.placement import Placement, place
from gpt2dist.train.core.checkpoint import Checkpoint
from gpt2dist.train.machine import probe_machine


@dataclass(frozen=True)
class CheckpointLoss:
    loss: float
    "Nats per token."
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)


def evaluate_checkpoint(
    config: Config,
    checkpoint: Checkpoint,
    *,
    device: Device = "auto",
    tokens: int | None = None,
    data: str | None = None,
) -> CheckpointLoss:
    """Validation loss as the loop computes it, on one device and in the run's precision.

    `data` is a folder of shards; None takes the run's own. Raises BadInput when the shards are
    missing or were made with another tokenizer.
    """
    placement = _placement(config, device)
    dataset = load_dataset_folder(
        data or config.paths.dataset or dataset_dir(config.paths.data, config.data)
    )
    if dataset.tokenizer != config.data.tokenizer:
        raise BadInput(
            f"{dataset.path} was tokenised with {dataset.tokenizer}, the run learned "
            f"{config.data.tokenizer}; their losses do not compare"
        )
    windows = Windows(dataset, "val", config.model.context)
    batches = validation_batches(windows, placement.micro_batch, tokens or config.eval.tokens)
    model = load_model(config, checkpoint, placement)
    with _autocast(placement):
        loss, counted = validation_loss(model, batches, device=torch.device(placement.torch_device))
    return CheckpointLoss(loss, counted)


def sample_checkpoint(
    config: Config,
    checkpoint: Checkpoint,
    prompts: tuple[str, int],
    sampling: Sampling,
    device: Device = "auto",
) -> Iterator[str]:
    """Text as it is written: one sample streams; several come one after the other, whole.

    `prompts` is a prompt and how many samples of it to write.
    """
    prompt, count = prompts
    placement = _placement(config, device)
    tokenizer = load_tokenizer(config.data.tokenizer)
    ids = tokenizer.encode(prompt) or [tokenizer.separator]
    model = load_model(config, checkpoint, placement)
    with _autocast(placement):
        steps = generate(model, [ids] * count, replace(sampling, stop_id=tokenizer.separator))
        if count == 1:
            yield prompt
            yield from _stream(tokenizer, (step[0] for step in steps))
            return
        columns: list[list[int]] = [[] for _ in range(count)]
        for step in steps:
            for column, token in zip(columns, step):
                column.append(token)
    for number, column in enumerate(columns, 1):
        ended = column.index(tokenizer.separator) if tokenizer.separator in column else None
        yield f"--- {number}\n{prompt}{tokenizer.decode(column[:ended])}\n"


def load_model(config: Config, checkpoint: Checkpoint, placement: Placement) -> GPT2:
    """The checkpoint's model in eval mode on the placement's device, fp32 weights."""
    model = GPT2(config.model)
    model.load_state_dict(checkpoint.weights())
    return model.to(placement.torch_device).eval()


def _stream(tokenizer: Tokenizer, ids: Iterator[int]) -> Iterator[str]:
    """Text of ids one by one; a character split over tokens waits until it is whole."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in ids:
        if token == tokenizer.separator:
            break
        yield decoder.decode(tokenizer.decode_bytes([token]))
    yield decoder.decode(b"", final=True)


def _placement(config: Config, device: Device) -> Placement:
    cluster = replace(config.cluster, device=device, micro_batch=None, workers=None)
    placement = place(replace(config, cluster=cluster), probe_machine(), single_process=True)
    torch.set_num_threads(placement.threads)
    return placement


def _autocast(placement: Placement) -> AbstractContextManager[Any]:
    if placement.precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if placement.precision == "bf16" else torch.float16
    return torch.autocast(placement.device, dtype=dtype)
