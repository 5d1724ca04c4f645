"""Guarded HDF5: files opened for reading are distrusted.

A file can come from anywhere. Before anything is read, its structure is checked against what is stored: plain
numeric datasets, no links out of the file, no declared size that its bytes cannot hold. Every failure is one `BadFile`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calogen.data.formats import heaps

FilePath = str | os.PathLike[str]

MAX_INFLATION = 1100
"""Deflate cannot shrink by more than 1032 (zlib's technical details); a dataset declaring more holds no data."""

MAX_CHUNK_BYTES = 1 << 30
"""One chunk is read whole; 1 GiB is far above any chunk in use and still fits a laptop."""

MAX_ATTRIBUTE_BYTES = 4_000_000
"""A header text larger than this is refused unread (a detector of a hundred layers takes 20 kB)."""

MAX_SCANNED_BYTES = 1 << 30
"""Variable-length texts are read only from files up to here, because their heaps are searched for and checked first."""

CHUNK_SLACK_BYTES = 4096
"""A stored chunk may exceed its content by the overhead of an incompressible stream, never by more."""


class BadFile(ValueError):
    """A file that cannot be used: one line with the file, the place in it, what is wrong and what would be right."""


@contextmanager
def blamed_on(path: FilePath, where: str = "") -> Iterator[None]:
    """Turn any failure while reading `path` into a `BadFile` naming it; `where` adds the place."""
    place = f"{os.fspath(path)}: {where}: " if where else f"{os.fspath(path)}: "
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # the values are checked, and refused in words
            yield
    except BadFile:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, IndexError, AttributeError, OverflowError) as error:
        raise BadFile(place + _one_line(error)) from error
    except (MemoryError, ArithmeticError, AssertionError, EOFError, NotImplementedError) as error:
        raise BadFile(place + f"{type(error).__name__} {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__


@contextmanager
def open_read(path: FilePath) -> Iterator[h5py.File]:
    """The file at `path`, read-only; failures to open it are reported as `BadFile`.

    Raises:
        BadFile: no such file, empty, not HDF5, truncated.
    """
    name = os.fspath(path)
    if not Path(name).exists():
        raise BadFile(f"{name}: no such file")
    if not Path(name).is_file():
        raise BadFile(f"{name}: not a regular file")
    if Path(name).stat().st_size == 0:
        raise BadFile(f"{name}: the file is empty (0 bytes)")
    with blamed_on(path):
        try:
            if not h5py.is_hdf5(name):
                raise BadFile(f"{name}: not an HDF5 file (no HDF5 signature)")
            file = h5py.File(name, "r")
        except OSError as error:
            raise BadFile(f"{name}: damaged or truncated HDF5 file ({_one_line(error)})") from error
    with file:
        yield file


def has(file: h5py.File | h5py.Group, name: str) -> bool:
    """Whether `name` is an object of this file itself, reached without soft or external links."""
    links, parts = file.id.links, name.encode().split(b"/")
    for i in range(len(parts)):
        here = b"/".join(parts[: i + 1])
        if not links.exists(here) or links.get_info(here).type != h5py.h5l.TYPE_HARD:
            return False
        if i + 1 < len(parts) and h5py.h5o.get_info(file.id, here).type != h5py.h5o.TYPE_GROUP:
            return False
    return True


def dataset(
    file: h5py.File, name: str, *, kinds: str = "iuf", ndim: int | tuple[int, ...] | None = None
) -> h5py.Dataset:
    """The dataset `name`, checked to be plain numbers of one of the `kinds` that the file really stores.

    Raises:
        BadFile: missing, a link, the wrong type or rank, or a declared size its stored bytes cannot hold.
    """
    where = f"{file.filename}: {name}"
    if not has(file, name):
        raise BadFile(f"{where}: missing, or a link out of the file")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise BadFile(f"{where}: a group, where a dataset is expected")
    if found.dtype.kind not in kinds or (found.dtype.kind == "O" and h5py.check_vlen_dtype(found.dtype) is None):
        raise BadFile(f"{where}: holds {found.dtype}, where numbers ({_kind_names(kinds)}) are expected")
    if found.shape is None:
        raise BadFile(f"{where}: holds nothing (null dataspace)")
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if allowed is not None and found.ndim not in allowed:
        raise BadFile(f"{where}: has {found.ndim} axes {found.shape}, expected {' or '.join(map(str, allowed))}")
    _check_storage(found, where)
    return found


def _kind_names(kinds: str) -> str:
    names = {"i": "integers", "u": "unsigned integers", "f": "floats", "O": "variable-length"}
    return ", ".join(names[k] for k in kinds)


def _check_storage(found: h5py.Dataset, where: str) -> None:
    if found.is_virtual or found.external:
        raise BadFile(f"{where}: its values lie in other files; copy them into one file first")
    item = found.dtype.itemsize
    declared = _product(found.shape) * item
    if found.chunks is None:
        if found.id.get_storage_size() < declared and found.id.get_create_plist().get_layout() != h5py.h5d.COMPACT:
            raise BadFile(f"{where}: declares {declared} bytes but stores {found.id.get_storage_size()}")
        return
    chunk = _product(found.chunks) * item
    if chunk > MAX_CHUNK_BYTES:
        raise BadFile(f"{where}: chunks of {chunk} bytes exceed the limit of {MAX_CHUNK_BYTES}")
    stored = found.id.get_storage_size()
    filtered = found.id.get_create_plist().get_nfilters() > 0
    if declared > (stored * MAX_INFLATION if filtered else stored) + chunk:
        raise BadFile(f"{where}: declares {declared} bytes, more than its {stored} stored bytes can hold")
    if filtered:
        _check_chunks(found, chunk, where)


def _check_chunks(found: h5py.Dataset, chunk_bytes: int, where: str) -> None:
    largest = 2 * chunk_bytes + CHUNK_SLACK_BYTES

    def too_large(info: Any) -> bool | None:
        return True if info.size > largest else None

    if found.id.chunk_iter(too_large):
        raise BadFile(f"{where}: a stored chunk is larger than the {largest} bytes its content can need")


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= int(n)
    return size


def same_length(file: h5py.File, datasets: dict[str, h5py.Dataset], n: int) -> None:
    """Raise BadFile unless each dataset has `n` rows."""
    for name, found in datasets.items():
        if found.shape[0] != n:
            raise BadFile(f"{file.filename}: {name}: has {found.shape[0]} rows, expected {n}")


def fixed_text(text: str) -> np.bytes_:
    """A text to be stored with its length, inside the checksummed header (not in a heap without checksum)."""
    return np.bytes_(text.encode("utf-8"))


def text_attribute(file: h5py.File, name: str) -> str | None:
    """A text of the header, or None if there is none.

    Raises:
        BadFile: not a text, or larger than `MAX_ATTRIBUTE_BYTES`.
    """
    if not h5py.h5a.exists(file.id, name.encode()):
        return None
    value = _attribute(file, name)
    if not isinstance(value, str):
        raise BadFile(f"{file.filename}: attribute {name} should be a text of at most {MAX_ATTRIBUTE_BYTES} bytes")
    return value


def _attribute(file: h5py.File, name: str) -> Any:
    """A number, text or list of numbers; None for anything else or larger than `MAX_ATTRIBUTE_BYTES`."""
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    text = isinstance(kind, h5py.h5t.TypeStringID)
    if attribute.get_storage_size() > MAX_ATTRIBUTE_BYTES or not (text or attribute.dtype.kind in "iufb"):
        return None
    if text and kind.is_variable_str():
        if attribute.shape != () or Path(file.filename).stat().st_size > MAX_SCANNED_BYTES:
            return None
        heaps.check_everywhere(file.filename)
    value = file.attrs[name]
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return value


def json_attribute(file: h5py.File, name: str) -> Any:
    """The JSON value of a header text, or None if there is none.

    Raises:
        BadFile: not JSON.
    """
    text = text_attribute(file, name)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{file.filename}: attribute {name} is not JSON: {_one_line(error)}") from error


def plain_attributes(file: h5py.File) -> dict[str, Any]:
    """All small attributes of the header as plain Python values; large or unusual ones are left out."""
    found = {name: _attribute(file, name) for name in file.attrs}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float | bool | list)}
