"""Whether losses may be compared at all: same text, same tokenizer, or else bits per byte."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gpt2dist.compare.read.run_record import KnownText, Run, Text
from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput


def known_text(config: Config) -> KnownText | None:
    """What the manifest of the run's dataset says; None where the folder is not on this machine."""
    from gpt2dist.data.prepare.pipeline import dataset_dir

    return _manifest(config.paths.dataset or str(dataset_dir(config.paths.data, config.data)))


def require_comparable(runs: Sequence[Run], *, force: bool) -> list[str]:
    """Notes on what differs; BadInput where texts or tokenizers differ and nobody forces it."""
    by_text: dict[Text, list[Run]] = {}
    for run in runs:
        by_text.setdefault(run.text, []).append(run)
    if len(by_text) > 1:
        kinds = "; ".join(f"{text} ({_some(found)})" for text, found in by_text.items())
        if not force:
            raise BadInput(f"losses on different text do not compare: {kinds}; {_way_out(runs)}")
        return [
            f"different text or tokenizers: {kinds}. "
            + (
                "Losses are in bits per byte of the validation text, which no tokenizer changes"
                if in_bits(runs)
                else "Losses are in nats per token and do not compare: not every run's summary or "
                "dataset on this machine says how many bytes its tokens are"
            )
        ]
    if len({run.validation for run in runs}) > 1:
        return [
            "validation text differs (data.source, data.val_fraction, data.max_documents or "
            "eval.tokens): small differences in loss may come from that alone"
        ]
    return []


def in_bits(runs: Sequence[Run]) -> bool:
    """Whether losses of these runs are shown in bits per byte: texts differ, bytes are known."""
    return len({run.text for run in runs}) > 1 and all(run.tokens_per_byte for run in runs)


def _way_out(runs: Sequence[Run]) -> str:
    if in_bits(runs):
        return "name runs of one text, or give --force to compare in bits per byte"
    unknown = sum(run.tokens_per_byte is None for run in runs)
    return (
        f"name runs of one text, or give --force to show them all the same (not in bits per byte: "
        f"{unknown} of {len(runs)} runs have neither a summary with the bytes of their tokens nor "
        "their dataset on this machine)"
    )


def _some(runs: Sequence[Run]) -> str:
    names = ", ".join(run.name for run in runs[:2])
    return names if len(runs) <= 2 else f"{names} and {len(runs) - 2} more"


@cache
def _manifest(folder: str) -> KnownText | None:
    from gpt2dist.data.shards import load_dataset_folder
    from gpt2dist.run_files import MANIFEST

    if not (Path(folder) / MANIFEST).is_file():
        return None
    try:
        dataset = load_dataset_folder(folder)
    except BadInput:
        # Damage there is for the commands that train on it to report; here it means unknown.
        return None
    return KnownText(dataset.source, dataset.val_tokens_per_byte)
