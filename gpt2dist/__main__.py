"""`python -m gpt2dist`."""

from gpt2dist.cli.main import entry

entry()
