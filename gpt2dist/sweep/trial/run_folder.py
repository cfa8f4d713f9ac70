"""What one trial's run folder says: how far it is, what it learned, what it cost."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

from gpt2dist.errors import BadInput
from gpt2dist.run_files import DRIVER_LOCK, LEDGER_FILE, ROWS_FILE, Tail
from gpt2dist.sweep.cost.amounts import Amounts
from gpt2dist.track.ledger import Account
from gpt2dist.track.summary import read_summary


class TrialFolder:
    """Follows the files of a trial, whoever writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.evaluations: list[dict[str, Any]] = []
        "Rows with a validation loss, one per step."
        self.first: dict[str, Any] | None = None
        self.last: dict[str, Any] | None = None
        self.loss: float | None = None
        self._tail = Tail(path / ROWS_FILE)

    def refresh(self) -> None:
        for row in self._tail.lines():
            if self.last is not None and row["step"] <= self.last["step"]:
                self._roll_back(row["step"])
            self.first = self.first or row
            self.last = row
            self.loss = row.get("loss") or self.loss
            if row.get("val_loss") is not None:
                self.evaluations.append(row)

    @property
    def tokens(self) -> int:
        return self.last["tokens"] if self.last else 0

    @property
    def val_loss(self) -> float | None:
        return self.evaluations[-1]["val_loss"] if self.evaluations else None

    def spent(self, share: float) -> Amounts:
        """Over all attempts, up to the last heartbeat; the trial has `share` of its machines."""
        path = self.path / LEDGER_FILE
        if not path.exists():
            return Amounts()
        account = Account.read(path)
        machine_seconds = sum(a.seconds * a.machines for a in account.attempts)
        return Amounts(account.usd, machine_seconds * share / 3600, self.tokens)

    def summary(self) -> dict[str, Any] | None:
        """None until the run has ended once."""
        try:
            return read_summary(self.path)
        except BadInput:
            return None

    def is_busy(self) -> bool:
        """A process trains here, or is still saving."""
        try:
            with (self.path / DRIVER_LOCK).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
        return False

    def _roll_back(self, step: int) -> None:
        self.evaluations = [row for row in self.evaluations if row["step"] < step]
