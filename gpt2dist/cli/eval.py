"""`gpt2dist eval`: the validation loss of a checkpoint."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_checkpoint, add_device, add_value
from gpt2dist.config.schema import Text, Tokens


def add_parser(verbs: Verbs) -> None:
    """`eval RUN`."""
    verb = verbs.add_parser("eval", help="validation loss of a run's checkpoint")
    add_checkpoint(verb)
    add_device(verb)
    add_value(verb, "--tokens", Tokens, metavar="N", help="default: the run's eval.tokens")
    add_value(verb, "--data", Text, metavar="DIR", help="folder of shards (default: the run's)")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The loss that the training loop would have measured."""
    from gpt2dist.cli.checkpoint import chosen_checkpoint

    config, checkpoint = chosen_checkpoint(arguments)
    from gpt2dist.train.offline import evaluate_checkpoint

    result = evaluate_checkpoint(
        config, checkpoint, device=arguments.device, tokens=arguments.tokens, data=arguments.data
    )
    print(
        f"{checkpoint.path.name}: validation loss {result.loss:.4f} nats per token "
        f"(perplexity {result.perplexity:.2f}) over {result.tokens:,} tokens"
    )
    return 0
