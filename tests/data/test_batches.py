"""Batches and splits: nothing lost, nothing twice, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calogen.data.batches import bucketed, in_order, shuffled, split, within_points

COUNTS = st.lists(st.integers(0, 500), min_size=1, max_size=80).map(np.array)


def generator() -> np.random.Generator:
    return np.random.default_rng(3)


@given(COUNTS, st.integers(1, 20), st.integers(1, 600))
def test_every_shower_once(counts, batch_size, budget):
    n = len(counts)
    ways = [
        in_order(n, batch_size),
        shuffled(n, batch_size, generator(), drop_last=False),
        bucketed(counts, batch_size, generator(), drop_last=False),
        within_points(counts, budget, generator(), max_showers=batch_size),
        within_points(counts, budget, generator(), noise=0.1),
    ]
    for batches in ways:
        assert sorted(np.concatenate(batches).tolist()) == list(range(n))
        assert all(len(batch) for batch in batches)
    for batches in ways[:4]:
        assert max(len(batch) for batch in batches) <= batch_size
    for batches in ways[3:]:
        assert all(counts[batch].sum() <= budget or len(batch) == 1 for batch in batches)


def test_buckets_need_little_padding():
    counts = np.random.default_rng(0).integers(10, 1000, 4000)

    def padding(batches):
        return sum(counts[b].max() * len(b) for b in batches) / sum(counts[b].sum() for b in batches)

    assert padding(bucketed(counts, 32, generator())) < 1.3
    assert padding(shuffled(len(counts), 32, generator())) > 1.6


def test_incomplete_batch_is_left_out_unless_alone():
    assert [len(b) for b in shuffled(10, 4, generator())] == [4, 4]
    assert [len(b) for b in shuffled(3, 4, generator())] == [3]


def test_seed_decides():
    assert np.array_equal(split(50, validation=0.2, seed=1).train, split(50, validation=0.2, seed=1).train)
    assert not np.array_equal(split(50, validation=0.2, seed=1).train, split(50, validation=0.2, seed=2).train)


def test_split_covers_all():
    cut = split(101, validation=0.1, test=0.2)
    assert (len(cut.validation), len(cut.test)) == (10, 20)
    assert sorted(np.concatenate([cut.train, cut.validation, cut.test]).tolist()) == list(range(101))
    assert len(split(5, validation=0.01).validation) == 1


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="outside"):
        split(10, validation=1.0)
    with pytest.raises(ValueError, match="leave none"):
        split(1, validation=0.5)
    with pytest.raises(ValueError, match="below 1"):
        shuffled(10, 0, generator())
