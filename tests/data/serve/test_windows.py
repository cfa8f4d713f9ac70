"""Windows of a split."""

import numpy as np
import pytest

from gpt2dist.data.serve.windows import Windows
from gpt2dist.data.shards import load_dataset_folder
from gpt2dist.errors import BadInput


def test_windows_are_consecutive_tokens_of_one_shard(folder):
    windows = Windows(load_dataset_folder(folder), "train", context=16)
    expected = []
    for name in ("train-00000.bin", "train-00001.bin", "train-00002.bin"):
        tokens = np.fromfile(folder / name, "<u2")
        first = 0
        while first + 17 <= len(tokens):
            expected.append(tokens[first : first + 17])
            first += 16
    assert windows.count == len(expected) == 6 + 3 + 10
    assert np.array_equal(windows.gather(np.arange(windows.count)), np.stack(expected))


def test_windows_can_be_gathered_in_any_order(folder):
    windows = Windows(load_dataset_folder(folder), "train", context=16)
    everything = windows.gather(np.arange(windows.count))
    chosen = np.array([18, 0, 9, 9, 5])
    assert np.array_equal(windows.gather(chosen), everything[chosen])


def test_a_shard_shorter_than_a_window_has_none(folder):
    windows = Windows(load_dataset_folder(folder), "train", context=60)
    assert windows.count == 1 + 0 + 2
    last = np.fromfile(folder / "train-00002.bin", "<u2")[60:121]
    assert np.array_equal(windows.gather(np.array([2]))[0], last)


def test_a_split_without_a_whole_batch_names_both_sizes(folder):
    windows = Windows(load_dataset_folder(folder), "train", context=16)
    windows.require_batch(19)
    with pytest.raises(BadInput, match=r"19 train windows .*308 tokens.* needs 20 \(320 tokens\)"):
        windows.require_batch(20)
