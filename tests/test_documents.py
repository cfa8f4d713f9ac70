"""What the README and docs tell people to type exists, and what they link to is there."""

import re
import shlex
from pathlib import Path

import pytest

from gpt2dist.cli.main import parse
from gpt2dist.config.load import resolve

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
PLACEHOLDERS = {"RUN", "DIR", "NAME", "SOURCE", "FILE", "RECIPE"}


def commands() -> list[list[str]]:
    """The words of every `gpt2dist ...` line in a fenced block, without comments."""
    found = []
    for document in DOCUMENTS:
        for block in FENCED.findall(document.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                line = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
                if line.startswith("gpt2dist "):
                    shown = line.replace("[--", "--").replace("]", "")  # optional parts
                    found.append(shlex.split(shown, comments=True)[1:])
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_documents_is_one(words):
    arguments = parse(words)
    recipe = getattr(arguments, "recipe", None)
    if recipe is not None and recipe not in PLACEHOLDERS and not recipe.endswith(".yaml"):
        overrides = [word for word in arguments.overrides if not word.startswith("on=")]
        for name in ("gpt2-124m",) if recipe == "all" else (recipe,):
            resolve(name, [word for word in overrides if "..." not in word])
    for name in ("target", "file"):
        path = getattr(arguments, name, None)
        if isinstance(path, str) and path.startswith(("sky/", "tune/")):
            assert (REPOSITORY / path).is_file()


def test_the_documents_hold_commands_at_all():
    assert {words[0] for words in commands()} >= {"plan", "launch", "train", "sample", "data"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for link in LINK.findall(document.read_text()):
        assert (document.parent / link).exists(), f"{document.name} links to {link}"
