"""Does a run survive being ended anywhere? A tiny run is started and ended until it has finished.

    python benchmarks/kills.py [--rounds 300] [--seed 0] [--ray 0.04] [--json FILE]

A round is one start and its end, drawn from the seed: a signal, two, or a lost worker, during
start-up, training, validation, saving or closing; before some a bit of the newest checkpoint is
flipped. When a run has finished the next begins. Every start is checked, and every finished run is
held against one that nobody disturbed. `--ray` is the share of rounds under Ray: half with one
worker, in turn with `--local` in one folder, half with two.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tiny run is that of the tests

from gpt2dist.cli.main import main as gpt2dist
from gpt2dist.train.machine import probe_machine
from tests.train.command import TINY, Command, prepare_text
from tests.train.interruption import How, Round
from tests.train.story import Story, Tally

PRICED = "cluster.usd_per_hour=3600"  # a second costs a dollar
COLD_SHARE, FLIP_SHARE = 0.06, 0.15
MOST_STEPS = 40
PHASES = {"start-up": 3, "training": 3, "validation": 2, "saving": 4, "closing": 1}
"How often each is aimed at, as are the signals below."
SIGNALS = {"SIGKILL": 3, "SIGTERM": 2, "SIGINT": 2, "two signals": 2}
WORKERS = {"a worker": 4, "rank 0": 4}


def draw(rounds: int, seed: int, ray_share: float) -> list[Round]:
    """The rounds of a seed."""
    dice = random.Random(seed)

    def one_of(weights: dict[str, int]) -> Any:
        return dice.choices(list(weights), list(weights.values()))[0]

    drawn = []
    for _ in range(rounds):
        how: How = "cold" if dice.random() < COLD_SHARE else "forked"
        if dice.random() < ray_share:
            how = "two" if dice.random() < 0.5 else "one"
        end = one_of(SIGNALS | WORKERS if how == "two" else SIGNALS)
        phases = {name: PHASES[name] for name in ("training", "validation", "saving")}
        phase = one_of(phases if end in WORKERS else PHASES)
        steps, share = dice.randrange(MOST_STEPS), dice.random()
        flip = dice.random() if dice.random() < FLIP_SHARE else None
        drawn.append(Round(how, end, phase, steps, share, flip))
    return drawn


class Series:
    """Runs of one layout, each begun when the one before has finished."""

    def __init__(self, name: str, how: How, runs: Path, words: list[str], tally: Tally) -> None:
        self._finished = 0
        self._name, self._how, self._runs, self._words, self._tally = name, how, runs, words, tally
        self._reference = runs / f"{name}-0"
        self._story = self._next()

    def play(self, round_: Round) -> str:
        """One start of the current run; the first of all is the undisturbed run's."""
        line = self._story.play(round_)
        if self._story.is_finished():
            self._story.conclude(sync)
            self._finished += 1
            self._tally.runs += 1
            self._story = self._next()
        return line

    def undisturbed(self) -> str:
        """A start that nobody ends."""
        return self.play(Round(self._how, "nothing", "closing"))

    def under_way(self) -> bool:
        return self._story.starts > 0

    def _next(self) -> Story:
        run_dir = self._runs / f"{self._name}-{self._finished}"
        return Story(run_dir, self._words, self._reference, self._tally)


def play(rounds: Sequence[Round], runs: Path, shards: Path, say: Callable[[str], None]) -> Tally:
    """Plays the rounds and finishes the runs that they leave unfinished."""
    words, tally = [*TINY, PRICED, f"data.source={shards}"], Tally()
    series: dict[str, Series] = {}
    Command(runs, "--version").ends_with(0)  # the Python that the others are forked from
    for number, round_ in enumerate(rounds, 1):
        name, how = ("two", "two") if round_.how == "two" else ("one", "forked")
        if name not in series:
            series[name] = Series(name, how, runs, words, tally)
            say(f"   - {series[name].undisturbed()}")
        say(f"{number:>4} {series[name].play(round_)}")
    for runs_of_one_layout in series.values():
        while runs_of_one_layout.under_way():
            say(f"   - {runs_of_one_layout.undisturbed()}")
    return tally


def sync(run_dir: Path) -> None:
    """Brings MLflow up to date with a run folder."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert gpt2dist(["track", "sync", str(run_dir)]) == 0


def summary(tally: Tally, seconds: float) -> list[str]:
    """What was done and found, in lines."""
    lines = [f"{count:>5}  {how}" for how, count in sorted(tally.ended.items())]
    lines.append(
        f"{tally.runs} runs finished after {sum(tally.ended.values())} starts in {seconds:,.0f} s: "
        f"{tally.in_a_save} ends in a save, {tally.flipped_bits} bits flipped, "
        f"{tally.rolled_back_steps:,} steps trained again"
    )
    if unbilled := tally.unbilled_seconds:
        lines.append(
            f"lost of the account by {len(unbilled)} kills: median "
            f"{statistics.median(unbilled):.1f} s, most {max(unbilled):.1f} s"
        )
    for name, count in tally.checked.items():
        found = tally.faults[name]
        lines.append(f"{name:<20} {count:>5} checks, {len(found)} faults")
        lines += [f"    {fault}" for fault in found]
    return lines


def origin(words: str) -> dict[str, str]:
    """What was run, when and where."""
    machine = probe_machine()
    return {
        "command": f"python benchmarks/kills.py {words}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{machine.cpu_cores} cores of {machine.cpu_name}",
    }


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def number(kind: Callable[[str], Any], least: float, most: float) -> Callable[[str], Any]:
    """A type of an argument: a number within bounds."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least:g} to {most:g}")
        return value

    return read


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 when a fault was found, 2 for bad arguments."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=number(int, 1, 1e6), default=300, metavar="N")
    parser.add_argument("--seed", type=number(int, 0, 2**63), default=0, metavar="S")
    parser.add_argument("--ray", type=number(float, 0, 1), default=0.04, metavar="SHARE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    if arguments.json and not arguments.json.parent.is_dir():
        parser.error(f"--json={arguments.json}: there is no folder {arguments.json.parent}")
    about = origin(f"--rounds {arguments.rounds} --seed {arguments.seed} --ray {arguments.ray:g}")
    print("; ".join(about.values()))
    rounds, began = draw(arguments.rounds, arguments.seed, arguments.ray), time.time()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        runs = Path(folder) / "runs"
        runs.mkdir()
        with contextlib.redirect_stdout(io.StringIO()):
            shards = prepare_text(Path(folder))
        tally = play(rounds, runs, shards, partial(print, flush=True))
    print("\n".join(summary(tally, time.time() - began)))
    if arguments.json:
        arguments.json.write_text(json.dumps({**about, **vars(tally)}, indent=1) + "\n")
    return 1 if any(tally.faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
