"""`gpt2dist sample`: text from a checkpoint."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_checkpoint, add_device, count
from gpt2dist.errors import BadInput


def add_parser(verbs: Verbs) -> None:
    """`sample RUN`."""
    verb = verbs.add_parser("sample", help="write text with a run's model")
    add_checkpoint(verb)
    add_device(verb)
    verb.add_argument("--prompt", default="", metavar="TEXT")
    verb.add_argument("--tokens", type=count, default=128, metavar="N", help="default 128")
    verb.add_argument("--temperature", type=float, default=0.8, help="0 is greedy; default 0.8")
    verb.add_argument("--top-k", type=int, metavar="K", help="keep the K likeliest tokens")
    verb.add_argument("--top-p", type=float, metavar="P", help="keep this share of probability")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--count", type=int, default=1, metavar="N", help="samples at once")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the samples as they are written."""
    from gpt2dist.cli.checkpoint import chosen_checkpoint

    config, checkpoint = chosen_checkpoint(arguments)
    if arguments.count < 1 or arguments.tokens < 1:
        raise BadInput(f"--count {arguments.count} and --tokens {arguments.tokens} must be >= 1")
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
