"""Hugging Face datasets: streamed from the hub, or a local copy."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2dist.data.prepare.files import (
    RecordText,
    Unit,
    first_line,
    ranges,
    require_column,
    text_of,
    unit_bytes,
)
from gpt2dist.errors import BadInput, RunFailure

PREFIX = "hf:"
_SPLIT = "train"
_QUOTA_DOCUMENTS = 10_000
"Documents that `max_documents` takes from one shard before it opens the next."


def plan_hub(source: str, text_field: str, max_documents: int | None) -> list[Unit]:
    """One unit per shard of the dataset, or per run of rows of one that `save_to_disk` wrote.

    With `max_documents`, each shard gives its first 10,000 until there are enough; shards that
    hold fewer make the total smaller than asked for.
    """
    name = source.removeprefix(PREFIX)
    if _saved_to_disk(name):
        rows = _on_disk(name)
        require_column(f"data.source={source}", text_field, rows.column_names)
        total = rows.num_rows if max_documents is None else min(rows.num_rows, max_documents)
        row_bytes = max(1, rows.data.nbytes // max(1, rows.num_rows))
        step = max(1, unit_bytes(total * row_bytes) // row_bytes)
        return [
            Unit("disk", (name,), start, stop, (stop - start) * row_bytes)
            for start, stop in ranges(total, step)
        ]
    stream = _stream(name)
    if stream.column_names:  # not every stream knows them before its first record
        require_column(f"data.source={source}", text_field, stream.column_names)
    shards = stream.num_shards
    if max_documents is None:
        return [Unit("hub", (name,), index, shards) for index in range(shards)]
    quotas = [stop - start for start, stop in ranges(max_documents, _QUOTA_DOCUMENTS)]
    if len(quotas) > shards:  # few shards: deal the documents evenly
        quotas = [
            max_documents * (i + 1) // shards - max_documents * i // shards for i in range(shards)
        ]
    return [Unit("hub", (name,), index, shards, take=quota) for index, quota in enumerate(quotas)]


def read_hub(unit: Unit, text_field: str) -> Iterator[RecordText]:
    """Texts of one shard, in order."""
    (name,) = unit.places
    shard = _stream(name).shard(num_shards=unit.stop, index=unit.start)
    try:
        for record in shard:
            require_column(PREFIX + name, text_field, record)
            yield text_of(record[text_field], text_field, PREFIX + name)
    except (BadInput, GeneratorExit):
        raise
    except Exception as error:  # many libraries' network errors; all mean the same to the user
        raise RunFailure(
            f"{PREFIX}{name}: reading shard {unit.start} of {unit.stop} failed "
            f"({first_line(error)}); run the same command again, it goes on where it stopped"
        ) from None


def read_disk(unit: Unit, text_field: str) -> Iterator[RecordText]:
    """Texts of a run of rows."""
    (name,) = unit.places
    column = _on_disk(name).select_columns([text_field])
    for start, stop in ranges(unit.stop - unit.start, 1024):
        for text in column[unit.start + start : unit.start + stop][text_field]:
            yield text_of(text, text_field, PREFIX + name)


def _saved_to_disk(name: str) -> bool:
    folder = Path(name).expanduser()
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


@functools.lru_cache(maxsize=2)
def _on_disk(name: str) -> Any:  # datasets.Dataset
    import datasets

    loaded = datasets.load_from_disk(str(Path(name).expanduser()))
    if isinstance(loaded, datasets.DatasetDict):
        if _SPLIT not in loaded:
            raise BadInput(
                f"data.source={PREFIX}{name} has no split {_SPLIT}; it has {', '.join(loaded)}"
            )
        return loaded[_SPLIT]
    return loaded


# Opening asks the hub for the list of files: once per process, not once per shard.
@functools.lru_cache(maxsize=2)
def _stream(name: str) -> Any:  # datasets.IterableDataset
    import datasets

    path, config = name, None
    if not Path(name).expanduser().is_dir():
        path, _, config = name.partition(":")
    try:
        return datasets.load_dataset(path, config or None, streaming=True, split=_SPLIT)
    except Exception as error:  # see read_hub
        raise BadInput(
            f"data.source={PREFIX}{name} could not be opened ({first_line(error)}); check "
            "name and configuration (hf:OWNER/NAME:CONFIG), the network, or `hf auth login`"
        ) from None
