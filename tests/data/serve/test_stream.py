"""Training micro-batches against an oracle of plain numpy."""

import dataclasses
import gc
import threading
import time

import numpy as np
import pytest
import torch

from gpt2dist.data.serve.order import window_index
from gpt2dist.data.serve.stream import local_batches, ray_batches
from gpt2dist.data.serve.windows import StreamPlan
from gpt2dist.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

CONTEXT = 8
BATCH = 12


def plan_of(folder, **changes):
    plan = StreamPlan(
        dataset_dir=str(folder),
        context=CONTEXT,
        seed=7,
        batch_sequences=BATCH,
        micro_batch=2,
        rank=0,
        world=1,
        start_step=0,
        steps=10,
    )
    return dataclasses.replace(plan, **changes)


def oracle(folder, steps):
    """int64 [steps, BATCH, CONTEXT + 1]: what each step trains on, whoever computes it."""
    windows = []
    for path in sorted(folder.glob("train-*.bin")):
        tokens = np.memmap(path, "<u2", mode="r")
        for first in range(0, len(tokens) - CONTEXT, CONTEXT):
            windows.append(tokens[first : first + CONTEXT + 1].astype(np.int64))
    windows = np.stack(windows)
    order = [int(window_index(7, np.array([p]), len(windows))[0]) for p in range(steps * BATCH)]
    return windows[order].reshape(steps, BATCH, CONTEXT + 1)


def union(reader, folder, world, **changes):
    """int64 [steps, BATCH, CONTEXT + 1]: the ranks' micro-batches, rank after rank in a step."""
    ranks = []
    for rank in range(world):
        plan = plan_of(folder, rank=rank, world=world, **changes)
        batches = list(reader(plan))
        assert all(b.dtype == torch.int64 and b.device.type == "cpu" for b in batches)
        assert all(b.shape == (plan.micro_batch, CONTEXT + 1) for b in batches)
        ranks.append(torch.stack(batches).reshape(plan.steps, BATCH // world, CONTEXT + 1))
    return torch.cat(ranks, dim=1).numpy()


def test_the_order_wraps_around_the_epoch_in_these_tests(folder):
    assert len(np.unique(oracle(folder, 3).reshape(36, -1), axis=0)) == 36
    # 12 + 6 + 20 windows: step 3 is the first that reaches into the second epoch.
    assert len(np.unique(oracle(folder, 6).reshape(72, -1), axis=0)) == 38


@pytest.mark.parametrize(
    ("world", "micro_batch"), [(1, 1), (1, 4), (1, 12), (2, 1), (2, 2), (3, 1), (3, 4)]
)
def test_local_batches_equal_the_oracle_for_any_number_of_ranks(folder, world, micro_batch):
    found = union(local_batches, folder, world, micro_batch=micro_batch)
    assert np.array_equal(found, oracle(folder, 10))


@pytest.mark.parametrize("start_step", [1, 3, 4, 9])
def test_local_batches_resume_at_any_step_with_another_number_of_ranks(folder, start_step):
    found = union(local_batches, folder, 2, start_step=start_step, steps=10 - start_step)
    assert np.array_equal(found, oracle(folder, 10)[start_step:])


@pytest.mark.parametrize(("world", "start_step"), [(1, 0), (2, 3), (3, 8)])
def test_ray_batches_equal_the_oracle(folder, ray_cluster, world, start_step):
    found = union(ray_batches, folder, world, start_step=start_step, steps=10 - start_step)
    assert np.array_equal(found, oracle(folder, 10)[start_step:])


def test_ray_batches_keep_their_order_over_many_blocks_and_segments(dataset_of, ray_cluster):
    tokens = np.random.default_rng(1).integers(0, 257, 80 * 1024)
    folder = dataset_of([tokens], [])
    # 520 micro-batches of 131 kB are 17 blocks of 4 MiB, in segments of 8, 8 and 1.
    plan = plan_of(folder, context=1024, micro_batch=64, batch_sequences=64, steps=520)
    compared = 0
    for ours, theirs in zip(ray_batches(plan), local_batches(plan), strict=True):
        assert torch.equal(ours, theirs)
        compared += 1
    assert compared == 520


def test_what_is_no_token_ends_ray_batches_in_one_line(dataset_of, ray_cluster):
    """In the second block of 2,048 windows, so the pipeline has served the first by then."""
    tokens = np.random.default_rng(1).integers(0, 257, 4096 * 1024 + 1)
    window = int(window_index(7, np.array([3000]), 4096)[0])
    tokens[1024 * window + 5] = 258
    plan = plan_of(
        dataset_of([tokens], []), context=1024, micro_batch=64, batch_sequences=64, steps=64
    )
    batches = ray_batches(plan)
    for _ in range(4 * 2**20 // (64 * 1025 * 2)):
        next(batches)
    said = rf"train-00000\.bin holds 258 at token {1024 * window + 5:,}, beyond vocab=257"
    with pytest.raises(BadInput, match=said) as caught:
        next(batches)
    assert "\n" not in str(caught.value)


def test_ray_batches_need_no_free_core(folder, ray_cluster):
    import ray

    plan = plan_of(folder, steps=2)

    @ray.remote(num_cpus=4)
    def on_all_cores():
        return [batch.tolist() for batch in ray_batches(plan)]

    found = ray.get(on_all_cores.remote(), timeout=60)
    assert found == [batch.tolist() for batch in local_batches(plan)]


def test_closing_ray_batches_stops_the_pipeline(folder, ray_cluster):
    batches = ray_batches(plan_of(folder, steps=1_000_000))
    next(batches)
    assert "StreamingExecutor" in running()
    batches.close()
    del batches
    gc.collect()
    deadline = time.monotonic() + 20
    while "StreamingExecutor" in running() and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert "StreamingExecutor" not in running()


def running():
    return " ".join(thread.name for thread in threading.enumerate())


def test_no_steps_left_is_no_batch(folder):
    assert list(local_batches(plan_of(folder, steps=0))) == []
    assert list(ray_batches(plan_of(folder, steps=0))) == []


def test_a_batch_that_does_not_divide_is_refused(folder):
    with pytest.raises(BadInput, match=r"12 sequences .* micro-batches of 4 on 2 workers"):
        plan_of(folder, micro_batch=4, world=2)


def test_a_dataset_smaller_than_a_batch_is_refused(folder):
    with pytest.raises(BadInput, match="38 train windows"):
        next(local_batches(plan_of(folder, batch_sequences=40)))
    with pytest.raises(BadInput, match="38 train windows"):
        next(ray_batches(plan_of(folder, batch_sequences=40)))
