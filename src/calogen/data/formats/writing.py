"""Files being written: they appear whole or not at all, grow row by row, and a failure names the file asked for."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from calogen.data.formats.hdf5 import FilePath

CHUNK_BYTES = 1 << 18
"""Chunks written in the formats of others: 256 kB, small enough to reach one shower, large enough to compress."""
DEFLATE_LEVEL = 4  # higher levels take longer and gain a few per cent

SPARE_BYTES = 1 << 20
"""Room that must be left on the disk: for what HDF5 writes besides the values."""

LIBRARY_VERSIONS = ("v110", "v110")
"""File format of HDF5 1.10 and later, whose metadata carry checksums."""

_ERRNO = re.compile(r"errno = (\d+)")
"""How HDF5 says in its messages why the system refused."""


def refuse_existing(path: FilePath, *, overwrite: bool) -> None:
    """Raise ValueError if `path` exists and may not be overwritten."""
    if Path(os.fspath(path)).exists() and not overwrite:
        raise ValueError(f"{os.fspath(path)} exists; choose another name or allow overwriting (--overwrite)")


@contextmanager
def replacing(path: FilePath, *, overwrite: bool) -> Iterator[Path]:
    """A temporary name beside `path`; renamed to `path` if the block ends well, removed otherwise.

    Raises:
        ValueError: `path` exists and `overwrite` is false, or its folder does not exist.
        OSError: the system does not let it be written (no permission, no space, ...); names `path`.
    """
    target = Path(os.fspath(path))
    refuse_existing(target, overwrite=overwrite)
    if not target.parent.is_dir():
        raise ValueError(f"cannot write {target}: the directory {target.parent} does not exist; create it first")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        refuse_existing(target, overwrite=overwrite)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        if name not in f"{error} {getattr(error, 'filename', '')}":
            raise
        raise _cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cannot_write(target: Path, error: Exception) -> OSError:
    found = _ERRNO.search(str(error))
    number = getattr(error, "errno", None) or (int(found[1]) if found else 0)
    why = os.strerror(number) if number else "the HDF5 library failed"
    return OSError(number, f"cannot be written: {why}", os.fspath(target))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def new_file(path: FilePath, *, overwrite: bool) -> Iterator[h5py.File]:
    """A new HDF5 file that appears at `path` if the block ends well, and not at all otherwise."""
    with replacing(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        yield file


def require_room(path: FilePath, n_bytes: int) -> None:
    """Raise OSError if the disk of `path` has no room for so many bytes: HDF5 itself would say so late, and crash."""
    if shutil.disk_usage(Path(path).parent).free < n_bytes + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


def growing(
    file: h5py.File, name: str, tail: tuple[int, ...], dtype: DTypeLike, *, chunk_bytes: int = CHUNK_BYTES
) -> h5py.Dataset:
    """A compressed dataset of no rows of shape `tail`, for `extend`."""
    row = max(1, math.prod(tail)) * np.dtype(dtype).itemsize
    return file.create_dataset(
        name,
        (0, *tail),
        dtype,
        maxshape=(None, *tail),
        chunks=(max(1, chunk_bytes // row), *tail),
        shuffle=True,
        compression="gzip",
        compression_opts=DEFLATE_LEVEL,
    )


def extend(rows: h5py.Dataset, values: NDArray[Any]) -> None:
    """Add rows at the end of a dataset; OSError where the disk has no room for them."""
    require_room(rows.file.filename, values.nbytes)
    n = rows.shape[0]
    rows.resize(n + len(values), axis=0)
    rows[n:] = values
