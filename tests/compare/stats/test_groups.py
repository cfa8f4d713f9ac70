"""Against the closed forms for one and two degrees of freedom, and printed tables."""

from __future__ import annotations

import math

import pytest

from gpt2dist.compare.stats.groups import below, confidence_interval, t_quantile, t_tail, welch

# Upper quantiles: NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.6.7.2.
TABLE = {
    (1, 0.05): 6.314, (1, 0.025): 12.706, (2, 0.01): 6.965, (3, 0.025): 3.182, (5, 0.005): 4.032,
    (9, 0.05): 1.833, (10, 0.025): 2.228, (20, 0.01): 2.528, (30, 0.025): 2.042,
    (100, 0.001): 3.174,
}  # fmt: skip


@pytest.mark.parametrize("t", [-30.0, -2.0, 0.0, 0.01, 0.5, 1.0, 3.0, 25.0, 1e4])
def test_tail_equals_the_closed_forms_of_one_and_two_degrees_of_freedom(t):
    # P(T > t) by the mirrored arctangent, so that small tails keep their digits.
    cauchy = math.atan2(1, t) / math.pi
    assert t_tail(t, 1) == pytest.approx(cauchy, rel=1e-12)
    root = math.sqrt(2 + t * t)
    two = 1 / (root * (root + t)) if t >= 0 else (1 - t / root) / 2
    assert t_tail(t, 2) == pytest.approx(two, rel=1e-12)


@pytest.mark.parametrize(("df", "tail"), TABLE)
def test_quantiles_are_those_of_the_printed_table(df, tail):
    assert t_quantile(tail, df) == pytest.approx(TABLE[df, tail], abs=6e-4)


def test_many_degrees_of_freedom_are_the_normal_distribution():
    assert t_tail(1.96, 1e7) == pytest.approx(math.erfc(1.96 / math.sqrt(2)) / 2, rel=1e-5)


def test_interval_of_a_worked_example():
    # Mean 5, standard deviation 1 and four values: 5 +- 3.182 / 2.
    values = [5 - math.sqrt(1.5), 5.0, 5.0, 5 + math.sqrt(1.5)]
    found = confidence_interval(values)
    assert (found.low, found.high) == pytest.approx((5 - 1.591, 5 + 1.591), abs=5e-4)
    assert confidence_interval([5.0]) is None


def test_welch_with_equal_sizes_and_spreads_is_the_pooled_t_test():
    """There Satterthwaite's degrees of freedom are 2n - 2, and t is d / (s sqrt(2 / n))."""
    lower = [1.0, 2.0, 3.0]
    found = welch(lower, [value + 2 for value in lower])
    assert (found.t, found.df) == pytest.approx((2 / math.sqrt(2 / 3), 4))
    assert found.p == pytest.approx(t_tail(found.t, 4))


def test_welch_without_spread_or_seeds_says_nothing():
    assert welch([1.0], [2.0, 3.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


def test_mean_below_a_target_as_the_speedrun_rules_ask():
    # t = (3.28 - 3.278) / (0.001 / sqrt(3)) with two degrees of freedom.
    found = below([3.277, 3.278, 3.279], 3.28)
    t = 0.002 / (0.001 / math.sqrt(3))
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx((1 - t / math.sqrt(2 + t * t)) / 2)
    assert below([3.28, 3.28], 3.3) is None
