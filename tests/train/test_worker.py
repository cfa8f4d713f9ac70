"""What a rank does around its loop; the runs that it trains are tested in the driver's tests."""

import pytest

from gpt2dist.train.worker import started


def counted(closed: list[int]):
    """A generator that opens something at its first item."""
    try:
        yield from range(5)
    finally:
        closed.append(1)


def test_batches_are_the_same_when_the_first_is_fetched_ahead():
    closed: list[int] = []
    with started(counted(closed)) as batches:
        assert list(batches) == [0, 1, 2, 3, 4]
    with started(iter_of_nothing()) as batches:
        assert list(batches) == []
    assert closed == [1]


def iter_of_nothing():
    yield from ()


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_batches_are_closed_when_the_model_cannot_be_built(taken):
    """Nobody has asked for one then, but the first has been fetched."""
    closed: list[int] = []

    def build() -> None:
        with started(counted(closed)) as batches:
            assert [next(batches) for _ in range(taken)] == list(range(taken))
            raise MemoryError

    with pytest.raises(MemoryError):
        build()
    assert closed == [1]
