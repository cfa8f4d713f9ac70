"""`gpt2dist sample`: text from a checkpoint."""

from __future__ import annotations

import argparse
from typing import Annotated

from gpt2dist.cli.arguments import Verbs, add_checkpoint, add_device, add_value
from gpt2dist.config.bounds import at_least, not_negative, positive
from gpt2dist.config.schema import Count, NotNegative, Prose

NUCLEUS = Annotated[float, positive(most=1, why="a share of probability")]
SEED = Annotated[int, not_negative(most=2**64 - 1, why="torch takes 64 bits")]
AT_ONCE = Annotated[int, at_least(1, most=10_000, why="they are all in memory at once")]


def add_parser(verbs: Verbs) -> None:
    """`sample RUN`."""
    verb = verbs.add_parser("sample", help="write text with a run's model")
    add_checkpoint(verb)
    add_device(verb)
    add_value(verb, "--prompt", Prose, default="", metavar="TEXT")
    add_value(verb, "--tokens", Count, default=128, metavar="N", help="default 128")
    add_value(verb, "--temperature", NotNegative, default=0.8, help="0 is greedy; default 0.8")
    add_value(verb, "--top-k", Count, metavar="K", help="keep the K likeliest tokens")
    add_value(verb, "--top-p", NUCLEUS, metavar="P", help="keep this share of probability")
    add_value(verb, "--seed", SEED, default=0)
    add_value(verb, "--count", AT_ONCE, default=1, metavar="N", help="samples at once")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the samples as they are written."""
    from gpt2dist.cli.checkpoint import chosen_checkpoint

    config, checkpoint = chosen_checkpoint(arguments)
    from gpt2dist.evaluate.sampling import Sampling
    from gpt2dist.train.offline import sample_checkpoint

    sampling = Sampling(
        arguments.tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
    )
    pieces = sample_checkpoint(
        config, checkpoint, (arguments.prompt, arguments.count), sampling, arguments.device
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0
