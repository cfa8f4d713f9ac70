"""Portable checkpoints: whole fp32 parameters and moments, for any ZeRO stage and world size.

    checkpoints/step-00000250/
        weights-00-00.safetensors     fp32, by parameter name; rank and part in the file name
        optimizer-00-00.safetensors   exp_avg/NAME and exp_avg_sq/NAME
        state.json                    step, cursor, money, sha256 of every file and of itself;
                                      written last

A checkpoint is written under a temporary name, synced and renamed. One that is not whole is
never loaded: the newest valid one wins.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from gpt2dist.disk import (
    finish_folder,
    fsync,
    partial_of,
    remove_folder,
    sha256_of,
    sha256_of_record,
)
from gpt2dist.errors import RunFailure, StorageRefused
from gpt2dist.run_files import (
    CHECKPOINT_STATE,
    CHECKPOINTS,
    checkpoint_folder,
    checkpoint_folders,
    checkpoint_record,
    step_of,
)
from gpt2dist.train.core.engine import Engine, ParameterState
from gpt2dist.train.core.loop import TrainState

FORMAT = 1
PART_BYTES = 2**30
"Host memory that one rank gathers before it writes a file."


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    state: TrainState
    files: Mapping[str, Mapping[str, Any]]

    def weights(self) -> dict[str, torch.Tensor]:
        """Every weight by name, fp32 on the CPU."""
        files = [self.path / file for file in self.files if file.startswith("weights")]
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    def parameter_reader(self) -> Callable[[str], ParameterState]:
        """Reads one parameter at a time, so that host memory never holds all moments."""
        index: dict[str, Path] = {}
        for file in self.files:
            with safe_open(self.path / file, "pt") as tensors:
                index.update(dict.fromkeys(tensors.keys(), self.path / file))

        def tensor(key: str) -> torch.Tensor:
            with safe_open(index[key], "pt") as tensors:
                return tensors.get_tensor(key)

        def read(name: str) -> ParameterState:
            return ParameterState(
                name, tensor(name), tensor(f"exp_avg/{name}"), tensor(f"exp_avg_sq/{name}")
            )

        return read


def save(
    run_dir: Path,
    engine: Engine,
    state: TrainState,
    gather: Callable[[Any], list[Any]],
) -> Path:
    """Write one checkpoint; collective. `gather` is an all-gather of objects over the ranks.

    Raises StorageRefused on every rank when one cannot write; older checkpoints stay as they are.
    """
    final = checkpoint_folder(run_dir, state.step)
    temporary, trouble = gather(partial_of(final))[0], None
    if engine.rank == 0:
        trouble = _attempt(lambda: _make(temporary))
    _raise_first(gather(trouble), state.step)
    if not temporary.is_dir():
        trouble = f"{temporary.parent} is not shared between machines; put paths.runs on one disk"
    writer = _PartWriter(temporary, engine.rank)
    owners = _owners([int(torch.Size(shape).numel()) for shape in engine.shapes], engine.world)
    for owner, parameter in zip(owners, engine.parameter_states()):
        if owner == engine.rank and trouble is None:
            trouble = _attempt(lambda p=parameter: writer.add(p))  # type: ignore[misc]
    if trouble is None:
        trouble = _attempt(writer.flush)
    reports = gather((trouble, writer.files))
    failed = next((report[0] for report in reports if report[0]), None)
    if failed is None and engine.rank == 0:
        files = {name: entry for report in reports for name, entry in report[1].items()}
        record = {"format": FORMAT, "state": asdict(state), "files": dict(sorted(files.items()))}
        failed = _attempt(lambda: _finish(temporary, final, record))
    if failed is not None and engine.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
    _raise_first(gather(failed), state.step)
    return final


def newest_valid(run_dir: Path, note: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are named through `note` and skipped.

    Raises RunFailure when there are checkpoints and none is whole, because starting again from
    nothing would silently cost everything paid so far.
    """
    folders = checkpoint_folders(run_dir)
    for folder in folders:
        try:
            return load(folder)
        except DamagedCheckpointError as damage:
            note(f"checkpoint {folder.name} is damaged and skipped: {damage}")
    if folders:
        raise RunFailure(
            f"no checkpoint in {run_dir / CHECKPOINTS} is whole; restore one, "
            f"or start again with --fresh (keeps this folder under another name)"
        )
    return None


def best(run_dir: Path) -> Checkpoint | None:
    """The checkpoint with the lowest validation loss among those with one."""
    found = []
    for folder in checkpoint_folders(run_dir):
        with suppress(DamagedCheckpointError):
            found.append(load(folder, full_check=False))
    found = [checkpoint for checkpoint in found if checkpoint.state.val_loss is not None]
    return min(found, key=lambda c: (c.state.val_loss, c.state.step), default=None)


def load(folder: Path, *, full_check: bool = True) -> Checkpoint:
    """A checkpoint whose every file has the recorded size, and sha256 with `full_check`."""
    try:
        record = checkpoint_record(folder)
        checkpoint = Checkpoint(folder, TrainState(**record["state"]), record["files"])
        sizes = {name: (entry["bytes"], entry["sha256"]) for name, entry in record["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"state.json cannot be read ({error})") from None
    for name, (size, digest) in sizes.items():
        file = folder / name
        if not file.is_file():
            raise DamagedCheckpointError(f"{name} is missing")
        if file.stat().st_size != size:
            raise DamagedCheckpointError(
                f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
            )
        if full_check and sha256_of(file) != digest:
            raise DamagedCheckpointError(f"{name} does not have its recorded sha256")
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise DamagedCheckpointError(f"{name} is not a safetensors file ({error})") from None
    return checkpoint


class DamagedCheckpointError(Exception):
    """A checkpoint folder that must not be loaded."""


def prune(run_dir: Path, keep_last: int, keep_best: bool, *, at_step: int) -> None:
    """Remove all but the newest `keep_last` checkpoints and the best one.

    `at_step` is the step just saved. Later ones were damaged and rolled back: they stay as they
    are and never count, or they would push out the only whole one.
    """
    folders = [folder for folder in checkpoint_folders(run_dir) if step_of(folder) <= at_step]
    kept = set(folders[:keep_last])
    champion = best(run_dir) if keep_best else None
    if champion is not None:
        kept.add(champion.path)
    for folder in folders:
        if folder not in kept:
            remove_folder(folder)


class _PartWriter:
    """Collects tensors of one rank and writes a pair of files whenever they fill a part."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.files: dict[str, dict[str, Any]] = {}
        self._weights: dict[str, torch.Tensor] = {}
        self._moments: dict[str, torch.Tensor] = {}
        self._part = 0

    def add(self, parameter: ParameterState) -> None:
        self._weights[parameter.name] = _on_cpu(parameter.weight)
        self._moments[f"exp_avg/{parameter.name}"] = _on_cpu(parameter.exp_avg)
        self._moments[f"exp_avg_sq/{parameter.name}"] = _on_cpu(parameter.exp_avg_sq)
        if sum(t.nbytes for t in self._moments.values()) >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        for kind, tensors in (("weights", self._weights), ("optimizer", self._moments)):
            if tensors:
                name = f"{kind}-{self.rank:02d}-{self._part:02d}.safetensors"
                save_file(tensors, self.folder / name)
                fsync(self.folder / name)
                self.files[name] = {
                    "bytes": (self.folder / name).stat().st_size,
                    "sha256": sha256_of(self.folder / name),
                }
                tensors.clear()
        self._part += 1


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    # At stage 0 on a CPU this would be the live tensor; safetensors refuses views and ties.
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _owners(sizes: Iterable[int], world: int) -> list[int]:
    """The rank that writes each parameter, so that every rank writes about as much."""
    loads, owners = [0] * world, []
    for size in sizes:
        owner = loads.index(min(loads))
        loads[owner] += size
        owners.append(owner)
    return owners


def _finish(temporary: Path, final: Path, record: Mapping[str, Any]) -> None:
    vouched = {**record, "sha256": sha256_of_record(record)}
    (temporary / CHECKPOINT_STATE).write_text(json.dumps(vouched, indent=1))
    finish_folder(temporary, final)


def _make(temporary: Path) -> None:
    # Never the run's own folder: one that was moved away in mid-run is not made again.
    temporary.parent.mkdir(exist_ok=True)
    temporary.mkdir()


def _attempt(action: Callable[[], object]) -> str | None:
    """None, or why the action could not be done."""
    try:
        action()
    except (OSError, SafetensorError) as error:
        return " ".join(str(error).split())
    return None


def _raise_first(troubles: list[str | None], step: int) -> None:
    for trouble in troubles:
        if trouble:
            raise StorageRefused(
                f"could not save the checkpoint of step {step:,}: {trouble}; "
                f"older checkpoints are intact"
            )
