"""From the finished units to the finished dataset: the split is settled, the manifest written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

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
    "val_fraction of all tokens is held out"
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


def _hold_out_tail(
    data: DataConfig, out: str, tokenizer: Tokenizer, units: Sequence[Finished]
) -> tuple[list[Shard], Totals, Totals]:
    """All documents as training text, and the last val_fraction of their tokens as validation."""
    source: Split = "train" if _total(units, "train").tokens else "val"
    everything = _total(units, source)
    left = max(1, round(everything.tokens * data.val_fraction))
    shards: list[Shard] = []
    tail: list[np.ndarray] = []
    for done in reversed(units):
        path = piece_path(out, done.index, source)
        size = done.pieces[source].totals.tokens
        if not size:
            continue
        if not left and source == "train":
            shards.append(train_shard(done))
            continue
        tokens = np.fromfile(path, TOKEN)
        kept, cut = tokens[: max(0, size - left)], tokens[max(0, size - left) :]
        left -= len(cut)
        tail.append(cut)
        name = shard_name("train", done.index)
        # Replaces the unit's own shard: should the preparation be killed now, the next one
        # finds that its size disagrees with the unit's record and redoes the unit.
        sha256, count = write_tokens(Path(out) / name, [kept] if len(kept) else [])
        if count:
            shards.append(Shard(name, "train", count, _documents(tokenizer, kept), sha256))
    held = np.concatenate(tail[::-1])
    name = shard_name("val", 0)
    sha256, count = write_tokens(Path(out) / name, [held])
    val = Totals(_documents(tokenizer, held), count, count_text_bytes(tokenizer, held))
    train = Totals(
        everything.documents - val.documents,
        everything.tokens - val.tokens,
        everything.text_bytes - val.text_bytes,
    )
    return [*reversed(shards), Shard(name, "val", count, val.documents, sha256)], train, val


def _documents(tokenizer: Tokenizer, tokens: np.ndarray) -> int:
    """Documents that begin in these tokens: text itself never holds a separator."""
    return int(np.count_nonzero(tokens == tokenizer.separator))
