"""From the finished units to the finished dataset: the split is settled, the manifest written."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

import gpt2dist
from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.files import packed
from gpt2dist.data.prepare.unit_shards import (
    Finished,
    count_text_bytes,
    piece_path,
    shard_name,
    total_of,
    train_shard,
    write_tokens,
)
from gpt2dist.data.shards import TOKEN, UNFINISHED, Dataset, Shard, Split, Totals, write_manifest
from gpt2dist.data.tokenizer import Tokenizer, load_tokenizer
from gpt2dist.errors import BadInput

NO_RULE = "nothing is held out"
HASH_RULE = (
    "a document is held out when the first 8 bytes of the sha256 of its text, over 2**64, "
    "are below val_fraction"
)
TAIL_RULE = (
    "the hash of each document's text put all of them into one split, so instead the last "
    "val_fraction of all tokens is held out, without copies of what is trained on"
)

_VAL_SHARD_TOKENS = 100_000_000


def finish(data: DataConfig, out: str, started: str, units: Sequence[Finished]) -> Dataset:
    """Joins the validation pieces and writes the manifest, which completes the folder.

    Raises BadInput when the source held no text. Running it again after a kill is safe.
    """
    tokenizer = load_tokenizer(data.tokenizer)
    train, val = _total(units, "train"), _total(units, "val")
    if not train.tokens + val.tokens:
        raise no_text(data.source)
    shards = [train_shard(done) for done in units if done.pieces["train"].totals.tokens]
    if not data.val_fraction:
        rule = NO_RULE
    elif train.tokens and val.tokens:
        rule = HASH_RULE
        shards += _join_val(out, units)
    else:
        rule = TAIL_RULE
        shards, train, val = _hold_out_tail(data, out, tokenizer, units)
    dataset = Dataset(
        path=out,
        tokenizer=tokenizer.name,
        vocab=tokenizer.vocab,
        separator=tokenizer.separator,
        source=data.source,
        text_field=data.text_field,
        max_documents=data.max_documents,
        val_fraction=data.val_fraction,
        split_rule=rule,
        totals={"train": train, "val": val},
        shards=tuple(shards),
        tool=f"gpt2dist {gpt2dist.__version__}",
        started=started,
        finished=now(),
    )
    write_manifest(dataset)
    shutil.rmtree(Path(out) / UNFINISHED, ignore_errors=True)
    return dataset


def no_text(source: str) -> BadInput:
    return BadInput(f"data.source={source} holds no text; name another source")


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _total(units: Sequence[Finished], split: Split) -> Totals:
    return total_of(done.pieces[split].totals for done in units)


def _join_val(out: str, units: Sequence[Finished]) -> list[Shard]:
    shards = []
    held = [done for done in units if done.pieces["val"].totals.tokens]
    runs = packed(held, lambda done: done.pieces["val"].totals.tokens, _VAL_SHARD_TOKENS)
    for index, run in enumerate(runs):
        parts = [np.fromfile(piece_path(out, done.index, "val"), TOKEN) for done in run]
        name = shard_name("val", index)
        sha256, tokens = write_tokens(Path(out) / name, parts)
        shards.append(Shard(name, "val", tokens, _total(run, "val").documents, sha256))
    return shards


class _Document(NamedTuple):
    begin: int
    end: int
    "Both among the tokens of all units."
    sha256: bytes


def _hold_out_tail(
    data: DataConfig, out: str, tokenizer: Tokenizer, units: Sequence[Finished]
) -> tuple[list[Shard], Totals, Totals]:
    """All documents as training text, and of the last val_fraction of their tokens what is new."""
    source: Split = "train" if _total(units, "train").tokens else "val"
    everything = _total(units, source)
    pieces = {
        done.index: (piece_path(out, done.index, source), done.pieces[source].totals.tokens)
        for done in units
        if done.pieces[source].totals.tokens
    }
    cut = everything.tokens - max(1, round(everything.tokens * data.val_fraction))
    ranges = _new_after(cut, [path for path, _ in pieces.values()], tokenizer)
    if not ranges:
        raise BadInput(
            f"data.source={data.source} ends in copies of the documents before: there is nothing "
            f"else in the last data.val_fraction={data.val_fraction} of it to hold out; remove the "
            "copies, or set data.val_fraction=0"
        )
    shards: list[Shard] = []
    parts: list[np.ndarray] = []
    end = 0
    for done in units:
        if done.index not in pieces:
            continue
        path, size = pieces[done.index]
        begin, end = end, end + size
        inside = [(first - begin, last - begin) for first, last in ranges if begin <= first < end]
        if not inside and source == "train":
            shards.append(train_shard(done))
            continue
        tokens, held = np.fromfile(path, TOKEN), np.zeros(size, bool)
        for first, last in inside:
            held[first:last] = True
        parts.append(tokens[held])
        kept = tokens[~held]
        name = shard_name("train", done.index)
        # Replaces the unit's own shard: should the preparation be killed now, the next one
        # finds that its size disagrees with the unit's record and redoes the unit.
        sha256, count = write_tokens(Path(out) / name, [kept] if len(kept) else [])
        if count:
            shards.append(Shard(name, "train", count, _begun_in(tokenizer, kept), sha256))
    validation = np.concatenate(parts)
    name = shard_name("val", 0)
    sha256, count = write_tokens(Path(out) / name, [validation])
    text_bytes = count_text_bytes(tokenizer, validation)
    val = Totals(_begun_in(tokenizer, validation), count, text_bytes)
    train = Totals(
        everything.documents - val.documents,
        everything.tokens - val.tokens,
        everything.text_bytes - val.text_bytes,
    )
    return [*shards, Shard(name, "val", count, val.documents, sha256)], train, val


def _new_after(cut: int, paths: Sequence[Path], tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Ranges of tokens from `cut` on that are in no document before it, nor in a copy of one."""
    late = [document for document in _documents(paths, tokenizer) if document.end > cut]
    times = Counter(document.sha256 for document in late)
    early = (document for document in _documents(paths, tokenizer) if document.end <= cut)
    copied = {document.sha256 for document in early if document.sha256 in times}
    if late[0].begin < cut and times[late[0].sha256] > 1:  # cut in two, were it the only one
        copied.add(late[0].sha256)
    return [(max(one.begin, cut), one.end) for one in late if one.sha256 not in copied]


def _documents(paths: Sequence[Path], tokenizer: Tokenizer) -> Iterator[_Document]:
    begin = 0
    for path in paths:
        tokens = np.fromfile(path, TOKEN)
        starts = np.flatnonzero(tokens == tokenizer.separator)
        for document in np.split(tokens, starts[1:]):
            end = begin + len(document)
            yield _Document(begin, end, hashlib.sha256(document.data).digest())
            begin = end


def _begun_in(tokenizer: Tokenizer, tokens: np.ndarray) -> int:
    """Documents that begin in these tokens: text itself never holds a separator."""
    return int(np.count_nonzero(tokens == tokenizer.separator))
