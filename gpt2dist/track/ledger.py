"""Every second and dollar of a run, over all its attempts.

Rows of rolled-back steps disappear from `metrics.jsonl`; the money spent on them stays here.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.disk import locked, write_atomically
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.human import finite_number
from gpt2dist.run_files import LEDGER_LOCK
from gpt2dist.track.attempts import (
    Attempt,
    Clock,
    Spent,
    known_attempts,
    read_attempts,
    total_spent,
)

PRICE_VARIABLE = "GPT2DIST_USD_PER_HOUR"
BILLED_VARIABLE = "GPT2DIST_BILLED_SINCE"
"Unix time at which a rented machine's bill began; `gpt2dist launch` sets it there."
OWN_MACHINE = "own machine"
"The price source of a machine that nobody gave a price: its dollars are unknown, not none."

HEARTBEAT_SECONDS = 2.0
"kill -9 loses at most this much of the account; each heartbeat costs one small fsynced write."
LOCK_SECONDS = 5.0
SMALLEST_LOSS = 1e-3
"Seconds or dollars; a ledger that lacks less of what a checkpoint vouches for lacks nothing."


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


def no_price(wish: str) -> BadInput:
    """What to say of a wish in dollars, such as `budget.usd=5`, where no price is known."""
    return BadInput(
        f"{wish} cannot be kept: this machine has no price; set cluster.usd_per_hour (0 if it is "
        f"free), {PRICE_VARIABLE}, or cluster.watts and cluster.usd_per_kwh"
    )


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
    known = Account(known_attempts(ledger)).last_seen_here()
    return min(started_at, max(since, known))


def shortfall(path: Path, vouched: Spent, source: str, attempt: Attempt) -> Attempt | None:
    """What the ledger lacks of what `source` vouches for, as an attempt before this one, if any."""
    known = total_spent(known_attempts(path))
    seconds, usd = vouched.seconds - known.seconds, vouched.usd - known.usd
    if seconds < SMALLEST_LOSS and usd < SMALLEST_LOSS:
        return None
    seconds, usd = max(seconds, SMALLEST_LOSS), max(usd, 0.0)
    unpriced = usd == 0 and attempt.price_source == OWN_MACHINE
    return replace(
        attempt,
        attempt_id=f"lost-{attempt.attempt_id}",
        started_at=attempt.started_at - seconds,
        last_seen_at=attempt.started_at,
        machines=1,
        usd_per_hour=3600 * usd / seconds,
        price_source=OWN_MACHINE if unpriced else source,
        host=source,
    )


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
    def spent(self) -> Spent:
        """By all attempts, up to the last heartbeat."""
        return total_spent(self.attempts)

    @property
    def seconds(self) -> float:
        return self.spent.seconds

    @property
    def usd(self) -> float:
        """On all machines."""
        return self.spent.usd

    @property
    def known_usd(self) -> float | None:
        """As `usd`; None where any attempt ran on a machine that nobody gave a price."""
        unpriced = any(attempt.price_source == OWN_MACHINE for attempt in self.attempts)
        return None if unpriced else self.usd

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
        return total_spent([*self.attempts[:-1], self.attempts[-1].until(now)])


class Ledger(Account):
    """The account of a run that is going on.

    The driver keeps it from the command on, rank 0 while it trains: each reads what the other has
    written, under a lock, before it writes, and takes the later of two ends. So one may die, or
    be busy for long, and the time counts on.
    """

    def __init__(self, path: Path, attempts: Sequence[Attempt], clock: Clock | None = None) -> None:
        super().__init__(attempts)
        self.path = path
        self._clock = clock or Clock()
        self._origin = (self.attempts[-1].last_seen_at, self._clock.steady())
        "One moment as Unix time and on the steady clock."
        self._written_at = -math.inf
        self._one_thread = threading.RLock()

    @classmethod
    def open(
        cls,
        path: Path,
        attempt: Attempt,
        *,
        lost: Attempt | None = None,
        clock: Clock | None = None,
    ) -> Ledger:
        """Continues the attempt of that id, or adds it; time between two openings of one counts.

        Workers restarted by a living driver share its attempt: the machines were paid meanwhile.
        `lost`, if any, is counted too. Raises RunFailure when the file is damaged: money is never
        silently forgotten.
        """
        clock = clock or Clock()
        attempts = known_attempts(path) + ([lost] if lost else [])
        own = [a for a in attempts if a.attempt_id == attempt.attempt_id]
        last = own[-1] if own else attempt.begun(clock)
        if last.boot is not None and last.boot == clock.boot:
            last = last.until(last.started_at + clock.steady() - last.began_after_boot_s)
        current = [last]
        if (last.machines, last.usd_per_hour) != (attempt.machines, attempt.usd_per_hour):
            # What was paid so far keeps its price; the new price counts from the last sign of life.
            current.append(attempt.after(last))
        ledger = cls(path, [*(a for a in attempts if a not in own), *own[:-1], *current], clock)
        ledger.heartbeat(force=True)
        return ledger

    def now(self) -> float:
        """Unix time as of the attempt's start: it runs on evenly, however the clock is set."""
        unix_time, steady = self._origin
        return unix_time + self._clock.steady() - steady

    def heartbeat(self, force: bool = False, every: float = HEARTBEAT_SECONDS) -> None:
        """Counts the time up to now; writes at most every so many seconds unless forced."""
        with self._one_thread, contextlib.ExitStack() as stack:
            if not force and self.now() - self._written_at < every:
                return
            if self._written_at > -math.inf and not self.path.parent.is_dir():
                return  # moved away in mid-run: it is not made again
            with contextlib.suppress(RunFailure):  # of a machine that died while it wrote
                stack.enter_context(locked(self.path.with_name(LEDGER_LOCK), LOCK_SECONDS))
            self._read_others()
            self.attempts[-1] = self.attempts[-1].until(self.now())
            records = [asdict(attempt) for attempt in self.attempts]
            text = json.dumps({"attempts": records}, indent=1) + "\n"
            # A folder that was moved away in mid-run is not made again.
            is_first = self._written_at == -math.inf
            write_atomically(self.path, text, make_folder=is_first)
            self._written_at = self.attempts[-1].last_seen_at

    def recount(self, machines: int) -> None:
        """The current attempt has had so many machines since it began."""
        with self._one_thread:
            self.attempts[-1] = replace(self.attempts[-1], machines=machines)
            self.heartbeat(force=True)

    @contextlib.contextmanager
    def kept(self, until: Callable[[], bool]) -> Iterator[None]:
        """Heartbeats from a thread, while the block is busy and rank 0 does not write.

        For the driver, from the command to the end of the run: `until` is true once rank 0 has
        closed its account. A full disk stops nothing here; the next heartbeat tries again.
        """
        over = threading.Event()

        def keep() -> None:
            while not over.wait(HEARTBEAT_SECONDS / 2) and not until():
                with contextlib.suppress(RunFailure), self._one_thread:
                    self._read_others()
                    self.heartbeat(every=HEARTBEAT_SECONDS / 2)

        thread = threading.Thread(target=keep, name="ledger", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with contextlib.suppress(RunFailure):
                if not until():
                    self.heartbeat(force=True)

    def _read_others(self) -> None:
        """Take over what other writers of the file have seen since."""
        try:
            there = read_attempts(self.path)
        except (BadInput, RunFailure):
            return  # lost or damaged since it was opened: what is known here is written again
        merged = {(a.attempt_id, a.started_at): a for a in there}
        for key, own in {(a.attempt_id, a.started_at): a for a in self.attempts}.items():
            other = merged.get(key, own)
            merged[key] = own.until(other.last_seen_at)
        current = self.attempts[-1].attempt_id
        self.attempts = sorted(merged.values(), key=lambda a: a.attempt_id == current)
        self._written_at = max(
            self._written_at, *(a.last_seen_at for a in there if a.attempt_id == current), -math.inf
        )
