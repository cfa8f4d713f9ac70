"""The order of training windows: a pure function of (seed, epoch, place in the epoch).

A Feistel network over the smallest even number of bits that holds all windows, walked until the
result is a window (cycle walking; Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
2002). It needs no memory per window and no library's random stream, so it is the same
everywhere and forever; tests pin its values.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 6
_MAX_WINDOWS = 1 << 48


def window_index(seed: int, positions: np.ndarray, windows: int) -> np.ndarray:
    """Window at each global position (int64, any shape), every window once per epoch.

    The epoch is `position // windows`; each epoch has its own permutation of [0, windows).
    """
    if not 0 < windows <= _MAX_WINDOWS:
        raise ValueError(f"windows={windows} must be between 1 and {_MAX_WINDOWS}")
    positions = np.asarray(positions, np.int64)
    epochs = (positions // windows).astype(np.uint64)
    places = (positions % windows).astype(np.uint64)
    half_bits = max(1, -(-(windows - 1).bit_length() // 2))
    keys = _round_keys(seed, epochs)
    result = _feistel(places, keys, half_bits)
    outside = result >= windows
    # The domain is less than 4 times the windows, so few walks are needed.
    while outside.any():
        result[outside] = _feistel(result[outside], keys[:, outside], half_bits)
        outside = result >= windows
    return result.astype(np.int64)


def _round_keys(seed: int, epochs: np.ndarray) -> np.ndarray:
    """uint64 [rounds, *epochs.shape]: one key per round, epoch and seed."""
    seed_key = _mix64(np.full((), seed & 0xFFFF_FFFF_FFFF_FFFF, np.uint64))
    epoch_key = _mix64(epochs ^ seed_key)
    return np.stack([_mix64(epoch_key + np.uint64(r + 1)) for r in range(_ROUNDS)])


def _feistel(values: np.ndarray, keys: np.ndarray, half_bits: int) -> np.ndarray:
    """A bijection of [0, 4**half_bits) for every key, element by element."""
    shift = np.uint64(half_bits)
    mask = np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix64(right ^ key) & mask)
    return (left << shift) | right


def _mix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014); wraps modulo 2**64."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
