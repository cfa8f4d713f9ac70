"""The `gpt2dist` command and its arguments. Starts without torch or Ray."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from gpt2dist import __version__
from gpt2dist.cli import (
    compare,
    config,
    data,
    export,
    fit,
    launch,
    plan,
    sample,
    track,
    train,
    tune,
    ui,
)
from gpt2dist.cli import eval as evaluate
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.human import printable, without_credentials

VERBS = (
    config, plan, launch, data, train, tune, compare, fit, evaluate, sample, export, track, ui,
)  # fmt: skip
"In the order that `--help` shows them."

EPILOG = """\
examples:
  gpt2dist plan gpt2-124m on=A100-80GB:8                 memory, hours, dollars, loss
  gpt2dist plan all on=all --usd 20                      the lowest loss for twenty dollars
  gpt2dist launch gpt2-124m on=RTX4090 --usd 12          rent it, train, give it back
  gpt2dist train debug                                   minutes on two CPU cores, no network
  gpt2dist train gpt2-124m cluster.usd_per_hour=1.29 budget.usd=10
  gpt2dist train gpt2-124m data.source='my_texts/*.txt' train.tokens=1e9
  gpt2dist sample runs/debug-... --prompt "def main("
"""


class _Parser(argparse.ArgumentParser):
    """Whose errors are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """The whole command line, without importing what the commands need."""
    top = _Parser(
        prog="gpt2dist",
        description="Train GPT-2 (124M to 1.5B) on your own or rented GPUs; every dollar recorded.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"gpt2dist {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0, 1 failure, 2 bad input, 75, 130 or 143 interrupted."""
    started_at = time.time()
    try:
        arguments = parse(argv)
        arguments.started_at = started_at
        return arguments.run(arguments)
    except (BadInput, RunFailure) as error:
        print(f"gpt2dist: {printable(without_credentials(str(error)))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        if not _is_ctrl_c(error):
            raise
        print("gpt2dist: interrupted", file=sys.stderr)
        return 130


def _is_ctrl_c(error: BaseException | None) -> bool:
    """Also one that came amid an import, where Python 3.11 makes a RuntimeError of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse loses `a.b=value` words that follow an option; they are overrides all the same."""
    top = parser()
    for word in sys.argv[1:] if argv is None else argv:
        if word.startswith("--") and word.endswith("=--"):  # argparse hands on an empty list
            top.error(f"argument {word[:-3]}: expected one argument")
    arguments, rest = top.parse_known_args(argv)
    if rest and hasattr(arguments, "overrides") and not any(word.startswith("-") for word in rest):
        arguments.overrides = [*arguments.overrides, *rest]
    elif rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def entry() -> None:
    """The installed `gpt2dist` command."""
    code = main()
    try:
        sys.stdout.flush()
    except OSError:  # a full disk: Python would try again at its exit, and call that code 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


if __name__ == "__main__":
    entry()
