"""Dollars, machine-hours and tokens together: limits, grants, and what ledgers say was spent."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.run_files import LEDGER_FILE
from gpt2dist.track.attempts import Attempt, total_spent
from gpt2dist.track.ledger import (
    BILLED_VARIABLE,
    Account,
    Ledger,
    paid_since,
    price_usd_per_hour,
)


@dataclass(frozen=True)
class Amounts:
    usd: float = 0.0
    hours: float = 0.0
    "Machine-hours."
    tokens: float = 0.0

    @classmethod
    def spent(cls, attempts: Sequence[Attempt], share: float = 1.0) -> Amounts:
        """By attempts of a ledger up to the last heartbeat, on `share` of their machines."""
        spent = total_spent(attempts)
        return cls(spent.usd, spent.machine_seconds * share / 3600)

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def without(self, used: Amounts) -> Amounts:
        """What is left of limits; without a limit there is always more."""
        pairs = zip(astuple(self), astuple(used))
        return Amounts(*(math.inf if math.isinf(a) else a - b for a, b in pairs))

    def times(self, factor: float) -> Amounts:
        return Amounts(*(a * factor for a in astuple(self)))

    def at_least(self, other: Amounts) -> Amounts:
        return Amounts(*(max(a, b) for a, b in zip(astuple(self), astuple(other))))

    def covers(self, other: Amounts) -> bool:
        return all(a >= b for a, b in zip(astuple(self), astuple(other)))


def limits(
    usd: float | None = None, hours: float | None = None, tokens: float | None = None
) -> Amounts:
    """Infinite where a budget says nothing."""
    return Amounts(*(math.inf if value is None else float(value) for value in (usd, hours, tokens)))


def grant(free: Amounts, need: Amounts, slots: int) -> Amounts | None:
    """What a new trial may spend of what is free; None when it needs more than there is.

    Everyone who could start now gets an equal part, and nobody less than it needs: the sum of all
    grants never passes the budget, so no trial can, whatever becomes of the sweep's driver.
    """
    if not free.covers(need):
        return None
    return free.times(1 / max(1, slots)).at_least(need)


class SweepLedger:
    """The ledger of a sweep's folder: one attempt for each command on a rented machine.

    Trials account for their shares; booting, installing, preparing data, starting Ray and idle
    shares are in no trial's account. On one's own machine there is no ledger.
    """

    def __init__(self, folder: Path) -> None:
        """As far as earlier commands have brought it; RunFailure where the file is damaged."""
        self._path = folder / LEDGER_FILE
        self._account = Account.read(self._path) if self._path.exists() else None
        self._ledger: Ledger | None = None

    def open(self, cluster: ClusterConfig, machines: int, environ: Mapping[str, str]) -> None:
        """Begin to pay, from $GPT2DIST_BILLED_SINCE on; without it this does nothing."""
        if not environ.get(BILLED_VARIABLE, "").strip():
            return
        now = time.time()
        attempt = Attempt.starting(
            f"sweep-{now:.3f}-{os.getpid()}",
            paid_since(now, environ, self._path),
            price_usd_per_hour(cluster, environ),
            machines,
        )
        self._account = self._ledger = Ledger.open(self._path, attempt)

    def heartbeat(self, force: bool = False) -> None:
        """Count the time up to now; call it often. It is written every two seconds, or forced."""
        if self._ledger is not None:
            self._ledger.heartbeat(force)

    @property
    def amounts(self) -> Amounts:
        return Amounts.spent(self._account.attempts if self._account else ())

    def holds(self, attempt: Attempt) -> bool:
        """Whether a trial's attempt began on machines that this ledger pays."""
        known = self._account.attempts if self._account else ()
        return any(attempt.began_during(own) for own in known)
