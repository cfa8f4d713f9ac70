"""Student's t distribution and what is tested with it: means of seeds, and their differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Test:
    """Whether one mean lies below another mean, or below a number."""

    difference: float
    "The other mean (or the number) minus this one: positive where this one is lower."
    t: float
    df: float
    p: float
    "One-sided: how often chance alone would show so large a difference."


def t_tail(t: float, df: float) -> float:
    """P(T > t) = I_x(df/2, 1/2) / 2 for t >= 0, x = df / (df + t^2): DLMF 8.17, 26.7.1 of A&S."""
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    upper = incomplete_beta(df / 2, 0.5, df / (df + t * t)) / 2
    return upper if t >= 0 else 1 - upper


@cache
def t_quantile(tail: float, df: float) -> float:
    """The t that is exceeded with probability `tail`, 0 < tail <= 0.5."""
    low, high = 0.0, 1.0
    while t_tail(high, df) > tail:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > tail else (low, middle)
    return (low + high) / 2


def confidence_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Mean and two-sided t interval of a normal sample; None below two values."""
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = t_quantile((1 - confidence) / 2, len(values) - 1) * error
    return Interval(mean, mean - reach, mean + reach)


def welch(lower: Sequence[float], higher: Sequence[float]) -> Test | None:
    """Welch's test that the mean of `lower` is below that of `higher`, variances unequal.

    B. L. Welch, Biometrika 34 (1947) 28-35; degrees of freedom after Satterthwaite, Biometrics
    Bulletin 2 (1946) 110-114. None below two values each, or where neither sample varies.
    """
    if len(lower) < 2 or len(higher) < 2:
        return None
    a, b = (statistics.variance(sample) / len(sample) for sample in (lower, higher))
    if a + b == 0:
        return None
    difference = statistics.fmean(higher) - statistics.fmean(lower)
    t = difference / math.sqrt(a + b)
    df = (a + b) ** 2 / (a * a / (len(lower) - 1) + b * b / (len(higher) - 1))
    return Test(difference, t, df, t_tail(t, df))


def below(values: Sequence[float], target: float) -> Test | None:
    """One-sample t test that the mean is below `target`; None below two values or any spread."""
    if len(values) < 2 or statistics.stdev(values) == 0:
        return None
    difference = target - statistics.fmean(values)
    df = len(values) - 1
    t = difference / (statistics.stdev(values) / math.sqrt(len(values)))
    return Test(difference, t, df, t_tail(t, df))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised I_x(a, b): the continued fraction of DLMF 8.17.22, where it converges fast."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    # Modified Lentz: Thompson and Barnett, J. Comput. Phys. 64 (1986) 490-509.
    fraction, c, d = 1.0, 1.0, 0.0
    for n in range(1, 1000):
        numerator = _coefficient(n, a, b, x)
        d = 1 / ((1 + numerator * d) or 1e-300)
        c = (1 + numerator / c) or 1e-300
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front / (a * fraction)


def _coefficient(n: int, a: float, b: float, x: float) -> float:
    half = n // 2
    top = -(a + half) * (a + b + half) if n % 2 else half * (b - half)
    return top * x / ((a + n - 1) * (a + n))
