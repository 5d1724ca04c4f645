"""Byte planes: the bytes of equal significance of a column, each plane packed the way that is small and fast to undo.

Most bytes of a measured float are noise: the low half of its mantissa is kept as it is, the rest is packed by what it
is worth. Per plane: a method (uint8), a length (uint32, little-endian like all numbers here) and that many bytes.
Planes of a 4-byte item are its low two bytes (kept together), its third and its fourth byte; of a 2-byte item its two
bytes. Methods:

    CONSTANT  one item of the plane, the same for all
    RAW       the items
    NIBBLES   16 symbols, `(n + 1) // 2` bytes of two 4-bit symbol numbers (low first), then uint32 positions and
              uint8 values of the exceptions, as many as the remaining bytes hold
    DEFLATE   zlib stream of the items
    RUNS      as many uint8 symbols as uint16 lengths after them: stretches of the same byte
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLANES = {1: ((0, 1),), 2: ((0, 1), (1, 1)), 4: ((0, 2), (2, 1), (3, 1))}
"""(first byte, width) of the planes of an item of so many bytes."""

LENGTH_BYTES = 4
SYMBOLS = 16
EXCEPTION_BYTES = 5  # uint32 position and uint8 value
RUN_BYTES = 3  # uint8 symbol and uint16 length
LONGEST_RUN = (1 << 16) - 1
DEFLATE_LEVEL = 4  # level 9 gains 1 % of a plane for three times the time
SAMPLES = 4  # pieces of a plane (which may run through several showers and sections) tried before deflating it
SAMPLE_BYTES = 1024
SAMPLE_MARGIN = 1.15

DEFLATE_SHARES = (0.25, 0.6, 1.0)
"""Deflate a plane only where it takes at most this share of the alternative: undoing it is ten times slower than the
other methods. The first share is for reading fast, the last for the smallest file."""


class Method(IntEnum):
    """How a plane is packed."""

    CONSTANT = 0
    RAW = 1
    NIBBLES = 2
    DEFLATE = 3
    RUNS = 4


@dataclass(frozen=True)
class Packed:
    """One packed plane."""

    method: Method
    payload: bytes


def pack(values: NDArray[Any], *, deflate_share: float = DEFLATE_SHARES[0]) -> bytes:
    """The packed planes of a column `[n]` of 1, 2 or 4-byte items."""
    size = values.dtype.itemsize
    items = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), size)
    parts = []
    for first, width in PLANES[size]:
        packed = _pack(np.ascontiguousarray(items[:, first : first + width]), deflate_share)
        parts += [bytes([packed.method]), len(packed.payload).to_bytes(LENGTH_BYTES, "little"), packed.payload]
    return b"".join(parts)


def _pack(plane: NDArray[np.uint8], deflate_share: float) -> Packed:
    if len(plane) and (plane == plane[0]).all():
        return Packed(Method.CONSTANT, plane[0].tobytes())
    best = Packed(Method.RAW, plane.tobytes())
    if plane.shape[1] == 1:
        others = (_nibbles(plane[:, 0]), _runs(plane[:, 0]))
        best = min((best, *(p for p in others if p is not None)), key=lambda p: len(p.payload))
    limit = deflate_share * len(best.payload)
    if _deflated_share(plane) * plane.size < limit * SAMPLE_MARGIN:
        deflated = zlib.compress(plane.tobytes(), DEFLATE_LEVEL)
        if len(deflated) < limit:
            return Packed(Method.DEFLATE, deflated)
    return best


def _deflated_share(plane: NDArray[np.uint8]) -> float:
    flat = plane.reshape(-1)
    begins = np.linspace(0, max(0, flat.size - SAMPLE_BYTES), SAMPLES).astype(int)
    pieces = [flat[begin : begin + SAMPLE_BYTES].tobytes() for begin in begins]
    size = sum(len(zlib.compress(piece, DEFLATE_LEVEL)) for piece in pieces)
    return size / max(1, sum(map(len, pieces)))


def _nibbles(plane: NDArray[np.uint8]) -> Packed | None:
    n = len(plane)
    frequency = np.bincount(plane, minlength=256)
    symbols = np.argsort(-frequency, kind="stable")[:SYMBOLS].astype(np.uint8)
    if (n - frequency[symbols].sum()) * EXCEPTION_BYTES > n // 2:
        return None
    number = np.full(256, SYMBOLS, dtype=np.uint8)
    number[symbols] = np.arange(SYMBOLS)
    codes = np.zeros(n + n % 2, dtype=np.uint8)
    codes[:n] = number[plane]
    at = np.flatnonzero(codes == SYMBOLS).astype("<u4")
    codes[at] = 0
    pairs = codes[0::2] | (codes[1::2] << 4)
    return Packed(Method.NIBBLES, symbols.tobytes() + pairs.tobytes() + at.tobytes() + plane[at].tobytes())


def _runs(plane: NDArray[np.uint8]) -> Packed | None:
    begins = np.concatenate([[0], np.flatnonzero(plane[1:] != plane[:-1]) + 1])
    if len(begins) * RUN_BYTES > len(plane) // 2:
        return None
    lengths = np.diff(np.append(begins, len(plane)))
    pieces = -(-lengths // LONGEST_RUN)
    symbols = np.repeat(plane[begins], pieces)
    parts = np.full(len(symbols), LONGEST_RUN, dtype="<u2")
    parts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * LONGEST_RUN
    return Packed(Method.RUNS, symbols.tobytes() + parts.tobytes())


def unpack(packed: memoryview, out: NDArray[Any]) -> None:
    """Fill `out [n]` (contiguous, of an item size as packed) from its packed planes.

    Raises:
        ValueError: bytes that are not the packed planes of `n` such items.
    """
    size, n = out.dtype.itemsize, len(out)
    planes: list[tuple[int, int, int, memoryview]] = []  # first byte, width, method, payload
    at = 0
    for first, width in PLANES[size]:
        begin = at + 1 + LENGTH_BYTES
        at = begin + int.from_bytes(packed[begin - LENGTH_BYTES : begin], "little")
        planes.append((first, width, packed[begin - LENGTH_BYTES - 1], packed[begin:at]))
    if size == 2 and planes[1][2] == Method.CONSTANT:  # small numbers, such as layers
        low, high = (_unpack(method, payload, n, np.dtype("u1")) for _, _, method, payload in planes)
        np.add(low, np.uint16(high[0]) << 8, out=out.view(np.uint16))
        return
    # Backwards: the highest bytes may be written as whole items, whose other bytes then follow.
    for first, width, method, payload in reversed(planes):
        if method == Method.NIBBLES and first + width == 4:
            _nibbles_on_top(payload, out.view("<u4"))
            continue
        plane = _unpack(method, payload, n, np.dtype(f"<u{width}"))
        out.view(f"<u{width}").reshape(n, size // width)[:, first // width] = plane


def _unpack(method: int, payload: memoryview, n: int, item: np.dtype[Any]) -> NDArray[Any]:
    if method == Method.CONSTANT:
        return np.frombuffer(payload, item, 1)
    if method == Method.RAW:
        return np.frombuffer(payload, item, n)
    if method == Method.NIBBLES and item.itemsize == 1:
        values = np.empty(n, dtype="<u4")
        _nibbles_on_top(payload, values)
        return values.view(np.uint8)[3::4]
    if method == Method.RUNS and item.itemsize == 1:
        return _from_runs(payload, n)
    if method == Method.DEFLATE:
        return np.frombuffer(zlib.decompressobj().decompress(payload, max(1, n * item.itemsize)), item, n)
    raise ValueError(f"plane packed by unknown method {method}")


_BYTE = np.arange(256)
_LOW, _HIGH = _BYTE & 15, _BYTE >> 4


def _nibbles_on_top(payload: memoryview, out: NDArray[np.uint32]) -> None:
    """Set the highest byte of the items `out [n]` from a plane of nibbles, the others to zero: two items a look-up."""
    n = len(out)
    pairs, odd = divmod(n, 2)
    symbols = np.frombuffer(payload, np.uint8, SYMBOLS).astype("<u8")
    codes = np.frombuffer(payload, np.uint8, pairs + odd, SYMBOLS)
    two_items = (symbols[_LOW] << 24) | (symbols[_HIGH] << 56)
    np.take(two_items, codes[:pairs], out=out[: 2 * pairs].view("<u8"), mode="clip")  # "raise" would copy
    if odd:
        out[-1] = symbols[codes[-1] & 15] << 24
    rest = payload[SYMBOLS + pairs + odd :]
    n_exceptions, left = divmod(len(rest), EXCEPTION_BYTES)
    if left:
        raise ValueError("plane of nibbles with an incomplete exception")
    if n_exceptions:
        at = np.frombuffer(rest, "<u4", n_exceptions)
        out[at] = np.frombuffer(rest, np.uint8, n_exceptions, LENGTH_BYTES * n_exceptions).astype("<u4") << 24


def _from_runs(payload: memoryview, n: int) -> NDArray[np.uint8]:
    n_runs, left = divmod(len(payload), RUN_BYTES)
    if left:
        raise ValueError("plane of runs with an incomplete run")
    lengths = np.frombuffer(payload, "<u2", n_runs, n_runs)
    if int(lengths.sum(dtype=np.int64)) != n:
        raise ValueError(f"plane of runs of {int(lengths.sum(dtype=np.int64))} values where {n} are expected")
    return np.repeat(np.frombuffer(payload, np.uint8, n_runs), lengths)
