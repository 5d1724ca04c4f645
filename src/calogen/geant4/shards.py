"""A run on disk: what was asked for (with its fingerprint) and one file a finished shard."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.geant4.scoring import Cells, Points
from calogen.geant4.setup import Setup
from calogen.geant4.stack import stack_from_dict, stack_to_dict

REQUEST = "request.json"
INCIDENT = "incident.npz"
KEEP_TIME = "keep_time"
"""Described only where it is asked for, so that runs begun before there were times can be finished."""


@dataclass(frozen=True)
class Request:
    """Everything that decides the result of a run, and nothing else (not the number of workers).

    ``subcells`` one number a layer; ``shard_size`` events a shard; ``voxels`` whether deposits are also summed
    into the cells of the stack's detector.
    """

    setup: Setup
    incident: Incident
    seed: int
    subcells: tuple[int, ...]
    shard_size: int
    voxels: bool = False

    @property
    def n_shards(self) -> int:
        """Number of shards, the last one may be shorter."""
        return -(-len(self.incident) // self.shard_size)

    def events(self, shard: int) -> range:
        """Numbers of the events of a shard."""
        first = shard * self.shard_size
        return range(first, min(first + self.shard_size, len(self.incident)))

    def describe(self) -> dict[str, Any]:
        """Plain description; equal for equal requests."""
        setup = self.setup
        digest = hashlib.sha256()
        for column in (self.incident.energy, self.incident.direction, self.incident.pdg):
            digest.update(np.ascontiguousarray(column).tobytes())
        described = {
            "stack": stack_to_dict(setup.stack),
            "physics": setup.physics,
            "field_tesla": list(setup.field),
            "cut_mm": setup.cut_mm,
            "time_cut_ns": setup.time_cut_ns,
            "birks_mm_per_mev": setup.birks_mm_per_mev,
            "seed": self.seed,
            "subcells": list(self.subcells),
            "shard_size": self.shard_size,
            "voxels": self.voxels,
            "incident_sha256": digest.hexdigest(),
        }
        return described | ({KEEP_TIME: True} if setup.keep_time else {})


def open_run(folder: Path, request: Request) -> None:
    """Write the request into a new run folder, or check that the folder holds the same one.

    Raises ValueError, naming what differs, when the folder belongs to another request.
    """
    wanted = request.describe()
    path = folder / REQUEST
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        different = sorted(key for key in wanted | there if wanted.get(key) != there.get(key))
        if different:
            raise ValueError(
                f"shards in {folder} belong to another run ({', '.join(different)} differ): "
                "give another folder, or remove this one"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    incident = request.incident
    columns = {"energy": incident.energy, "direction": incident.direction, "pdg": incident.pdg}
    _write_npz(folder / INCIDENT, columns)
    _replace(path, json.dumps(wanted).encode())  # last: its presence says the folder is complete


def forget_run(folder: Path) -> None:
    """Remove a run that Geant4 refused, unless a shard is finished: a corrected request may then use the folder."""
    if any(folder.glob("shard-*.npz")):
        return
    (folder / REQUEST).unlink(missing_ok=True)
    (folder / INCIDENT).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else lies there
        folder.rmdir()


def read_request(folder: Path) -> Request:
    """The request of a run folder."""
    there = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    with np.load(folder / INCIDENT) as columns:
        incident = Incident(columns["energy"], columns["direction"], columns["pdg"])
    setup = Setup(
        stack_from_dict(there["stack"]),
        there["physics"],
        tuple(there["field_tesla"]),
        there["cut_mm"],
        there["time_cut_ns"],
        there["birks_mm_per_mev"],
        there.get(KEEP_TIME, False),
    )
    subcells = tuple(there["subcells"])
    return Request(setup, incident, there["seed"], subcells, there["shard_size"], there["voxels"])


def shard_path(folder: Path, shard: int) -> Path:
    """File of a finished shard."""
    return folder / f"shard-{shard:06d}.npz"


def write_shard(
    folder: Path,
    shard: int,
    incident: Incident,
    points: list[Points],
    voxels: list[Cells],
    cpu_s: list[float],
) -> None:
    """Write a shard under a temporary name and rename it: a file that is there is complete.

    Columns: `x, y` mm, `layer`, `energy` GeV and, where it is kept, `time` ns `[P]`; `offsets [n+1]`;
    `energy_gev, direction, pdg, cpu_s [n]` (CPU seconds a shower); `voxels [n, cells]` GeV where they were asked for;
    `outside_gev, faint_gev [n]`: what the voxels (or else the points) did not keep.
    """
    kept: Sequence[Cells] | Sequence[Points] = voxels or points
    counts = [len(p.energy) for p in points]
    columns: dict[str, NDArray[Any]] = {
        "x": np.concatenate([p.x for p in points]),
        "y": np.concatenate([p.y for p in points]),
        "layer": np.concatenate([p.layer for p in points]),
        "energy": np.concatenate([p.energy for p in points]),
        "offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "energy_gev": incident.energy,
        "direction": incident.direction,
        "pdg": incident.pdg,
        "cpu_s": np.asarray(cpu_s),
        "outside_gev": np.array([k.lost.outside for k in kept]),
        "faint_gev": np.array([k.lost.faint for k in kept]),
    }
    times = [p.time for p in points if p.time is not None]
    if times:
        columns["time"] = np.concatenate(times)
    if voxels:
        columns["voxels"] = np.stack([cells.energy for cells in voxels])
    _write_npz(shard_path(folder, shard), columns)


def _write_npz(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    with _replacing(path) as file:
        np.savez(file, **columns)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes) -> None:
    with _replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` when it is whole; a failure names `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
