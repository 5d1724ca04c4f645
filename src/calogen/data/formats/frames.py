"""Chunk codec: byte planes, each deflated only if that pays. Its output is plain HDF5 shuffle + deflate.

The low mantissa bytes of measured floats are noise that no compressor shrinks; putting them into stored (uncompressed)
deflate blocks makes writing and reading several times faster than deflating everything. The stream of a chunk is
one valid zlib stream (RFC 1950) with its Adler-32 checksum, so any HDF5 library reads and verifies it.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOISE_BITS = 7.5
"""Entropy in bits per byte from which a plane is stored as it is: deflating it would save less than 6 %."""

ZLIB_HEADER = b"\x78\x01"  # RFC 1950: deflate, 32 kB window, fastest
FINAL_BLOCK = b"\x03\x00"  # RFC 1951: a last, empty block
ADLER_BYTES = 4
DEFLATE_LEVEL = 4


def encode(values: NDArray[Any]) -> bytes:
    """The shuffled and deflated bytes of one chunk `[n]`."""
    planes = np.ascontiguousarray(values.view(np.uint8).reshape(len(values), values.dtype.itemsize).T)
    body = b"".join(_deflate(plane) for plane in planes)
    return ZLIB_HEADER + body + FINAL_BLOCK + zlib.adler32(planes.data).to_bytes(ADLER_BYTES, "big")


def _deflate(plane: NDArray[np.uint8]) -> bytes:
    level = 0 if _entropy_bits(plane) > NOISE_BITS else DEFLATE_LEVEL
    stream = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    return stream.compress(plane.tobytes()) + stream.flush(zlib.Z_FULL_FLUSH)


def _entropy_bits(plane: NDArray[np.uint8]) -> float:
    share = np.bincount(plane, minlength=256) / max(1, len(plane))
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())
