"""What each command does: call one room, print what it says. Rooms are imported when needed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2dist.errors import BadInput

if TYPE_CHECKING:
    from gpt2dist.config.schema import Config
    from gpt2dist.train.core.checkpoint import Checkpoint


def show_config(arguments: argparse.Namespace) -> int:
    from gpt2dist.config.load import dump, identity, resolve, run_name

    config = resolve(arguments.recipe, arguments.overrides)
    print(f"# identity {identity(config)}, run name {run_name(config)}")
    print(dump(config), end="")
    return 0


def prepare_data(arguments: argparse.Namespace) -> int:
    from gpt2dist.config.schema import DataConfig
    from gpt2dist.data.prepare.pipeline import prepare
    from gpt2dist.data.prepare.progress import aloud
    from gpt2dist.data.show import describe_dataset

    data = DataConfig(
        source=arguments.source,
        tokenizer=arguments.tokenizer,
        val_fraction=arguments.val_fraction,
        text_field=arguments.text_field,
        max_documents=arguments.max_documents,
    )
    if not 0 <= data.val_fraction < 1:
        raise BadInput(f"--val-fraction {data.val_fraction} must be at least 0 and below 1")
    dataset = prepare(data, arguments.out, local=arguments.local, progress=aloud(_say))
    print(describe_dataset(dataset))
    return 0


def show_data(arguments: argparse.Namespace) -> int:
    from gpt2dist.data.shards import load_dataset_folder, verify
    from gpt2dist.data.show import describe_dataset

    dataset = load_dataset_folder(arguments.folder)
    print(describe_dataset(dataset))
    if arguments.verify:
        verify(dataset)
        print("every shard has its recorded sha256")
    return 0


def train(arguments: argparse.Namespace) -> int:
    from gpt2dist.config.load import resolve

    config = resolve(arguments.recipe, arguments.overrides)  # before anything slow is imported
    from gpt2dist.train.driver import Launch, train

    launch = Launch(arguments.name, arguments.fresh, arguments.local, arguments.started_at)
    return train(config, launch, say=_say).exit_code


def evaluate(arguments: argparse.Namespace) -> int:
    from gpt2dist.train.offline import evaluate_checkpoint

    config, checkpoint = _checkpoint(arguments)
    result = evaluate_checkpoint(
        config, checkpoint, device=arguments.device, tokens=arguments.tokens, data=arguments.data
    )
    print(
        f"{checkpoint.path.name}: validation loss {result.loss:.4f} nats per token "
        f"(perplexity {result.perplexity:.2f}) over {result.tokens:,} tokens"
    )
    return 0


def sample(arguments: argparse.Namespace) -> int:
    from gpt2dist.evaluate.sampling import Sampling
    from gpt2dist.train.offline import sample_checkpoint

    config, checkpoint = _checkpoint(arguments)
    if arguments.count < 1 or arguments.tokens < 1:
        raise BadInput(f"--count {arguments.count} and --tokens {arguments.tokens} must be >= 1")
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


def export(arguments: argparse.Namespace) -> int:
    from gpt2dist.model.hf import export_hf

    config, checkpoint = _checkpoint(arguments)
    export_hf(checkpoint.weights(), config.model, Path(arguments.out))
    print(f"{checkpoint.path.name} written to {arguments.out} for GPT2LMHeadModel.from_pretrained")
    return 0


def sync(arguments: argparse.Namespace) -> int:
    from gpt2dist.track.mlflow_log import sync
    from gpt2dist.track.mlflow_uri import tracking_uri
    from gpt2dist.train.run_folder import open_run

    run_dir, config = open_run(arguments.run_folder, arguments.runs)
    report = sync(run_dir, config, tracking_uri(config, os.environ))
    artifacts = ", ".join(report.artifacts) or "none"
    print(
        f"MLflow run {report.run_id} at {report.uri}: {report.rows:,} rows sent, last step "
        f"{report.last_step}, artifacts: {artifacts}, status {report.status}"
    )
    return 0


def ui(arguments: argparse.Namespace) -> int:
    from gpt2dist.track.mlflow_uri import default_uri, ui_command, ui_environment

    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri(Path(arguments.runs))
    command = ui_command(uri, arguments.port)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise BadInput(
            f"no MLflow store in {arguments.runs}/ yet; train a run first, or give --runs"
        )
    print(f"MLflow on http://127.0.0.1:{arguments.port} (Ctrl-C ends it)", flush=True)
    environment = {**os.environ, **ui_environment(uri)}
    return subprocess.run(command, env=environment, check=False).returncode


def _checkpoint(arguments: argparse.Namespace) -> tuple[Config, Checkpoint]:
    from gpt2dist.run_files import checkpoint_folder, checkpoint_folders, step_of
    from gpt2dist.train.core import checkpoint
    from gpt2dist.train.run_folder import open_run

    run_dir, config = open_run(arguments.run_folder, arguments.runs)
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


def _say(text: str) -> None:
    print(text, flush=True)
