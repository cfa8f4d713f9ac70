"""What can be known to be wrong from the config alone, before any device or file is touched."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from gpt2dist.config.bounds import problems as out_of_bounds
from gpt2dist.config.schema import MOST_STEPS, Config
from gpt2dist.errors import BadInput

VOCAB_OF_TOKENIZER = {"gpt2": 50257, "bytes": 257}


def check(config: Config, where: str) -> None:
    """Raises BadInput with the first rule that the config breaks; `where` is its origin."""
    for problem in chain(out_of_bounds(config), _combination_problems(config)):
        raise BadInput(f"{problem} (in {where})")


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
    if config.total_steps > MOST_STEPS:
        yield (
            f"train.tokens={config.train.tokens:,} in batches of {batch:,} are more than "
            f"{MOST_STEPS:,} steps; train fewer tokens or in larger batches"
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
