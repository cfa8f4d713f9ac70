"""The order of training windows."""

import numpy as np
import pytest

from gpt2dist.data.serve.order import window_index


@pytest.mark.parametrize("windows", [1, 2, 3, 4, 5, 7, 16, 17, 97, 256, 1000, 1021, 65537])
def test_every_epoch_holds_every_window_once(windows):
    for epoch in (0, 1, 5):
        order = window_index(11, np.arange(windows) + epoch * windows, windows)
        assert np.array_equal(np.sort(order), np.arange(windows))


def test_order_differs_between_epochs_and_seeds():
    places = np.arange(1000)
    first = window_index(0, places, 1000)
    for other in (window_index(0, places + 1000, 1000), window_index(1, places, 1000)):
        # Two independent orders of 1000 agree in one place on average.
        assert (first == other).sum() < 10


def test_order_is_the_same_for_any_way_of_asking():
    whole = window_index(3, np.arange(2500), 1000)
    in_reverse = [int(window_index(3, np.array([i]), 1000)[0]) for i in reversed(range(2500))]
    assert whole.tolist() == in_reverse[::-1]
    assert np.array_equal(window_index(3, np.arange(2500).reshape(50, 50), 1000).ravel(), whole)


def test_order_looks_random():
    windows = 100_003
    order = window_index(5, np.arange(windows), windows)
    # Standard error of a correlation of n independent pairs is 1 / sqrt(n) = 0.003.
    assert abs(np.corrcoef(np.arange(windows), order)[0, 1]) < 0.013
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.013
    assert 0.45 < np.mean(order[: windows // 10] < windows / 2) < 0.55


def test_small_permutations_are_all_reached():
    seen = {tuple(window_index(seed, np.arange(3), 3)) for seed in range(200)}
    assert len(seen) == 6


def test_golden_values_never_change():
    """A checkpoint's cursor means something only as long as these values stay what they are."""
    assert window_index(0, np.arange(8), 10).tolist() == GOLDEN_10
    assert window_index(42, np.arange(4) + 3_000_000_000, 9_765_625).tolist() == GOLDEN_LARGE


def test_no_windows_is_an_error():
    with pytest.raises(ValueError, match="windows=0"):
        window_index(0, np.arange(1), 0)


GOLDEN_10 = [1, 0, 9, 8, 5, 2, 7, 4]
GOLDEN_LARGE = [850228, 4063991, 215448, 2459140]
