"""Which text a source is of: two samples of FineWeb are one text, two folders are two."""

from __future__ import annotations

from gpt2dist.plan.loss.predict import published_text


def corpus_of(source: str) -> str:
    """The same for two sources whose losses compare."""
    return published_text(source)[0] or source
