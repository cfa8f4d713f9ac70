"""What can be known to be wrong from the config alone, before any device or file is touched."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput

VOCAB_OF_TOKENIZER = {"gpt2": 50257, "bytes": 257}


def check(config: Config) -> None:
    """Raises BadInput with the first rule that the config breaks."""
    for problem in _problems(config):
        raise BadInput(problem)


def _problems(config: Config) -> Iterator[str]:
    yield from _range_problems(config)
    yield from _combination_problems(config)


def _range_problems(config: Config) -> Iterator[str]:
    at_least_one = {
        "model.layers": config.model.layers,
        "model.heads": config.model.heads,
        "model.width": config.model.width,
        "model.context": config.model.context,
        "train.tokens": config.train.tokens,
        "train.batch_tokens": config.train.batch_tokens,
        "data.max_documents": config.data.max_documents,
        "cluster.workers": config.cluster.workers,
        "cluster.cpu_workers": config.cluster.cpu_workers,
        "cluster.micro_batch": config.cluster.micro_batch,
        "checkpoint.every_steps": config.checkpoint.every_steps,
        "checkpoint.keep_last": config.checkpoint.keep_last,
        "eval.every_steps": config.eval.every_steps,
        "eval.tokens": config.eval.tokens,
        "eval.sample_every_steps": config.eval.sample_every_steps,
        "eval.sample_tokens": config.eval.sample_tokens,
        "track.every_steps": config.track.every_steps,
        "budget.tokens": config.budget.tokens,
    }
    for path, count in at_least_one.items():
        if count is not None and count < 1:
            yield f"{path}={count} must be at least 1"
    positive = {
        "optim.peak_lr": config.optim.peak_lr,
        "optim.eps": config.optim.eps,
        "checkpoint.every_minutes": config.checkpoint.every_minutes,
        "budget.usd": config.budget.usd,
        "cluster.lifetime_hours": config.cluster.lifetime_hours,
        "cluster.network_gbit": config.cluster.network_gbit,
        "budget.hours": config.budget.hours,
    }
    for path, amount in positive.items():
        if amount is not None and not (0 < amount < math.inf):
            yield f"{path}={amount} must be a positive number"
    not_negative = {
        "optim.warmup_steps": config.optim.warmup_steps,
        "optim.weight_decay": config.optim.weight_decay,
        "optim.clip_norm": config.optim.clip_norm,
        "cluster.max_restarts": config.cluster.max_restarts,
        "cluster.usd_per_hour": config.cluster.usd_per_hour,
        "cluster.watts": config.cluster.watts,
        "cluster.usd_per_kwh": config.cluster.usd_per_kwh,
        "cluster.purchase_usd": config.cluster.purchase_usd,
        "train.seed": config.train.seed,
    }
    for path, amount in not_negative.items():
        if amount is not None and not (0 <= amount < math.inf):
            yield f"{path}={amount} must not be negative"
    below_one = {
        "model.dropout": config.model.dropout,
        "optim.beta1": config.optim.beta1,
        "optim.beta2": config.optim.beta2,
        "data.val_fraction": config.data.val_fraction,
    }
    for path, share in below_one.items():
        if not 0 <= share < 1:
            yield f"{path}={share} must be at least 0 and below 1"
    shares = {
        "optim.final_lr_fraction": config.optim.final_lr_fraction,
        "optim.decay_fraction": config.optim.decay_fraction,
    }
    for path, share in shares.items():
        if not 0 <= share <= 1:
            yield f"{path}={share} must be between 0 and 1"


def _combination_problems(config: Config) -> Iterator[str]:
    model, batch = config.model, config.train.batch_tokens
    if model.width % model.heads:
        lower = model.width // model.heads * model.heads
        yield (
            f"model.width={model.width} is not a multiple of model.heads={model.heads}; "
            f"nearest: {lower or model.heads} or {lower + model.heads}"
        )
    if batch % model.context:
        lower = batch // model.context * model.context
        yield (
            f"train.batch_tokens={batch:,} is not a multiple of model.context={model.context:,}; "
            f"nearest: {lower or model.context:,} or {lower + model.context:,}"
        )
    expected = VOCAB_OF_TOKENIZER[config.data.tokenizer]
    if model.vocab != expected:
        yield (
            f"model.vocab={model.vocab} does not match data.tokenizer={config.data.tokenizer}, "
            f"which has {expected} tokens"
        )
    if config.optim.warmup_steps > config.total_steps:
        yield (
            f"optim.warmup_steps={config.optim.warmup_steps} is longer than the run of "
            f"{config.total_steps} steps (train.tokens / train.batch_tokens)"
        )
    precision, mode = config.cluster.precision, config.cluster.mixed_precision
    if config.cluster.device == "cpu" and precision == "fp16":
        yield "cluster.precision=fp16 does not train on a CPU; use bf16 or fp32"
    if mode == "engine" and precision in ("auto", "bf16", "fp16") and config.zero.stage == 0:
        yield (
            "cluster.mixed_precision=engine with zero.stage=0 drifts in DeepSpeed; "
            "use zero.stage=1 or cluster.mixed_precision=autocast"
        )
    if config.cluster.watts is not None and config.cluster.usd_per_kwh is None:
        yield "cluster.watts needs cluster.usd_per_kwh to become a price"
    if (config.cluster.purchase_usd is None) != (config.cluster.lifetime_hours is None):
        yield "cluster.purchase_usd and cluster.lifetime_hours make a price together; give both"
