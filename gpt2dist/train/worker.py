"""One rank of a run, from an initialised process group to the last checkpoint.

Ray Train calls `train_rank` in every worker; `train --local` calls it in the current process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from gpt2dist.config.load import identity
from gpt2dist.config.schema import Config
from gpt2dist.data.serve.stream import local_batches, ray_batches
from gpt2dist.data.serve.validation import validation_batches
from gpt2dist.data.serve.windows import StreamPlan, Windows
from gpt2dist.data.shards import Dataset, load_dataset_folder
from gpt2dist.data.tokenizer import load_tokenizer
from gpt2dist.data.verify import Verification, verifying
from gpt2dist.disk import locked, remove_partials
from gpt2dist.errors import BadInput, RunFailure, StorageRefused
from gpt2dist.evaluate.sampling import Sampling, generate
from gpt2dist.evaluate.validation import validation_loss
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.model.optim import build_adamw
from gpt2dist.plan.placement import Placement
from gpt2dist.run_files import CHECKPOINTS, RANK_LOCK, write_outcome
from gpt2dist.train.core import checkpoint
from gpt2dist.train.core.checkpoint import Checkpoint
from gpt2dist.train.core.control import Control, single_process_group
from gpt2dist.train.core.engine import Engine
from gpt2dist.train.core.loop import Diverged, Ending, Recorder, Surroundings, TrainState, run_loop
from gpt2dist.train.job import Job
from gpt2dist.train.recorder import RunRecorder


def train_rank(
    job: Job, local_rank: int = 0, asked: Callable[[], str | None] = lambda: None
) -> Ending:
    """Train this rank's share of the run to its end; every rank returns the same ending.

    `asked` says why this process should stop, if it should; others ask through the run's folder.
    How it ended is written to the run folder, also before BadInput and RunFailure are raised;
    StorageRefused says alone what could not be.
    """
    try:
        return _train_rank(job, local_rank, asked)
    except StorageRefused:
        raise
    except (BadInput, RunFailure) as error:
        # Any other exception is the machine's fault: Ray may try again.
        kind = "diverged" if isinstance(error, Diverged) else "failed"
        code = error.exit_code
        with suppress(StorageRefused):
            write_outcome(Path(job.run_dir), kind=kind, reason=str(error), exit_code=code)
        raise


def _train_rank(job: Job, local_rank: int, asked: Callable[[], str | None]) -> Ending:
    control = Control()
    config, run_dir = job.config, Path(job.run_dir)
    placement = replace(job.placement, local_rank=local_rank)
    _set_up_process(placement)
    with ExitStack() as stack:
        if control.rank == 0:
            # A killed driver's workers may live for a few seconds more.
            stack.enter_context(locked(run_dir / RANK_LOCK, wait_seconds=60))
        dataset = load_dataset_folder(Path(job.dataset_dir))
        nodes = control.gather(os.environ.get("RAY_NODE_ID") or socket.gethostname())
        recorder, resumed = _open_records(job, control, len(set(nodes)), asked)
        stack.callback(recorder.close)
        try:
            start_step = resumed.state.step if resumed else 0
            verification = None
            if nodes.index(nodes[control.rank]) == control.rank:  # the first rank of its machine
                verification = stack.enter_context(verifying(dataset, start_step))
            plan = StreamPlan(
                dataset_dir=job.dataset_dir,
                context=config.model.context,
                seed=config.train.seed,
                batch_sequences=config.batch_sequences,
                micro_batch=placement.micro_batch,
                rank=control.rank,
                world=control.world,
                start_step=start_step,
                steps=config.total_steps - start_step,
            )
            opened = started(ray_batches(plan)) if job.use_ray else closing(local_batches(plan))
            batches = stack.enter_context(opened)
            engine, state = _build(config, placement, resumed)
            around = _surroundings(job, control, engine, dataset, recorder)
            ending = run_loop(engine, _vouched(batches, verification), state, config, around)
            if ending.kind == "finished":
                _require_whole(control, verification)
        except torch.cuda.OutOfMemoryError:
            micro = placement.micro_batch
            raise RunFailure(
                f"the GPU ran out of memory with cluster.micro_batch={micro}; try "
                f"cluster.micro_batch={max(1, micro // 2)} or cluster.recompute=true"
            ) from None
        recorder.finish(ending)
    return ending


def _vouched(
    batches: Iterator[torch.Tensor], verification: Verification | None
) -> Iterator[torch.Tensor]:
    """The same batches, until a shard is found wrong."""
    for batch in batches:
        if verification is not None:
            verification.check()
        yield batch


def _require_whole(control: Control, verification: Verification | None) -> None:
    """Waits for the sums of all shards; every rank raises what one has found."""
    trouble = None
    if verification is not None:
        try:
            verification.finish()
        except BadInput as error:
            trouble = str(error)
    for found in control.gather(trouble):
        if found:
            raise BadInput(found)


def _set_up_process(placement: Placement) -> None:
    # Ray Train sets OMP_NUM_THREADS=1: half the machine would idle.
    torch.set_num_threads(placement.threads)
    if placement.device == "cuda":
        torch.cuda.set_device(placement.local_rank)
        torch.set_float32_matmul_precision("high")


def _open_records(
    job: Job, control: Control, machines: int, asked: Callable[[], str | None]
) -> tuple[Recorder, Checkpoint | None]:
    """The recorder of this rank and the checkpoint to resume from, the same on all ranks."""
    run_dir = Path(job.run_dir)
    notes: list[str] = []

    def find() -> Path | None:
        remove_partials(run_dir / CHECKPOINTS)
        found = checkpoint.newest_valid(run_dir, notes.append)
        if found is not None and found.state.identity != identity(job.config):
            raise BadInput(f"{found.path} belongs to another run; use another --name or --fresh")
        return found.path if found else None

    path = control.from_root(find)
    resumed = checkpoint.load(path, full_check=False) if path else None
    if control.rank != 0:
        return Recorder(), resumed
    recorder = RunRecorder(job, machines, resumed.state.step if resumed else None, asked)
    if resumed is not None:
        notes.append(f"continuing from {resumed.path.name} ({resumed.state.tokens:,} tokens)")
    for note in notes:
        recorder.note(note)
    return recorder, resumed


def _build(
    config: Config, placement: Placement, resumed: Checkpoint | None
) -> tuple[Engine, TrainState]:
    torch.manual_seed(config.train.seed)
    model = GPT2(config.model, recompute=placement.layout.recompute)
    if resumed is not None:
        model.load_state_dict(resumed.weights())
    if placement.compile:
        model.compile_blocks()
    model.to(placement.torch_device)
    optimizer = build_adamw(model, config.optim, placement.device)
    engine = Engine(model, optimizer, config, placement)
    if resumed is not None:
        engine.load_optimizer(resumed.parameter_reader(), resumed.state.applied_steps)
        if resumed.state.loss_scale is not None:
            engine.loss_scale = resumed.state.loss_scale
        return engine, replace(resumed.state, val_loss=None)
    state = TrainState(
        step=0,
        applied_steps=0,
        tokens=0,
        identity=identity(config),
        batch_sequences=config.batch_sequences,
    )
    return engine, state


def _surroundings(
    job: Job, control: Control, engine: Engine, dataset: Dataset, recorder: Recorder
) -> Surroundings:
    config, run_dir = job.config, Path(job.run_dir)
    windows = Windows(dataset, "val", config.model.context)

    def evaluate() -> float:
        batches = validation_batches(
            windows,
            job.placement.micro_batch,
            config.eval.tokens,
            (control.rank, control.world),
        )
        with engine.autocast():
            loss, _ = validation_loss(
                engine.module,
                batches,
                device=engine.device,
                all_reduce=lambda pair: control.total(*pair),
            )
        return loss

    def sample(step: int) -> None:
        recorder.sample(step, _sample_text(config, engine))

    def save(state: TrainState) -> bool:
        try:
            vouched = control.from_root(lambda: recorder.vouch(state))
            vouched = replace(vouched, loss_scale=engine.loss_scale)
            checkpoint.save(run_dir, engine, vouched, control.gather)
        except StorageRefused as refusal:
            recorder.saved(state, refused=str(refusal))
            return False
        recorder.saved(state, refused=None)
        if control.rank == 0:
            kept = config.checkpoint
            with suppress(OSError):  # the next save prunes again
                checkpoint.prune(run_dir, kept.keep_last, kept.keep_best, at_step=state.step)
        return True

    return Surroundings(control, recorder, evaluate=evaluate, sample=sample, save=save)


def _sample_text(config: Config, engine: Engine) -> str:
    """Text from the model as it is; every rank runs it because stage 3 gathers weights."""
    tokenizer = load_tokenizer(config.data.tokenizer)
    prompt = config.eval.sample_prompt
    ids = tokenizer.encode(prompt) or [tokenizer.separator]
    room = config.model.context - 1
    count = min(config.eval.sample_tokens, room)
    with engine.autocast():
        steps = generate(
            engine.module,
            ids[-(config.model.context - count) :],
            Sampling(count, temperature=0.8, top_k=50, seed=config.train.seed),
        )
        new_ids = [step[0] for step in steps]
    return prompt + tokenizer.decode(new_ids)


def train_alone(job: Job, asked: Callable[[], str | None]) -> None:
    """The one rank of a run in this process."""
    with single_process_group(job.placement.device):
        train_rank(job, asked=asked)


@contextmanager
def started(batches: Generator[torch.Tensor, None, None]) -> Iterator[Iterator[torch.Tensor]]:
    """The same batches; the first is fetched from now on, while the model is being built."""
    # A pipeline can be closed only when no thread runs it.
    with closing(batches), ThreadPoolExecutor(1) as thread:
        yield _chained(thread.submit(next, batches, None), batches)


def _chained(
    first: Future[torch.Tensor | None], batches: Iterator[torch.Tensor]
) -> Iterator[torch.Tensor]:
    batch = first.result()
    if batch is not None:
        yield batch
        yield from batches
