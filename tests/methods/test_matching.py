"""Matching of noise to points: a permutation within groups, as short as any."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.methods.matching import match


def draw(sizes: list[int], features: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, z = rng.standard_normal((2, sum(sizes), features), dtype=np.float32)
    return x.round(1), z.round(1)  # rounded: equal points and equal distances occur


def length(x: np.ndarray, z: np.ndarray) -> float:
    return float(np.linalg.norm(x.astype(np.float64) - z, axis=1).sum())


groups = st.lists(st.integers(0, 6), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(sizes=groups, features=st.integers(1, 4), seed=st.integers(0, 1000))
def test_each_group_is_permuted_and_no_pairing_is_shorter(sizes: list[int], features: int, seed: int) -> None:
    x, z = draw(sizes, features, seed)
    matched = match(x, z, sizes)
    assert matched.dtype == np.float32
    ends = np.cumsum(sizes)
    for a, b in zip(ends - sizes, ends, strict=True):
        assert sorted(map(tuple, matched[a:b])) == sorted(map(tuple, z[a:b]))
        least = min(length(x[a:b], z[a:b][list(p)]) for p in permutations(range(b - a)))
        assert length(x[a:b], matched[a:b]) == pytest.approx(least, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=10), seed=st.integers(0, 1000))
def test_never_longer_than_as_drawn_and_stays_matched(sizes: list[int], seed: int) -> None:
    x, z = draw(sizes, 3, seed)
    matched = match(x, z, sizes)
    assert length(x, matched) <= length(x, z) + 1e-9
    assert length(x, match(x, matched, sizes)) == pytest.approx(length(x, matched))


def test_distances_are_not_squared() -> None:
    # On a line: 0 -> 3, 1 -> 1 has length 3 and Σd² = 9; 0 -> 1, 1 -> 3 has length 3 and Σd² = 5. Off the line, the
    # pairing with one long path is the shorter one.
    x = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    z = np.array([[1.0, 0.0], [3.0, 0.3], [9.0, 9.0]])
    crossed = z[[1, 0, 2]]
    assert length(x, crossed) < length(x, z)
    np.testing.assert_array_equal(match(x, z, [3]), crossed)
    np.testing.assert_array_equal(match(x[:2], z[:2], [2]), crossed[:2])


def test_noise_stays_normal() -> None:
    x, _ = draw([12] * 500, 2, 0)
    z = np.random.default_rng(1).standard_normal(x.shape, dtype=np.float32)
    matched = match(3 * x, z, [12] * 500)
    assert np.corrcoef(matched[:, 0], x[:, 0])[0, 1] > 0.5  # near its point
    np.testing.assert_array_equal(np.sort(matched, axis=0), np.sort(z, axis=0))


def test_no_points_at_all() -> None:
    assert match(np.zeros((0, 3)), np.zeros((0, 3)), [0, 0]).shape == (0, 3)
    assert match(np.zeros((0, 3)), np.zeros((0, 3)), []).shape == (0, 3)


@pytest.mark.parametrize(
    ("x", "z", "sizes", "words"),
    [
        (np.zeros((3, 2)), np.zeros((2, 2)), [3], "must both be"),
        (np.zeros(3), np.zeros(3), [3], "must both be"),
        (np.zeros((3, 2)), np.zeros((3, 2)), [2], "do not cut"),
        (np.zeros((3, 2)), np.zeros((3, 2)), [4, -1], "do not cut"),
        (np.full((3, 2), np.nan), np.zeros((3, 2)), [3], "finite"),
    ],
)
def test_what_does_not_fit_is_refused(x: np.ndarray, z: np.ndarray, sizes: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        match(x, z, sizes)
