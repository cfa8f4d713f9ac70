"""The dataset folder: flat little-endian uint16 token files and the manifest that vouches for them.

The manifest is written last, so a folder with one is complete.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpt2dist.config.schema import DataConfig
from gpt2dist.config.validate import VOCAB_OF_TOKENIZER
from gpt2dist.disk import sha256_of_record, write_atomically
from gpt2dist.errors import BadInput
from gpt2dist.run_files import MANIFEST

FORMAT = 1
UNFINISHED = ".units"
"Folder that a preparation keeps inside the dataset folder until its manifest is written."
TOKEN = np.dtype("<u2")

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Shard:
    file: str
    split: Split
    tokens: int
    documents: int
    sha256: str


@dataclass(frozen=True)
class Totals:
    documents: int
    tokens: int
    text_bytes: int
    "UTF-8 bytes of the documents, without separators."


@dataclass(frozen=True)
class Dataset:
    """One prepared folder, as its manifest describes it."""

    path: str
    tokenizer: str
    vocab: int
    separator: int
    source: str
    text_field: str
    max_documents: int | None
    val_fraction: float
    split_rule: str
    totals: dict[Split, Totals]
    shards: tuple[Shard, ...]
    tool: str
    started: str
    finished: str

    @property
    def val_tokens_per_byte(self) -> float | None:
        """Tokens of the validation split, separators counted, per byte of its UTF-8 text."""
        totals = self.totals["val"]
        return totals.tokens / totals.text_bytes if totals.text_bytes else None

    @property
    def val_share(self) -> float:
        """Share of all tokens that are in the validation split."""
        train, val = self.totals["train"].tokens, self.totals["val"].tokens
        return val / (train + val) if train + val else 0.0

    def split(self, name: Split) -> tuple[Shard, ...]:
        """Shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == name)


def load_dataset_folder(path: str | Path) -> Dataset:
    """The dataset in a folder, each shard's presence and size checked.

    Raises BadInput for a missing or unfinished folder, a damaged shard or another format.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a dataset folder; `gpt2dist data prepare` makes one")
    try:
        tree = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / UNFINISHED).is_dir():
            raise BadInput(
                f"{folder} is unfinished (no {MANIFEST}); run the same `gpt2dist data prepare` "
                "again, it goes on where it stopped"
            ) from None
        raise BadInput(
            f"{folder} holds no {MANIFEST}, so it is not a dataset folder; "
            "`gpt2dist data prepare` makes one"
        ) from None
    except ValueError:
        raise damaged(folder / MANIFEST, "is not JSON") from None
    dataset = _from_tree(tree, folder)
    for shard in dataset.shards:
        check_size(folder, shard)
    return dataset


def damaged(path: Path, what: str) -> BadInput:
    """The refusal of a file of a dataset: what is wrong with it, and what to do."""
    return BadInput(
        f"{path} {what}; restore it, or remove {path.parent} and prepare the dataset again"
    )


def check_size(folder: Path, shard: Shard) -> None:
    """BadInput where a shard is missing or has another size than its manifest says."""
    path = folder / shard.file
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise damaged(path, "is missing") from None
    expected = shard.tokens * TOKEN.itemsize
    if found != expected or not expected:
        raise damaged(path, f"has {found:,} bytes, its manifest says {expected:,}")


def require(dataset: Dataset, data: DataConfig) -> None:
    """BadInput naming both values where the dataset is not the one that the config describes.

    A config whose `data.source` is the folder itself only has to agree on the tokenizer.
    """
    keys = ["tokenizer"]
    if not is_dataset_folder(data.source):
        keys += ["source", "val_fraction", "max_documents", "text_field"]
    elif Path(data.source).resolve() != Path(dataset.path).resolve():
        raise BadInput(f"data.source={data.source} is another dataset than {dataset.path}")
    for key in keys:
        made, wanted = getattr(dataset, key), getattr(data, key)
        if made != wanted:
            raise BadInput(
                f"{dataset.path} was prepared with data.{key}={made}, but the config says "
                f"data.{key}={wanted}; set data.{key}={made} or prepare another folder"
            )
    if dataset.vocab != VOCAB_OF_TOKENIZER[dataset.tokenizer]:
        said = f"says vocab={dataset.vocab}, {dataset.tokenizer} has another"
        raise damaged(Path(dataset.path) / MANIFEST, said)


def is_dataset_folder(path: str | Path) -> bool:
    """Whether `gpt2dist data prepare` has finished, or begun, to write this folder."""
    folder = Path(path)
    return (folder / MANIFEST).is_file() or (folder / UNFINISHED).is_dir()


def write_manifest(dataset: Dataset) -> None:
    """Writes the manifest, which makes the folder complete."""
    tree = {"format": FORMAT} | dataclasses.asdict(dataset)
    del tree["path"]
    text = json.dumps(tree | {"sha256": sha256_of_record(tree)}, indent=1, ensure_ascii=False)
    write_atomically(Path(dataset.path) / MANIFEST, text)


def _from_tree(tree: Any, folder: Path) -> Dataset:
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        found = tree.get("format") if isinstance(tree, dict) else None
        raise BadInput(
            f"{folder / MANIFEST} has format={found}, this version reads format={FORMAT}; "
            "prepare the dataset again"
        )
    fields = {name: value for name, value in tree.items() if name not in ("format", "sha256")}
    try:
        vouched = tree.get("sha256")  # early versions wrote none
        if vouched is not None and vouched != sha256_of_record({"format": FORMAT} | fields):
            raise ValueError("it does not have its recorded sha256")
        fields["totals"] = {name: Totals(**fields["totals"][name]) for name in SPLITS}
        fields["shards"] = tuple(Shard(**shard) for shard in fields["shards"])
        return Dataset(path=str(folder), **fields)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(folder / MANIFEST, f"is damaged ({error})") from None
