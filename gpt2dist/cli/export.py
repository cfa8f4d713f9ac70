"""`gpt2dist export`: a checkpoint for other libraries."""

from __future__ import annotations

import argparse
from pathlib import Path

from gpt2dist.cli.arguments import Verbs, add_checkpoint, add_value
from gpt2dist.config.schema import Text


def add_parser(verbs: Verbs) -> None:
    """`export RUN --out DIR`."""
    verb = verbs.add_parser("export", help="write a run's model as a Hugging Face GPT-2 folder")
    add_checkpoint(verb)
    add_value(verb, "--out", Text, required=True, metavar="DIR")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the folder that `GPT2LMHeadModel.from_pretrained` reads."""
    from gpt2dist.cli.checkpoint import chosen_checkpoint
    from gpt2dist.model.hf import export_hf

    config, checkpoint = chosen_checkpoint(arguments)
    export_hf(checkpoint.weights(), config.model, Path(arguments.out))
    print(f"{checkpoint.path.name} written to {arguments.out} for GPT2LMHeadModel.from_pretrained")
    return 0
