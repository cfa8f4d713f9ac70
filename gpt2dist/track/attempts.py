"""The attempts of a run: what is written of each, and what they have cost together.

Within an attempt the time is that of a clock which nobody sets (CLOCK_MONOTONIC); the wall clock,
which NTP and people set, only says when the attempt began. The steady clock stands still while a
machine is suspended, and so does the bill: a suspended machine draws next to nothing, and clouds do
not charge for the GPUs of one.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpt2dist.errors import BadInput, RunFailure


def boot_id() -> str | None:
    """Which boot of which machine this is; None where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


@dataclass(frozen=True)
class Clock:
    """The clocks of this machine."""

    unix: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    "Never set; one for all processes from a boot to the next."
    boot: str | None = field(default_factory=boot_id)


@dataclass(frozen=True)
class Spent:
    seconds: float
    machine_seconds: float
    usd: float


@dataclass(frozen=True)
class Attempt:
    """One stretch of time at one price; a driver that changes its machines starts another."""

    attempt_id: str
    started_at: float
    "Unix time."
    last_seen_at: float
    "`started_at` and the seconds since, which are counted on a clock that nobody sets."
    machines: int
    usd_per_hour: float
    "Of one machine."
    price_source: str
    host: str | None = None
    boot: str | None = None
    "By which attempts of one machine know each other; early versions did not write it."
    began_after_boot_s: float = 0.0
    "`started_at` on that boot's steady clock."

    @classmethod
    def starting(
        cls, attempt_id: str, at: float, price: tuple[float, str], machines: int = 1
    ) -> Attempt:
        """An attempt that has cost nothing yet; `price` is that of `price_usd_per_hour`."""
        return cls(attempt_id, at, at, machines, *price)

    def begun(self, clock: Clock) -> Attempt:
        """It has been paid for on this machine from its start, which the wall clock tells."""
        so_far = max(0.0, clock.unix() - self.started_at)
        if clock.boot is not None:
            so_far = min(so_far, clock.steady())  # the clock was set since; no machine ran longer
        return replace(
            self,
            last_seen_at=self.started_at + so_far,
            host=socket.gethostname(),
            boot=clock.boot,
            began_after_boot_s=clock.steady() - so_far,
        )

    def after(self, last: Attempt) -> Attempt:
        """It goes on where a record of the same start, with another price, ends."""
        return replace(
            self,
            started_at=last.last_seen_at,
            last_seen_at=last.last_seen_at,
            host=socket.gethostname(),
            boot=last.boot,
            began_after_boot_s=last.ended_after_boot_s,
        )

    @property
    def seconds(self) -> float:
        return max(0.0, self.last_seen_at - self.started_at)

    @property
    def ended_after_boot_s(self) -> float:
        return self.began_after_boot_s + self.seconds

    @property
    def usd_per_second(self) -> float:
        return self.machines * self.usd_per_hour / 3600

    def until(self, unix_time: float) -> Attempt:
        """The same, seen until then; never for less time than before."""
        return replace(self, last_seen_at=max(self.last_seen_at, unix_time))

    def began_during(self, other: Attempt) -> bool:
        if self.boot is not None and self.boot == other.boot:
            begin, end = other.began_after_boot_s, other.ended_after_boot_s
            return begin <= self.began_after_boot_s <= end
        return other.started_at <= self.started_at <= other.last_seen_at


def total_spent(attempts: Sequence[Attempt]) -> Spent:
    """What attempts have cost together; time that two share on a machine is paid for once.

    So it is where the workers of a killed driver still save while the next one starts.
    """
    seconds = machine_seconds = usd = 0.0
    latest: dict[str, Attempt] = {}
    for attempt in sorted(attempts, key=lambda a: a.began_after_boot_s):
        new, machines, rate = attempt.seconds, attempt.machines, attempt.usd_per_second
        before = latest.get(attempt.boot) if attempt.boot else None
        if before is not None:
            shared = min(new, max(0.0, before.ended_after_boot_s - attempt.began_after_boot_s))
            new -= shared
            machine_seconds += shared * max(0, machines - before.machines)
            usd += shared * max(0.0, rate - before.usd_per_second)
        if attempt.boot and (
            before is None or before.ended_after_boot_s < attempt.ended_after_boot_s
        ):
            latest[attempt.boot] = attempt
        seconds += new
        machine_seconds += new * machines
        usd += new * rate
    return Spent(seconds, machine_seconds, usd)


def known_attempts(path: Path) -> list[Attempt]:
    """None yet, where there is no ledger."""
    return read_attempts(path) if path.exists() else []


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
            "or move it away: what the newest checkpoint vouches for is then counted"
        ) from None
    return attempts


def _is_sound(attempt: Attempt) -> bool:
    numbers = (attempt.started_at, attempt.last_seen_at, attempt.machines, attempt.usd_per_hour)
    texts = (attempt.attempt_id, attempt.price_source)
    return all(
        isinstance(number, (int, float)) and math.isfinite(number) for number in numbers
    ) and all(isinstance(text, str) for text in texts)
