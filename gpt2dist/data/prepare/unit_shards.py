"""The units of a corpus, from text to finished shard files: in this process or as Ray tasks."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt2dist.data.prepare.corpus import documents
from gpt2dist.data.prepare.files import Unit, first_line, packed
from gpt2dist.data.shards import SPLITS, TOKEN, UNFINISHED, Shard, Split, Totals
from gpt2dist.data.tokenizer import Tokenizer, load_tokenizer, tokenizer_environment
from gpt2dist.disk import write_atomically
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.ray_session import quiet_context, ray_session

_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Preparation:
    """What every unit of one preparation shares."""

    out: str
    tokenizer: str
    text_field: str
    val_fraction: float


@dataclass(frozen=True)
class Piece:
    """What one unit wrote of one split; no file where there are no tokens."""

    totals: Totals
    sha256: str


@dataclass(frozen=True)
class Finished:
    """The record that a unit leaves beside its files once they are on disk."""

    index: int
    pieces: dict[Split, Piece]


def piece_path(out: str, index: int, split: Split) -> Path:
    """Training pieces are shards already; validation pieces are small and joined at the end."""
    if split == "train":
        return Path(out) / shard_name("train", index)
    return Path(out) / UNFINISHED / f"{index:05d}.val.bin"


def shard_name(split: Split, index: int) -> str:
    return f"{split}-{index:05d}.bin"


def train_shard(done: Finished) -> Shard:
    piece = done.pieces["train"]
    totals = piece.totals
    name = shard_name("train", done.index)
    return Shard(name, "train", totals.tokens, totals.documents, piece.sha256)


def total_of(parts: Iterable[Totals]) -> Totals:
    sums = [sum(column) for column in zip(*map(dataclasses.astuple, parts))]
    return Totals(*sums) if sums else Totals(0, 0, 0)


def tokenize_unit(job: Preparation, index: int, unit: Unit) -> Finished:
    """Writes the unit's files, each whole or absent, and last its record."""
    tokenizer = load_tokenizer(job.tokenizer)
    parts: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    text_bytes = dict.fromkeys(SPLITS, 0)
    for batch in packed(documents(unit, job.text_field), len, _BATCH_CHARACTERS):
        chosen: dict[Split, list[str]] = {split: [] for split in SPLITS}
        for text in batch:
            content = text.encode("utf-8", "replace")
            split: Split = "val" if held_out(content, job.val_fraction) else "train"
            chosen[split].append(text)
            text_bytes[split] += len(content)
        for split, texts in chosen.items():
            if texts:
                parts[split].append(np.concatenate(tokenizer.encode_documents(texts)))
                counts[split] += len(texts)
    pieces: dict[Split, Piece] = {}
    for split in SPLITS:
        sha256, tokens = write_tokens(piece_path(job.out, index, split), parts.pop(split))
        pieces[split] = Piece(Totals(counts[split], tokens, text_bytes[split]), sha256)
    done = Finished(index, pieces)
    write_atomically(_record_path(job.out, index), json.dumps(dataclasses.asdict(done)))
    return done


def held_out(content: bytes, val_fraction: float) -> bool:
    """Whether a document belongs to the validation split: a function of its text alone."""
    first = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    return first < val_fraction * 2.0**64


def write_tokens(path: Path, parts: list[np.ndarray]) -> tuple[str, int]:
    """Writes the joined tokens; returns their sha256 and number. Nothing is written for none."""
    if not parts:
        path.unlink(missing_ok=True)
        return "", 0
    tokens = np.concatenate(parts).astype(TOKEN, copy=False)
    content = tokens.data.cast("B")
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest(), len(tokens)


def read_finished(out: str, index: int) -> Finished | None:
    """The record of a unit whose files are all there with the right size, else None."""
    try:
        done = finished_from(json.loads(_record_path(out, index).read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return done if files_present(out, done) else None


def files_present(out: str, done: Finished) -> bool:
    """Whether this machine sees every file of the unit in full."""
    for split, piece in done.pieces.items():
        path = piece_path(out, done.index, split)
        expected = piece.totals.tokens * TOKEN.itemsize
        if expected and not (path.is_file() and path.stat().st_size == expected):
            return False
    return True


def count_text_bytes(tokenizer: Tokenizer, tokens: np.ndarray) -> int:
    """UTF-8 bytes of tokens, separators not counted."""
    return len(tokenizer.decode_bytes(tokens[tokens != tokenizer.separator].tolist()))


def finished_from(tree: dict[str, Any]) -> Finished:
    """The record of plain nested dicts, as `dataclasses.asdict` makes them."""
    pieces: dict[Split, Piece] = {}
    for split in SPLITS:
        piece = tree["pieces"][split]
        pieces[split] = Piece(Totals(**piece["totals"]), piece["sha256"])
    return Finished(tree["index"], pieces)


def run_here(
    job: Preparation, units: Sequence[Unit], todo: Sequence[int]
) -> Generator[Finished, None, None]:
    """Tokenises the units with these indices one after the other, without Ray."""
    for index in todo:
        yield tokenize_unit(job, index, units[index])


def run_on_ray(
    job: Preparation, units: Sequence[Unit], todo: Sequence[int]
) -> Generator[Finished, None, None]:
    """Tokenises the units with these indices at once, and yields each as it finishes.

    Raises what a task raised as BadInput or RunFailure; any other end of a task is a RunFailure.
    """
    if not todo:
        return
    environment = tokenizer_environment(job.tokenizer)
    with ray_session():
        import ray.data
        import ray.exceptions

        context = quiet_context()
        context.execution_options.preserve_order = False
        items = [{"unit": json.dumps([i, dataclasses.asdict(units[i])])} for i in todo]
        with ray.data.DataContext.current(context):
            results = ray.data.from_items(items, override_num_blocks=len(items)).map(
                functools.partial(_task, job, environment)
            )
        rows = iter(results.iter_batches(batch_size=None, batch_format="numpy"))
        try:
            for block in rows:
                for text in block["result"]:
                    yield _result(text)
        except ray.exceptions.RayError as error:
            raise RunFailure(
                f"{job.out}: a tokenising task ended badly ({first_line(error)}); run the same "
                "command again, it goes on where it stopped"
            ) from error
        finally:
            rows.close()  # type: ignore[attr-defined]


def _task(job: Preparation, environment: dict[str, str], row: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    index, tree = json.loads(row["unit"])
    unit = Unit(**(tree | {"places": tuple(tree["places"])}))
    # As values, because Ray wraps what a task raises in errors of its own.
    try:
        result = dataclasses.asdict(tokenize_unit(job, index, unit))
    except BadInput as error:
        result = {"bad_input": str(error)}
    except RunFailure as error:
        result = {"failure": str(error)}
    return {"result": json.dumps(result)}


def _result(text: str) -> Finished:
    tree = json.loads(text)
    if "bad_input" in tree:
        raise BadInput(tree["bad_input"])
    if "failure" in tree:
        raise RunFailure(tree["failure"])
    return finished_from(tree)


def _record_path(out: str, index: int) -> Path:
    return Path(out) / UNFINISHED / f"{index:05d}.json"
