"""Every second and dollar of a run, over all its attempts.

Rows of rolled-back steps disappear from `metrics.jsonl`; the money spent on them stays here.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.disk import write_atomically
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.human import finite_number

PRICE_VARIABLE = "GPT2DIST_USD_PER_HOUR"
BILLED_VARIABLE = "GPT2DIST_BILLED_SINCE"
"Unix time at which a rented machine's bill began; `gpt2dist launch` sets it there."
OWN_MACHINE = "own machine"
"The price source of a machine that nobody gave a price: its dollars are unknown, not none."

HEARTBEAT_SECONDS = 2.0
"kill -9 loses at most this much of the account; each heartbeat costs one small fsynced write."


@dataclass(frozen=True)
class Spent:
    seconds: float
    usd: float


@dataclass(frozen=True)
class Attempt:
    """One stretch of time at one price; a driver that changes its machines starts another."""

    attempt_id: str
    started_at: float
    "Unix time, as is last_seen_at."
    last_seen_at: float
    machines: int
    usd_per_hour: float
    "Of one machine."
    price_source: str
    host: str | None = None

    @classmethod
    def starting(
        cls, attempt_id: str, at: float, price: tuple[float, str], machines: int = 1
    ) -> Attempt:
        """An attempt that has cost nothing yet; `price` is that of `price_usd_per_hour`."""
        return cls(attempt_id, at, at, machines, *price)

    @property
    def seconds(self) -> float:
        return max(0.0, self.last_seen_at - self.started_at)

    @property
    def usd(self) -> float:
        return self.seconds * self.usd_per_second

    @property
    def usd_per_second(self) -> float:
        return self.machines * self.usd_per_hour / 3600


def price_usd_per_hour(cluster: ClusterConfig, environ: Mapping[str, str]) -> tuple[float, str]:
    """Price of one machine and where it comes from: config, environment, or the own machine's."""
    if cluster.usd_per_hour is not None:
        return cluster.usd_per_hour, "config"
    text = environ.get(PRICE_VARIABLE, "").strip()
    if text:
        price = finite_number(text)
        if price is None or price < 0:
            raise BadInput(
                f"{PRICE_VARIABLE}={text!r} is not a price; set dollars per hour and machine, "
                "such as 1.10, or unset it"
            )
        return price, "environment"
    return cluster.own_usd_per_hour or (0.0, OWN_MACHINE)


def paid_since(started_at: float, environ: Mapping[str, str], ledger: Path) -> float:
    """Unix time from which an attempt pays for its machines.

    The command's start, or earlier on a rented machine that says since when it is billed: setup
    and waiting are paid for too. Never time of this machine that the ledger holds already.
    """
    text = environ.get(BILLED_VARIABLE, "").strip()
    if not text:
        return started_at
    since = finite_number(text)
    if since is None:
        raise BadInput(f"{BILLED_VARIABLE}={text!r} is not a Unix time; unset it")
    known = Account.read(ledger).last_seen_here() if ledger.exists() else 0.0
    return min(started_at, max(since, known))


class Account:
    """What the attempts of one run have cost together."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self.attempts = list(attempts)
        "The last one is the current one."

    @classmethod
    def read(cls, path: Path) -> Account:
        """The account as last written; raises BadInput when there is none yet."""
        return Account(read_attempts(path))

    @property
    def attempt_count(self) -> int:
        """Starts of the run, however often the price changed in between."""
        return len({attempt.attempt_id for attempt in self.attempts})

    @property
    def seconds(self) -> float:
        """Of all attempts, up to the last heartbeat."""
        return sum(attempt.seconds for attempt in self.attempts)

    @property
    def usd(self) -> float:
        """Of all attempts and machines, up to the last heartbeat."""
        return sum(attempt.usd for attempt in self.attempts)

    def last_seen_here(self) -> float:
        """Unix time up to which this machine is in the account; 0.0 where it is not at all.

        What ran elsewhere, such as at home on a machine with a price of its own, paid nothing of
        this one's bill. Of several machines any may hold rank 0, whose name the account has.
        """
        here = (None, socket.gethostname())  # attempts of early versions name no host
        seen = [
            a.last_seen_at
            for a in self.attempts
            if a.host in here or (a.machines > 1 and a.price_source == "environment")
        ]
        return max(seen, default=0.0)

    @property
    def usd_per_hour(self) -> float:
        """What all machines of the current attempt cost together."""
        return self.attempts[-1].usd_per_second * 3600

    def spent_at(self, now: float) -> Spent:
        """What the run has cost if it lives until `now` (Unix time); nothing is written."""
        current = self.attempts[-1]
        extra = max(0.0, now - current.last_seen_at)
        return Spent(self.seconds + extra, self.usd + extra * current.usd_per_second)


class Ledger(Account):
    """The account of a run that is going on. One process writes it at a time: rank 0."""

    def __init__(
        self, path: Path, attempts: Sequence[Attempt], clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(attempts)
        self.path = path
        self._clock = clock
        self._skew_seconds = 0.0
        self._saved_at: float | None = None

    @classmethod
    def open(
        cls, path: Path, attempt: Attempt, *, clock: Callable[[], float] = time.time
    ) -> Ledger:
        """Continues the attempt of that id, or adds it; time between two openings of one counts.

        Workers restarted by a living driver share its attempt: the machines were paid meanwhile.
        Raises RunFailure when the file is damaged: money is never silently forgotten.
        """
        attempts = read_attempts(path) if path.exists() else []
        fresh = replace(attempt, host=socket.gethostname())
        last = attempts[-1] if attempts else None
        if last is None or last.attempt_id != fresh.attempt_id:
            attempts.append(fresh)
        elif (last.machines, last.usd_per_hour) != (fresh.machines, fresh.usd_per_hour):
            # What was paid so far keeps its price; the new price counts from the last sign of life.
            since = last.last_seen_at
            attempts.append(replace(fresh, started_at=since, last_seen_at=since))
        ledger = cls(path, attempts, clock)
        ledger.heartbeat(force=True)
        return ledger

    def now(self) -> float:
        """Unix time that never runs backwards, even when the machine's clock is set back."""
        now, seen = self._clock() + self._skew_seconds, self.attempts[-1].last_seen_at
        self._skew_seconds += max(0.0, seen - now)
        return max(now, seen)

    def heartbeat(self, force: bool = False) -> None:
        """Counts the time up to now; writes at most every HEARTBEAT_SECONDS unless forced."""
        now = self.now()
        self.attempts[-1] = replace(self.attempts[-1], last_seen_at=now)
        if force or self._saved_at is None or now - self._saved_at >= HEARTBEAT_SECONDS:
            records = [asdict(attempt) for attempt in self.attempts]
            text = json.dumps({"attempts": records}, indent=1) + "\n"
            # A folder that was moved away in mid-run is not made again.
            write_atomically(self.path, text, make_folder=self._saved_at is None)
            self._saved_at = now


def read_attempts(path: Path) -> list[Attempt]:
    """The attempts of a ledger file; raises RunFailure naming it when it is damaged."""
    try:
        records = json.loads(path.read_text())["attempts"]
        attempts = [Attempt(**record) for record in records]
        if not attempts or not all(_is_sound(attempt) for attempt in attempts):
            raise ValueError("a record is missing or holds a wrong type")
    except FileNotFoundError:
        raise BadInput(f"no ledger at {path}; is this the folder of a run?") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFailure(
            f"{path} is damaged ({error}); what the run has cost is written there: repair it, "
            "or move it away to count from zero"
        ) from None
    return attempts


def _is_sound(attempt: Attempt) -> bool:
    numbers = (attempt.started_at, attempt.last_seen_at, attempt.machines, attempt.usd_per_hour)
    texts = (attempt.attempt_id, attempt.price_source)
    return all(
        isinstance(number, (int, float)) and math.isfinite(number) for number in numbers
    ) and all(isinstance(text, str) for text in texts)
