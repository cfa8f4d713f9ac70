"""The bounds that stand beside the fields of the config, and the one checker that reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, get_type_hints


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


class NotEmpty:
    """A text that must say something."""

    def problem(self, value: str) -> str | None:
        return None if value.strip() else "must not be empty"


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


def bounds_of(hint: Any) -> list[Bound | NotEmpty]:
    """The bounds that a type is annotated with, also inside `... | None`."""
    inner = [bound for part in getattr(hint, "__args__", ()) for bound in bounds_of(part)]
    own = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, (Bound, NotEmpty))]
    return own + inner


def shown(value: Any) -> str:
    """A number as it was written, but never hundreds of digits."""
    return (
        f"{Decimal(value):.3g}" if isinstance(value, int) and abs(value) >= 10**20 else str(value)
    )
