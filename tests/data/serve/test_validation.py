"""Validation windows dealt to ranks."""

import numpy as np
import pytest
import torch

from gpt2dist.data.serve.validation import validation_batches
from gpt2dist.data.serve.windows import Windows
from gpt2dist.data.shards import load_dataset_folder
from gpt2dist.errors import BadInput


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
@pytest.mark.parametrize("max_tokens", [8, 40, 10_000])
def test_ranks_together_see_the_first_windows_once(folder, world, micro_batch, max_tokens):
    windows = Windows(load_dataset_folder(folder), "val", 8)
    tokens = np.fromfile(folder / "val-00000.bin", "<u2").astype(np.int64)
    every = [tokens[first : first + 9] for first in range(0, len(tokens) - 8, 8)]
    expected = every[: min(len(every), max_tokens // 8)]
    ranks = [
        list(validation_batches(windows, micro_batch, max_tokens, (rank, world)))
        for rank in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1, "a sharded model would hang"
    found = []
    for turn in zip(*ranks):
        for batch, valid_rows in turn:
            assert batch.dtype == torch.int64
            assert batch.shape == (micro_batch, 9)
            found += batch[:valid_rows].tolist()
    assert found == [window.tolist() for window in expected]


def test_padding_rows_are_real_tokens(folder):
    dataset = load_dataset_folder(folder)
    for batch, _ in validation_batches(Windows(dataset, "val", 8), 7, 10_000, (0, 2)):
        assert int(batch.max()) < dataset.vocab


def test_a_split_without_a_window_is_refused_at_the_call(folder):
    with pytest.raises(BadInput, match=r"90 validation tokens.*context 100"):
        validation_batches(Windows(load_dataset_folder(folder), "val", 100), 1, 1000)
