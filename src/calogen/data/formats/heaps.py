"""Global heaps of HDF5 checked before the library walks them: a damaged one would make it loop for ever.

Texts in attributes and the points of ShowerData files lie in such heaps ("GCOL" in the HDF5 file format specification,
III.E): a header of signature, version and size, then objects of index, reference count and size. HDF5 steps from
object to object by their sizes without checking that a step is longer than nothing.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"GCOL"
VERSION_1 = SIGNATURE + b"\x01\x00\x00\x00"
COLLECTION_HEADER_BYTES = 16  # signature, version and reserved, size
OBJECT_HEADER_BYTES = 16  # index, reference count, reserved, size
ALIGNMENT = 8

REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
"""How a dataset refers to a variable-length value: number of items, address of the collection, object in it."""


def check_everywhere(path: str | os.PathLike[str]) -> None:
    """Check every global heap of a file; reads the file once.

    Raises:
        ValueError: a damaged heap.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(VERSION_1)
        while at >= 0:
            objects_of(content, at)
            at = content.find(VERSION_1, at + len(VERSION_1))


def check_references(path: str | os.PathLike[str], references: NDArray[Any], item_bytes: int) -> None:
    """Check the heaps that `references` (of type `REFERENCE`) point to, and that they hold values of those lengths.

    Raises:
        ValueError: a damaged heap, or a reference that does not fit its object.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        known: dict[int, dict[int, int]] = {}
        for length, address, index in references.tolist():
            if length == 0:
                continue
            if address not in known:
                known = {address: objects_of(content, address)}
            if known[address].get(index, 0) < length * item_bytes:
                raise ValueError(f"a value of {length} items does not fit its place in the heap at byte {address}")


def objects_of(content: mmap.mmap, at: int) -> dict[int, int]:
    """Index -> size of the objects of the collection at byte `at`.

    Raises:
        ValueError: not a collection, or objects that do not follow each other within it.
    """
    if content[at : at + len(VERSION_1)] != VERSION_1:
        raise ValueError(f"no heap at byte {at}")
    end = at + int.from_bytes(content[at + 8 : at + COLLECTION_HEADER_BYTES], "little")
    if end > len(content):
        raise ValueError(f"the heap at byte {at} reaches beyond the file")
    sizes: dict[int, int] = {}
    here = at + COLLECTION_HEADER_BYTES
    while here + OBJECT_HEADER_BYTES <= end:
        index = int.from_bytes(content[here : here + 2], "little")
        size = int.from_bytes(content[here + 8 : here + OBJECT_HEADER_BYTES], "little")
        step = size if index == 0 else OBJECT_HEADER_BYTES + -(-size // ALIGNMENT) * ALIGNMENT
        if step < OBJECT_HEADER_BYTES or here + step > end:
            raise ValueError(f"the heap at byte {at} is damaged")
        if index:
            sizes[index] = size
        here += step
    return sizes
