"""The place of an unfiltered dataset's bytes in its file, so that threads can read them side by side.

HDF5 allows one thread at a time; plain reads at the addresses it gives do not wait for each other.
"""

from __future__ import annotations

import os
from typing import Any

import h5py
import numpy as np

from calogen.data.formats.hdf5 import BadFile


class StoredBytes:
    """The content of a one-dimensional uint8 dataset in unfiltered chunks, of an open file.

    Raises:
        BadFile: stored in another way, or chunks missing.
    """

    def __init__(self, found: h5py.Dataset) -> None:
        self._where = f"{found.file.filename}: {found.name}"
        self._fd: int = found.file.id.get_vfd_handle()
        self._n = int(found.shape[0])
        if found.dtype != np.uint8 or found.chunks is None or found.id.get_create_plist().get_nfilters():
            raise BadFile(f"{self._where}: expected bytes (uint8) in chunks without filters")
        self._chunk = int(found.chunks[0])
        self._address = np.full(-(-self._n // self._chunk), -1, dtype=np.int64)
        found.id.chunk_iter(self._note)
        if np.any(self._address < 0):
            raise BadFile(f"{self._where}: chunks are missing")

    def _note(self, info: Any) -> None:
        i = info.chunk_offset[0] // self._chunk
        if i < len(self._address) and info.byte_offset is not None:
            self._address[i] = info.byte_offset

    def __len__(self) -> int:
        return self._n

    def read_into(self, out: memoryview, start: int) -> None:
        """Fill `out` with the bytes from `start` on; may be called from several threads."""
        at, stop = start, start + len(out)
        while at < stop:
            i, inside = divmod(at, self._chunk)
            end = min(stop, (i + 1) * self._chunk)
            part = out[at - start : end - start]
            if os.preadv(self._fd, [part], int(self._address[i]) + inside) != len(part):
                raise BadFile(f"{self._where}: the file ends within its data; it is truncated")
            at = end
