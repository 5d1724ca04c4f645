"""Sparse rows give back what they were made of, in any selection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.evaluate import sparse_rows
from calogen.evaluate.sparse_rows import SparseRows


def dense(n: int, cells: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((n, cells)) * (rng.random((n, cells)) < 0.2)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 30), cells=st.integers(1, 50), seed=st.integers(0, 9), data=st.data())
def test_rows_come_back_in_any_selection(n, cells, seed, data):
    x = dense(n, cells, seed)
    rows = SparseRows.of(x)
    assert rows.shape == x.shape
    np.testing.assert_array_equal(rows[:], x)
    index = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=40)) if n else [], dtype=np.int64)
    np.testing.assert_array_equal(rows[index], x[index])
    np.testing.assert_array_equal(rows.take(index)[:], x[index])
    low, high = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    np.testing.assert_array_equal(rows[low:high], x[low:high])
    np.testing.assert_array_equal(SparseRows.concatenate([rows.take(slice(low)), rows.take(slice(low, None))])[:], x)


def test_entries_are_cut_by_cell_in_pieces(monkeypatch):
    monkeypatch.setattr(sparse_rows, "PIECE_CELLS", 25)
    x = dense(23, 10, 1)
    least = np.linspace(0.1, 0.6, 10, dtype=np.float32)
    np.testing.assert_array_equal(SparseRows.of(x, least)[:], np.where(x >= least, x, 0))


def test_many_cells_have_longer_numbers():
    x = dense(2, (1 << 16) + 1, 3)
    rows = SparseRows.of(x)
    assert rows.cell.dtype == np.uint32
    assert SparseRows.of(x[:, :100]).cell.dtype == np.uint16
    np.testing.assert_array_equal(rows[:], x)


def test_rows_of_other_widths_are_refused():
    with pytest.raises(ValueError, match="cannot be joined"):
        SparseRows.concatenate([SparseRows.of(dense(2, 3, 0)), SparseRows.of(dense(2, 4, 0))])
