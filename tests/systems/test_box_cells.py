"""One hit a cell: nothing is lost, nothing changes that need not, and it is what taking turns one by one gives."""

import itertools
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calogen.detector.catalog import BOX_30, CALOCHALLENGE_2
from calogen.systems.box_cells import Box, Way, apart, rounded

SMALL = Box(2, 3, 4)


def one_by_one(cell: NDArray[np.int64], energy: NDArray[np.float32], box: Box, way: Way = "depth") -> NDArray[np.int64]:
    """One shower, in plain loops, from the words of the module's head."""
    order = sorted(range(len(cell)), key=lambda i: (-energy[i], cell[i]))
    stays: dict[int, int] = {}
    for i in order:
        stays.setdefault(int(cell[i]), i)
    taken, result = set(stays), cell.copy()
    for i in (i for i in order if stays[int(cell[i])] != i):
        result[i] = next(c for c in cells_in_order(int(cell[i]), box, way) if c not in taken)
        taken.add(int(result[i]))
    return result


def cells_in_order(cell: int, box: Box, way: Way = "depth") -> list[int]:
    x, y, layer = (int(part) for part in box.place(np.array(cell)))
    if way == "nearest":
        places = itertools.product(range(box.n_x), range(box.n_y), range(box.n_layers))
        steps = [((i - x) ** 2 + (j - y) ** 2, layer - k, i, j, k) for i, j, k in places]
        steps.sort(key=lambda s: (s[0] + s[1] ** 2, *s))
        return [(k * box.n_x + i) * box.n_y + j for _, _, i, j, k in steps]
    layers = sorted(range(box.n_layers), key=lambda k: (abs(k - layer), k < layer))
    columns = [(i, j) for i in range(box.n_x) for j in range(box.n_y)]
    columns.sort(key=lambda c: ((c[0] - x) ** 2 + (c[1] - y) ** 2, c))
    return [(k * box.n_x + i) * box.n_y + j for i, j in columns for k in layers]


@st.composite
def showers(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Up to 4 showers of up to as many hits as there are cells, often in the same ones and equally bright."""
    counts = draw(st.lists(st.integers(0, SMALL.n_cells), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    cell = rng.choice(rng.choice(SMALL.n_cells, draw(st.integers(1, SMALL.n_cells))), sum(counts))
    energy = rng.integers(1, draw(st.sampled_from([2, 4, 1000])), sum(counts)).astype(np.float32)
    return cell, energy, np.concatenate([[0], np.cumsum(counts)])


ways = pytest.mark.parametrize("way", get_args(Way))


@ways
@settings(max_examples=300, deadline=None)
@given(drawn=showers())
def test_as_taking_turns(drawn: tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]], way: Way) -> None:
    cell, energy, offsets = drawn
    before = energy.copy()
    result = apart(cell, energy, offsets, SMALL, way)
    assert np.array_equal(energy, before)
    for first, last in itertools.pairwise(offsets):
        now, was, bright = result[first:last], cell[first:last], energy[first:last]
        assert len(set(now.tolist())) == last - first  # one hit a cell
        assert set(was.tolist()) <= set(now.tolist())  # what was lit is lit
        expected = one_by_one(was, bright, SMALL, way)
        assert sorted(zip(now, bright, strict=True)) == sorted(zip(expected, bright, strict=True))
        for c in set(was.tolist()):  # the brightest of each cell stays, so who was alone does not move
            here = was == c
            assert bright[here & (now == c)].tolist() == [bright[here].max()]


@ways
@settings(max_examples=100, deadline=None)
@given(drawn=showers(), seed=st.integers(0, 1000))
def test_order_means_nothing(
    drawn: tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]], seed: int, way: Way
) -> None:
    cell, energy, offsets = drawn
    shower = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((np.random.default_rng(seed).random(len(cell)), shower))
    one, other = apart(cell, energy, offsets, SMALL, way), apart(cell[order], energy[order], offsets, SMALL, way)
    assert sorted(zip(shower, one, energy, strict=True)) == sorted(zip(shower, other, energy[order], strict=True))


def photons(n: int, hits: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    places = rng.normal([14.5, 14.5, 12.0], [2.0, 2.0, 5.0], (n * hits, 3))
    return places, rng.exponential(1.0, n * hits).astype(np.float32), hits * np.arange(n + 1)


@ways
def test_showers_as_they_are_alone(way: Way) -> None:
    box = Box.of(BOX_30)
    places, energy, offsets = photons(200, 300)
    cell = rounded(places, offsets, box).cell
    together = apart(cell, energy, offsets, box, way)
    assert (together != cell).mean() > 0.1
    for i in (0, 77, 154, 155, 199):  # 155 begins the second group that is looked at together
        own = slice(offsets[i], offsets[i + 1])
        alone = apart(cell[own], energy[own], np.array([0, 300]), box, way)
        assert np.array_equal(alone, together[own])
        assert np.array_equal(alone, one_by_one(cell[own], energy[own], box, way))


@ways
def test_a_full_box_and_one_cell(way: Way) -> None:
    """As many hits as cells, all in one: every cell gets one, the brightest in the order they are tried."""
    energy = np.arange(SMALL.n_cells, 0, -1).astype(np.float32)
    cell = np.full(SMALL.n_cells, 9)
    result = apart(cell, energy, np.array([0, SMALL.n_cells]), SMALL, way)
    assert result.tolist() == cells_in_order(9, SMALL, way)


def test_the_published_merging_leaves_duplicates_and_ours_does_not(shared: Path) -> None:
    stored = np.load(shared / "parity" / "omnijet_merge.npz")
    box = Box.of(BOX_30)
    theirs = np.stack([stored[f"out_{axis}"] for axis in "xyz"], axis=-1)
    places = np.stack([stored[f"in_{axis}"] for axis in "xyz"], axis=-1)
    n, hits, _ = places.shape
    assert [len(np.unique(shower, axis=0)) for shower in theirs] == [38, 35, 36]
    energy, offsets = stored["in_energy"].ravel(), hits * np.arange(n + 1)
    found = rounded(places.reshape(-1, 3), offsets, box)
    ours = apart(found.cell, energy, offsets, box).reshape(n, hits)
    assert [len(np.unique(shower)) for shower in ours] == [hits] * n
    alone = np.array(
        [[np.count_nonzero(shower == cell) == 1 for cell in shower] for shower in found.cell.reshape(n, -1)]
    )
    assert np.array_equal(ours[alone], found.cell.reshape(n, hits)[alone])
    assert np.array_equal(np.stack(box.place(ours[alone]), axis=-1), theirs[alone])


def test_numbers_of_cells_are_the_detectors() -> None:
    box = Box.of(BOX_30)
    assert (box.n_cells, box.n_layers) == (BOX_30.n_cells, 30)
    cell = np.array([0, 31, 900, 26_999])
    assert [part.tolist() for part in box.place(cell)] == [[0, 1, 0, 29], [0, 1, 0, 29], [0, 0, 1, 29]]
    assert np.array_equal(box.cell(*box.place(cell)), cell)


def test_outside_is_counted_and_brought_to_the_edge() -> None:
    places = np.array([[0.4, 0.6, 3.0], [-0.6, 1.0, 1.0], [1.0, 2.0, 99.0], [-7.0, 9.0, 0.0]])
    found = rounded(places, np.array([0, 2, 2, 4]), SMALL)
    assert found.outside.tolist() == [1, 0, 2]
    assert np.array_equal(np.stack(SMALL.place(found.cell), 1), [[0, 1, 3], [0, 1, 1], [1, 2, 3], [0, 2, 0]])


def test_nothing_gives_nothing() -> None:
    none, energy = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    assert apart(none, energy, np.array([0, 0]), SMALL).size == 0
    assert apart(none, energy, np.array([0]), SMALL).size == 0
    assert rounded(np.zeros((0, 3)), np.array([0, 0]), SMALL).outside.tolist() == [0]


def test_refusals() -> None:
    full, energy = np.zeros(25, dtype=np.int64), np.ones(25, dtype=np.float32)
    with pytest.raises(ValueError, match="shower 1 has 25 hits, more than the 24 cells"):
        apart(full, energy, np.array([0, 0, 25]), SMALL)
    with pytest.raises(ValueError, match="cells from 0 to 24; the box has 0 to 23"):
        apart(np.array([0, 24]), energy[:2], np.array([0, 2]), SMALL)
    with pytest.raises(ValueError, match="energy of hit 1 is NaN"):
        apart(full[:2], np.array([1.0, np.nan]), np.array([0, 2]), SMALL)
    with pytest.raises(ValueError, match="do not fit"):
        apart(full, energy[:-1], np.array([0, 25]), SMALL)
    with pytest.raises(ValueError, match="hit 1 is at"):
        rounded(np.array([[0, 0, 0], [0, np.inf, 0]]), np.array([0, 2]), SMALL)
    with pytest.raises(ValueError, match="no regular box"):
        Box.of(CALOCHALLENGE_2)
