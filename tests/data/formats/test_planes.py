"""Byte planes: whatever was packed comes back, whichever method each plane got."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.data.formats import planes


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.uint8, np.uint16, np.uint32]),
    st.sampled_from([1, 2, 255, 1000, 4097]),
    st.integers(1, 40),
    st.sampled_from([0, 3]),
    st.sampled_from(planes.DEFLATE_SHARES),
)
def test_round_trip(seed: int, kind: type, n: int, symbols: int, odd_ones: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    top = np.iinfo(kind).max
    values = rng.integers(0, top, symbols, dtype=kind, endpoint=True)[rng.integers(0, symbols, n)]
    values[rng.integers(0, n, odd_ones)] = rng.integers(0, top, odd_ones, dtype=kind, endpoint=True)
    back = np.empty_like(values)
    planes.unpack(memoryview(planes.pack(values, deflate_share=share)), back)
    np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize("n", [1000, 1001])
def test_the_top_bytes_of_floats_are_nibbles_with_exceptions(n: int) -> None:
    values = np.random.default_rng(1).normal(0, 30, n).astype(np.float32)
    values[::200] *= 1e20
    top = values.view(np.uint8)[3::4]
    packed = planes._nibbles(top)
    assert packed is not None
    assert len(packed.payload) > planes.SYMBOLS + (n + 1) // 2
    back = np.empty_like(values)
    planes.unpack(memoryview(planes.pack(values)), back)
    np.testing.assert_array_equal(back, values)
