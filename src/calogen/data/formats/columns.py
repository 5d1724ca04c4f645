"""Columns of points in an HDF5 file, kept as checksummed frames: written in order, read anywhere.

Each column is a group `points/<name>` with `bytes` (uint8, the frames one after the other) and `index [frames, 3]`
(int64: first byte, number of bytes, checksum). Every frame but the last holds `frames.MAX_VALUES` points.
The checksum is the sum, modulo 2^63, of the frame's bytes read as little-endian 64-bit words (the last filled up with
zeros): it notices any damage within a word and takes a third of the time of a CRC.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from calogen.data.formats import frames
from calogen.data.formats.hdf5 import MAX_INFLATION, BadFile, dataset
from calogen.data.formats.storage import StoredBytes
from calogen.data.formats.writing import extend

FRAME = frames.MAX_VALUES
CHUNK_BYTES = (1 << 12, 1 << 18)
"""Smallest and largest chunk of the bytes: large ones read fastest, but the last is padded with zeros."""
INDEX_ROWS_PER_CHUNK = 1024
DEFLATE_LEVEL = 4
FRAMES_PER_JOB = 16
"""Frames a thread decodes in one go."""
MAX_THREADS = 4
"""Decoding is bound by memory from here on."""


def _threads() -> int:
    return min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def checksum_of(frame: memoryview) -> int:
    """Sum of the 64-bit words of the bytes, modulo 2^63."""
    words = np.frombuffer(frame[: len(frame) & ~7], "<u8")
    rest = int.from_bytes(frame[len(frame) & ~7 :], "little")
    return (int(words.sum(dtype=np.uint64)) + rest) & ((1 << 63) - 1)


class ColumnReader:
    """Any range of points of the columns `types` (name -> stored type) of a file with `n_points` points.

    Raises:
        BadFile: columns missing, or frames that cannot hold so many points.
    """

    def __init__(self, file: h5py.File, types: dict[str, np.dtype[Any]], *, n_points: int) -> None:
        self._name = file.filename
        self.types = types
        self.n_points = n_points
        self._bytes = {k: StoredBytes(dataset(file, f"points/{k}/bytes", kinds="u", ndim=1)) for k in types}
        self._index = {k: self._checked_index(file, k) for k in types}
        self._check_inflation()

    def _checked_index(self, file: h5py.File, name: str) -> NDArray[np.int64]:
        where = f"{self._name}: points/{name}"
        found = dataset(file, f"points/{name}/index", kinds="i", ndim=2)
        n_frames = -(-self.n_points // FRAME)
        if self.n_points < 0 or found.shape != (n_frames, 3):
            raise BadFile(f"{where}: {self.n_points} points need an index of {n_frames} x 3, found {found.shape}")
        index: NDArray[np.int64] = found[:].astype(np.int64)
        ends = index[:, 0] + index[:, 1]
        starts = np.concatenate([[0], ends[:-1]]) if n_frames else ends
        if np.any(index[:, 1] <= 0) or np.any(index[:, 0] != starts) or ends.max(initial=0) > len(self._bytes[name]):
            raise BadFile(f"{where}: the index does not describe consecutive frames within the stored bytes")
        return index

    def _check_inflation(self) -> None:
        declared = self.n_points * sum(t.itemsize for t in self.types.values())
        stored = sum(len(b) for b in self._bytes.values())
        if declared > MAX_INFLATION * stored + FRAME * len(self.types) * 4:
            raise BadFile(f"{self._name}: declares {self.n_points} points, more than its {stored} bytes can hold")

    def load(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Points `start` to `stop` of every column, as stored.

        Raises:
            BadFile: a frame whose checksum or content is wrong.
        """
        first, last = start // FRAME, -(-stop // FRAME)
        if stop <= start:
            return {k: np.empty(0, dtype=t) for k, t in self.types.items()}
        out = {k: np.empty(min(last * FRAME, self.n_points) - first * FRAME, dtype=t) for k, t in self.types.items()}
        jobs = self._jobs(first, last, out)
        if (last - first) * len(self.types) <= FRAMES_PER_JOB or _threads() == 1:
            for job in jobs:
                self._decode(*job)
        else:
            with ThreadPoolExecutor(_threads()) as pool:
                for done in [pool.submit(self._decode, *job) for job in jobs]:
                    done.result()
        shift = start - first * FRAME
        return {k: values[shift : shift + stop - start] for k, values in out.items()}

    def _jobs(
        self, first: int, last: int, out: dict[str, NDArray[Any]]
    ) -> Iterator[tuple[str, int, int, NDArray[Any]]]:
        for name in self._index:
            for begin in range(first, last, FRAMES_PER_JOB):
                end = min(begin + FRAMES_PER_JOB, last)
                yield name, begin, end, out[name][(begin - first) * FRAME : (end - first) * FRAME]

    def _decode(self, name: str, begin: int, end: int, out: NDArray[Any]) -> None:
        rows = self._index[name][begin:end].tolist()
        # One buffer for all frames, so that each is checked and decoded while the processor's cache holds it.
        buffer = memoryview(np.empty(max(length for _, length, _ in rows), dtype=np.uint8).data)
        for i, (first, length, checksum) in enumerate(rows):
            frame = buffer[:length]
            self._bytes[name].read_into(frame, first)
            where = f"{self._name}: points/{name}: frame {begin + i}"
            if checksum_of(frame) != checksum:
                raise BadFile(f"{where}: wrong checksum: the file was damaged after writing; copy it again")
            try:
                frames.decode(frame, out[i * FRAME : (i + 1) * FRAME])
            except (ValueError, IndexError, zlib.error) as error:
                raise BadFile(f"{where}: {error}") from error


class ColumnWriter:
    """Columns appended batch by batch; `finish` writes what is left.

    Args:
        file: the file, open for writing.
        types: name -> stored type of the columns.
        target_share: size to aim at, as a share of plain float32 columns.
        n_points: points the file already holds (its last, incomplete frame is taken back and filled up).
    """

    def __init__(
        self, file: h5py.File, types: dict[str, np.dtype[Any]], target_share: float, n_points: int = 0
    ) -> None:
        self._file = file
        self.types = types
        self._target_share = target_share
        self._waiting: dict[str, list[NDArray[Any]]] = {k: [] for k in types}
        self._unwritten: dict[str, list[bytes]] = {k: [] for k in types}
        self._n_waiting = n_points % FRAME
        if "points" not in file:
            for name in types:
                self._create(name)
        elif self._n_waiting:
            self._take_back(n_points)

    def _create(self, name: str) -> None:
        group = self._file.create_group(f"points/{name}")
        group.create_dataset(
            "index",
            (0, 3),
            np.int64,
            maxshape=(None, 3),
            chunks=(INDEX_ROWS_PER_CHUNK, 3),
            shuffle=True,
            compression="gzip",
            compression_opts=DEFLATE_LEVEL,
            fletcher32=True,
        )

    def _take_back(self, n_points: int) -> None:
        tail = ColumnReader(self._file, self.types, n_points=n_points).load(n_points - self._n_waiting, n_points)
        for name, values in tail.items():
            self._waiting[name] = [values]
            group = self._file[f"points/{name}"]
            group["bytes"].resize((int(group["index"][-1, 0]),))
            group["index"].resize(len(group["index"]) - 1, axis=0)

    def append(self, values: dict[str, NDArray[Any]]) -> None:
        """Add points: the same number to every column."""
        for name, column in values.items():
            self._waiting[name].append(np.ascontiguousarray(column, dtype=self.types[name]))
            added = len(column)
        self._n_waiting += added
        if self._n_waiting >= FRAME:
            self._write(self._n_waiting // FRAME * FRAME)

    def finish(self) -> None:
        """Write the last, incomplete frame."""
        if self._n_waiting:
            self._write(self._n_waiting)
        for name in self.types:
            self._flush(name)

    def _write(self, n: int) -> None:
        joined = {name: np.concatenate(parts) for name, parts in self._waiting.items()}
        for at in range(0, n, FRAME):
            end = min(at + FRAME, n)
            together = {k: v[at:end] for k, v in joined.items()}
            for name, frame in frames.encode_together(together, self._target_share).items():
                self._append_frame(name, frame)
        self._waiting = {name: [values[n:].copy()] for name, values in joined.items()}
        self._n_waiting -= n

    def _append_frame(self, name: str, frame: bytes) -> None:
        self._unwritten[name].append(frame)
        if sum(map(len, self._unwritten[name])) >= CHUNK_BYTES[1]:
            self._flush(name)

    def _flush(self, name: str) -> None:
        """Write the finished frames of a column and their index."""
        frames_, self._unwritten[name] = self._unwritten[name], []
        content = np.frombuffer(b"".join(frames_), np.uint8)
        stored = self._bytes(name, len(content))
        begin = len(stored)
        lengths = np.array([len(frame) for frame in frames_], dtype=np.int64)
        rows = np.stack(
            [
                begin + np.cumsum(lengths) - lengths,
                lengths,
                np.array([checksum_of(memoryview(frame)) for frame in frames_], dtype=np.int64),
            ],
            axis=1,
        )
        extend(stored, content)
        extend(self._file[f"points/{name}/index"], rows)

    def _bytes(self, name: str, n: int) -> h5py.Dataset:
        """The bytes of a column, created for a first write of `n`."""
        group = self._file[f"points/{name}"]
        if "bytes" not in group:
            chunk = int(np.clip(1 << max(n - 1, 0).bit_length(), *CHUNK_BYTES))
            group.create_dataset("bytes", (0,), np.uint8, maxshape=(None,), chunks=(chunk,))
        return group["bytes"]
