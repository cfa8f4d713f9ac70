"""The checkpoint that RUN, --step and --best name."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gpt2dist.errors import BadInput
from gpt2dist.run_files import checkpoint_folder, checkpoint_folders, step_of
from gpt2dist.train.core import checkpoint
from gpt2dist.train.run_folder import open_run

if TYPE_CHECKING:
    from gpt2dist.config.schema import Config


def chosen_checkpoint(arguments: argparse.Namespace) -> tuple[Config, checkpoint.Checkpoint]:
    """The run's config and one valid checkpoint; BadInput when there is none such."""
    run_dir, config = open_run(arguments.run_folder, arguments.runs_dir)
    if arguments.step is not None:
        folder = checkpoint_folder(run_dir, arguments.step)
        if not folder.is_dir():
            steps = sorted(map(step_of, checkpoint_folders(run_dir)))
            raise BadInput(
                f"no checkpoint of step {arguments.step} in {run_dir}; there are: {steps}"
            )
        try:
            return config, checkpoint.load(folder)
        except checkpoint.DamagedCheckpointError as damage:
            raise BadInput(f"{folder} is damaged: {damage}; choose another --step") from None
    found = checkpoint.best(run_dir) if arguments.best else None
    found = found or checkpoint.newest_valid(run_dir, lambda note: print(note, file=sys.stderr))
    if found is None:
        raise BadInput(f"{run_dir} has no checkpoint yet; train it first")
    return config, found
