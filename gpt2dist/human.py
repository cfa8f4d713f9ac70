"""Durations, counts, dollars and tables as people read them, and what they must not read."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from urllib.parse import unquote

COUNT = re.compile(
    r"([+-]?(?:\d[\d_]*|\d{1,3}(?:,\d{3})+)(?:\.\d*)?(?:e[+-]?\d{1,6})?)([KMBT]?)", re.I
)
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"Controls, line ends and halves of characters (bytes that are no UTF-8)."
PASSWORD = re.compile(
    r"://[^:/\s@]*:\S*@|https?://[^/\s]+@"
    r"|[?&;][^=&;\s]*(?:pass|pwd|secret|token|credential|(?:api|access)_?key)[^=&;\s]*=",
    re.I,
)
"In an address: `user:password@`, any `user@` of a web server (it may be a token), `?password=`."


def human_duration(seconds: float) -> str:
    """`45s`, `3m20s`, `2h05m`, `3d04h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def human_count(count: float) -> str:
    """Three digits and a thousands letter: `950`, `5.32k`, `184k`, `1.24M`, `10.0B`."""
    value, letters = float(count), ["", "k", "M", "B", "T"]
    while abs(value) >= 999.5 and len(letters) > 1:
        value /= 1000
        letters.pop(0)
    if letters[0] == "":
        return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}{letters[0]}"


def parse_count(text: str) -> int:
    """The whole number that `10B`, `2.5k`, `1e9`, `1_000` or `1,000` stands for.

    Raises ValueError for anything else, also for numbers that are not whole.
    """
    from decimal import Decimal

    found = COUNT.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is no count; write it as 10B, 300M, 2.5k or 1e9")
    value = Decimal(re.sub("[_,]", "", found[1]))
    if value.adjusted() > 400:
        raise ValueError(f"{text!r} is no count: it has more than 400 digits")
    value = value.scaleb(3 * (" KMBT".index(found[2].upper() or " ")))
    if value != value.to_integral_value():
        raise ValueError(f"{text!r} is no whole number")
    return int(value)


def finite_number(text: str) -> float | None:
    """The number that a text is; None for any other text, for infinity and for NaN."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def printable(text: str) -> str:
    """One line that no terminal obeys: what UNPRINTABLE finds is spelled out, as in `\\x1b`."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def holds_password(text: str) -> bool:
    return PASSWORD.search(unquote(text)) is not None


def without_credentials(text: str) -> str:
    """`text` with `user:password@` and query strings cut out of every URI in it."""
    text = re.sub(r"(://)(?:[^/\s]*|[^:/\s]*:\S*)@", r"\1", text)
    return re.sub(r"(\w://[^\s?]*)\?\S*", r"\1", text)


def usd(dollars: float) -> str:
    """`$1,234.50`, `$0.42`; below ten cents two digits that say something: `$0.0042`."""
    if 0 < dollars < 0.0995:
        return f"${dollars:.{1 - math.floor(math.log10(dollars))}f}"
    return f"${dollars:,.2f}"


def columns(rows: Sequence[Sequence[str]], left: Collection[int] = ()) -> list[str]:
    """One line per row, cells aligned to the right, those of the columns `left` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lefts = {index % len(widths) for index in left}
    return [
        "  ".join(
            cell.ljust(width) if index in lefts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
