"""Windows of a split."""

import os

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


@pytest.mark.parametrize("left_bytes", [0, 40, 97])
def test_a_shard_cut_short_while_it_is_read_is_named(folder, left_bytes):
    """Mapped memory would end the process here, with SIGBUS and without a word."""
    windows = Windows(load_dataset_folder(folder), "train", context=16)
    windows.gather(np.arange(windows.count))
    os.truncate(folder / "train-00001.bin", left_bytes)
    assert windows.gather(np.arange(6)).shape == (6, 17), "other shards are whole"
    with pytest.raises(BadInput, match=f"train-00001.bin has {left_bytes} bytes, its .* says 100"):
        windows.gather(np.arange(windows.count))


def test_a_shard_that_is_replaced_while_it_is_read_stays_the_one_that_was_opened(folder):
    windows = Windows(load_dataset_folder(folder), "train", context=16)
    before = windows.gather(np.arange(windows.count))
    (folder / "other.bin").write_bytes(bytes(194))
    (folder / "other.bin").rename(folder / "train-00000.bin")
    assert np.array_equal(windows.gather(np.arange(windows.count)), before)


@pytest.mark.parametrize("token", [257, 260, 65535])
def test_what_is_no_token_is_named_with_its_place(folder, token):
    """257 to 319 would be in the padding of a vocabulary of 320: an infinite loss."""
    shard = folder / "train-00002.bin"
    tokens = np.fromfile(shard, "<u2")
    tokens[77] = token
    tokens.tofile(shard)
    windows = Windows(load_dataset_folder(folder), "train", context=16)
    said = rf"train-00002\.bin holds {token} at token 77, beyond vocab=257; restore it, or remove"
    with pytest.raises(BadInput, match=said):
        windows.gather(np.arange(windows.count))


def test_more_shards_than_a_process_may_open_are_read(dataset_of):
    """Each as its own file; Linux gives a process 1,024 by default."""
    parts = np.arange(9 * 1100).reshape(1100, 9) % 257
    windows = Windows(load_dataset_folder(dataset_of(list(parts), [])), "train", context=8)
    assert np.array_equal(windows.gather(np.arange(1100)), parts)
    assert len(os.listdir("/proc/self/fd")) < 1024
