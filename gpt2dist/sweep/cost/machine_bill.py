"""What the rented machines of a sweep cost from their boot on, whatever its trials do."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from gpt2dist.config.schema import ClusterConfig
from gpt2dist.run_files import LEDGER_FILE
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.track.ledger import (
    BILLED_VARIABLE,
    Account,
    Attempt,
    Ledger,
    paid_since,
    price_usd_per_hour,
)


class Bill:
    """The ledger of a sweep's folder: one attempt for each command on a rented machine.

    Trials account for their shares; booting, installing, preparing data, starting Ray and idle
    shares are in no trial's account. On one's own machine there is no bill.
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
        """All attempts up to the last heartbeat; no tokens."""
        if self._account is None:
            return Amounts()
        machine_seconds = sum(a.seconds * a.machines for a in self._account.attempts)
        return Amounts(self._account.usd, machine_seconds / 3600)
