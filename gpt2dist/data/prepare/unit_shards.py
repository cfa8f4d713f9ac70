"""One unit of a corpus, from text to its finished shard files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt2dist.data.prepare.corpus import documents
from gpt2dist.data.prepare.units import Unit
from gpt2dist.data.shards import SPLITS, TOKEN, UNFINISHED, Shard, Split, Totals, write_file
from gpt2dist.data.tokenizer import Tokenizer, load_tokenizer

_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Job:
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


def tokenize_unit(job: Job, index: int, unit: Unit) -> Finished:
    """Writes the unit's files, each whole or absent, and last its record."""
    tokenizer = load_tokenizer(job.tokenizer)
    parts: dict[Split, list[np.ndarray]] = {split: [] for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    text_bytes = dict.fromkeys(SPLITS, 0)
    for batch in _batches(documents(unit, job.text_field)):
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
    write_file(_record_path(job.out, index), json.dumps(dataclasses.asdict(done)).encode())
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
    write_file(path, content)
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


def _record_path(out: str, index: int) -> Path:
    return Path(out) / UNFINISHED / f"{index:05d}.json"


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
