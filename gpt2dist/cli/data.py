"""`gpt2dist data`: text into token shards, and what shards hold."""

from __future__ import annotations

import argparse

from gpt2dist.cli.arguments import Verbs, add_value, request, say
from gpt2dist.config.schema import Count, DataConfig, ShareBelowOne, Text


def add_parser(verbs: Verbs) -> None:
    """`data prepare SOURCE --out DIR` and `data show DIR`."""
    data = verbs.add_parser("data", help="turn text into token shards, or look at shards")
    data_verbs = data.add_subparsers(dest="data_verb", metavar="COMMAND", required=True)
    prepare = data_verbs.add_parser(
        "prepare",
        help="tokenise a source into shards; continues where it was interrupted",
        description="Sources: stdlib; paths or globs of .txt .md .jsonl .parquet .csv (also .gz "
        ".zst, s3:// and gs://); hf:OWNER/NAME[:CONFIG].",
    )
    add_value(prepare, "source", Text, metavar="SOURCE")
    add_value(prepare, "--out", Text, required=True, metavar="DIR", help="folder for the shards")
    prepare.add_argument("--tokenizer", choices=("gpt2", "bytes"), default="gpt2")
    add_value(prepare, "--val-fraction", ShareBelowOne, default=0.005, metavar="SHARE")
    add_value(prepare, "--text-field", Text, default="text", metavar="COLUMN")
    add_value(prepare, "--max-documents", Count, metavar="N")
    prepare.add_argument("--local", action="store_true", help="in this process, without Ray")
    prepare.set_defaults(run=run_prepare)
    show = data_verbs.add_parser("show", help="describe a folder of shards")
    add_value(show, "folder", Text, metavar="DIR")
    show.add_argument("--verify", action="store_true", help="also recompute every sha256")
    show.set_defaults(run=run_show)


def run_prepare(arguments: argparse.Namespace) -> int:
    """Tokenise a source, with progress, and describe what came of it."""
    from gpt2dist.data.prepare.pipeline import prepare
    from gpt2dist.data.prepare.progress import aloud
    from gpt2dist.data.show import describe_dataset

    data = request(DataConfig, arguments)
    dataset = prepare(data, arguments.out, local=arguments.local, progress=aloud(say))
    print(describe_dataset(dataset))
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Describe a folder of shards; with --verify also recompute its sums."""
    from gpt2dist.data.shards import load_dataset_folder
    from gpt2dist.data.show import describe_dataset
    from gpt2dist.data.verify import verify

    dataset = load_dataset_folder(arguments.folder)
    print(describe_dataset(dataset))
    if arguments.verify:
        verify(dataset)
        print("every shard has its recorded sha256")
    return 0
