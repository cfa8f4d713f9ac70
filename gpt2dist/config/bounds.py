"""The bounds that stand beside the fields of the config, and the one checker that reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, get_type_hints

from gpt2dist.human import UNPRINTABLE, holds_password, printable, without_credentials

LONGEST_SHOWN = 80
"Characters of a value in an error."


@dataclasses.dataclass(frozen=True)
class Bound:
    """Numbers from `low` to `high`; an open end does not belong to it."""

    low: float
    high: float
    says: str
    "What a value below must do."
    why: str
    "Nothing above `high` can be meant."
    open_low: bool = False
    open_high: bool = False

    def problem(self, value: float) -> str | None:
        """What is wrong with `value`, as the end of a sentence."""
        if value > self.high or (self.open_high and value == self.high):
            return f"must be at most {self.high:,.10g} ({self.why})" if self.why else self.says
        if value >= self.low and not (self.open_low and value == self.low):
            return None
        return self.says  # NaN ends here


@dataclasses.dataclass(frozen=True)
class AnyText:
    """Many lines, one or none, as long as a file can hold them."""

    def problem(self, value: str) -> str | None:
        try:
            value.encode()
        except UnicodeEncodeError:
            return "is not UTF-8 text"
        return None


@dataclasses.dataclass(frozen=True)
class OneLine:
    """A name, a path or an address: written to files that others read, so without a password."""

    instead: str = "the environment"
    "Where a password is to be given."

    def problem(self, value: str) -> str | None:
        if not value.strip():
            return "must not be empty"
        if UNPRINTABLE.search(value):
            return "must be one line of UTF-8 text, without control characters"
        if len(value.encode()) >= 4096 or max(len(s.encode()) for s in value.split("/")) > 255:
            return "is too long: names of files have at most 255 bytes, paths 4,095"
        if holds_password(value):
            return f"holds a password, which would be written beside the run: use {self.instead}"
        return None


TextRule = AnyText | OneLine


def at_least(low: int, *, most: float, why: str) -> Bound:
    return Bound(low, most, f"must be at least {low}", why)


def positive(*, most: float, why: str) -> Bound:
    return Bound(0, most, "must be a positive number", why, open_low=True)


def not_negative(*, most: float, why: str) -> Bound:
    return Bound(0, most, "must not be negative", why)


def share(*, below_one: bool = False) -> Bound:
    says = "must be at least 0 and below 1" if below_one else "must be between 0 and 1"
    return Bound(0, 1, says, "", open_high=below_one)


def problems(config: Any, prefix: str = "") -> Iterator[str]:
    """One line for each value of a config, or a section of it, that is out of its bounds."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value, path = getattr(config, name), f"{prefix}{name}"
        if dataclasses.is_dataclass(value):
            yield from problems(value, f"{path}.")
        elif value is not None:
            yield from value_problems(hint, value, path)


def value_problems(hint: Any, value: Any, path: str) -> Iterator[str]:
    """The same for one value of the type `hint`."""
    for bound in bounds_of(hint):
        problem = bound.problem(value)
        if problem:
            yield f"{path}={shown(value)} {problem}"


def bounds_of(hint: Any) -> list[Bound | TextRule]:
    """The bounds that a type is annotated with, also inside `... | None`."""
    inner = [bound for part in getattr(hint, "__args__", ()) for bound in bounds_of(part)]
    own = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Bound | TextRule)]
    return own + inner


def shown(value: Any) -> str:
    """A value as it was written, but no password, no control character, no hundreds of digits."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"{Decimal(value):.3g}"
    text = printable(without_credentials(str(value)))
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
