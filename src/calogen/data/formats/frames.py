"""Frames: up to 65,536 values of one column as bytes, lossless, small, and fast to decode.

A frame is the number of values (uint32), a kind (uint8) and its content, numbers little-endian:

    PLAIN       the packed byte planes of the values
    GRID        a divisor d (uint32), then the packed planes of int32 k; the values are float32 k / d
    DICTIONARY  the number of different values m (uint32), these in rising order, then the packed planes of the
                uint16 position of each value among them

Positions on a grid (0.1 mm, 1/1024 mm, sub-cells) take half the space so. The sign of a zero on a grid is not kept.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.formats import planes

MAX_VALUES = 65_536
"""Values of a frame: 256 kB of floats, which stay in the cache while they are decoded."""

COUNT_BYTES = 4
HEAD_BYTES = COUNT_BYTES + 1

GRID_DIVISORS = (10, 1024)
"""Grids looked for: tenths of a mm (the compact layout) and 1/1024 mm (a rounding exact in binary)."""
MAX_GRID = 1 << 24
"""Integers up to here are exact in float32."""
MAX_DICTIONARY = MAX_VALUES // 16
"""A dictionary must be small beside the values it stands for."""
SAMPLE = 512

PLAIN_BYTES = 4
"""Columns of plain float32 are what a showerdata file holds: the yardstick of sizes."""
MIDDLE_EFFORT = 1
WITHIN_REACH = 1.2
"""The last effort saves at most this factor on columns that are mostly noise."""


class Kind(IntEnum):
    """What a frame holds."""

    PLAIN = 0
    GRID = 1
    DICTIONARY = 2


def encode(values: NDArray[Any], *, effort: int = 0) -> bytes:
    """The frame of a column `[n]` of 1, 2 or 4-byte items.

    `effort` from 0 (fast to read) to 2 (smallest) chooses among `planes.DEFLATE_SHARES`.

    >>> tenths = np.arange(1000, dtype=np.float32) / np.float32(10)
    >>> frame, back = encode(tenths), np.empty_like(tenths)
    >>> decode(memoryview(frame), back)
    >>> len(frame) < 2600, bool((back == tenths).all())
    (True, True)
    """
    kind, head, content = _represent(values)
    packed = planes.pack(content, deflate_share=planes.DEFLATE_SHARES[effort])
    return len(values).to_bytes(COUNT_BYTES, "little") + bytes([kind]) + head + packed


def _represent(values: NDArray[Any]) -> tuple[Kind, bytes, NDArray[Any]]:
    if values.dtype == np.float32 and len(values):
        for divisor in GRID_DIVISORS:
            k = _on_grid(values, divisor)
            if k is not None:
                return Kind.GRID, divisor.to_bytes(COUNT_BYTES, "little"), k
        found = _dictionary(values)
        if found is not None:
            entries, codes = found
            return Kind.DICTIONARY, len(entries).to_bytes(COUNT_BYTES, "little") + entries.tobytes(), codes
    return Kind.PLAIN, b"", values


def _on_grid(values: NDArray[np.float32], divisor: int) -> NDArray[np.uint32] | None:
    for part in (values[:SAMPLE], values):
        with np.errstate(over="ignore", invalid="ignore"):
            k = np.rint(part * np.float32(divisor))
            if not (np.abs(k) < MAX_GRID).all() or not np.array_equal(k / np.float32(divisor), part):
                return None
    return _zigzag(k.astype(np.int32))


def _zigzag(k: NDArray[np.int32]) -> NDArray[np.uint32]:
    return ((k << 1) ^ (k >> 31)).view(np.uint32)


def _unzigzag(z: NDArray[np.uint32]) -> NDArray[np.int32]:
    return ((z >> 1) ^ (np.uint32(0) - (z & 1))).view(np.int32)


def _dictionary(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint16]] | None:
    bits = values.view(np.uint32)
    sample = bits[:: max(1, len(bits) // SAMPLE)]
    if len(np.unique(sample)) > len(sample) * (1 - SAMPLE / MAX_DICTIONARY / 4):
        return None
    entries, codes = np.unique(bits, return_inverse=True)
    if len(entries) > min(MAX_DICTIONARY, len(values) // 4):
        return None
    order = np.argsort(entries.view(np.float32), kind="stable")
    rank = np.empty(len(order), dtype=np.uint16)
    rank[order] = np.arange(len(order), dtype=np.uint16)
    return entries[order].view(np.float32), rank[codes.reshape(-1)]


def decode(frame: memoryview, out: NDArray[Any]) -> None:
    """Fill `out [n]` (contiguous, of the encoded type) from its frame.

    Raises:
        ValueError: a frame that is not one, or of another length.
    """
    n = int.from_bytes(frame[:COUNT_BYTES], "little")
    if len(frame) < HEAD_BYTES or n != len(out):
        raise ValueError(f"frame of {n} values where {len(out)} are expected")
    kind, content = frame[COUNT_BYTES], frame[HEAD_BYTES:]
    if kind == Kind.PLAIN:
        planes.unpack(content, out)
        return
    number, content = int.from_bytes(content[:COUNT_BYTES], "little"), content[COUNT_BYTES:]
    if kind == Kind.GRID and number > 0:
        k = np.empty(n, dtype=np.uint32)
        planes.unpack(content, k)
        np.divide(_unzigzag(k), np.float32(number), out=out, dtype=np.float32, casting="same_kind")
    elif kind == Kind.DICTIONARY and number > 0:
        entries = np.frombuffer(content, np.float32, number)
        codes = np.empty(n, dtype=np.uint16)
        planes.unpack(content[entries.nbytes :], codes)
        np.take(entries, codes, out=out, mode="raise")
    else:
        raise ValueError(f"frame of unknown kind {kind}")


def encode_together(columns: dict[str, NDArray[Any]], target_share: float) -> dict[str, bytes]:
    """The frames of the columns of the same points, no denser than needed: fast to read where they are small anyway.

    The size aimed at is `target_share` of plain float32 columns. Where even the most effort misses it (values that
    are noise to the last bit), the middle one is taken.
    """
    target = target_share * sum(PLAIN_BYTES * len(values) for values in columns.values())
    frames = {}
    for effort in (0, MIDDLE_EFFORT):
        frames = {name: encode(values, effort=effort) for name, values in columns.items()}
        size = sum(len(frame) for frame in frames.values())
        if size <= target:
            return frames
    if size > target * WITHIN_REACH:
        return frames
    dense = {name: encode(values, effort=MIDDLE_EFFORT + 1) for name, values in columns.items()}
    return dense if sum(len(frame) for frame in dense.values()) <= target else frames
