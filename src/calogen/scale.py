"""Generation in shards, kept until all are there, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from calogen.data.formats import read
from calogen.data.formats.native import Writer
from calogen.data.incident import Incident
from calogen.data.projection import voxelize
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector
from calogen.provenance import provenance

SHARD_SIZE = 1000
"""Showers a shard: seconds of work, which is what a kill can cost."""

REQUEST = "request.json"

Progress = Callable[[int, int], None]
"""Called with (finished showers, all showers)."""


class Generator(Protocol):
    """Anything that turns particles into showers; shower `first + i` is a function of that number and the seed."""

    detector: Detector

    @property
    def sample(self) -> Callable[..., Showers]:
        """`sample(incident, seed=, batch_size=, first=, **options)`: one shower for each particle."""
        ...


@dataclass(frozen=True)
class Generated:
    """What a run made: how many showers, and the seconds a shower of those that were made now (not resumed)."""

    showers: int
    seconds_per_shower: float | None


def generate(
    system: Generator,
    incident: Incident,
    path: str | Path,
    *,
    seed: int,
    options: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    batch_size: int = 64,
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Generated:
    """Write one shower for each particle to `path`, in calogen's format.

    Args:
        system: what to sample from.
        incident: the particles.
        path: the file; it appears when all showers are there.
        seed: same seed, same showers, whatever the batch or shard size.
        options: further options of `system.sample`.
        about: facts for the provenance (the name of the state); with the rest they tell one run from another.
        batch_size: showers computed together.
        shard_size: showers a shard.
        overwrite: replace an existing file.
        progress: called after each shard.

    Raises:
        ValueError: an existing file, or shards of another request left beside it.
    """
    path = Path(path)
    folder = path.with_name(f".{path.name}.shards")
    options, about = options or {}, about or {}
    _open(folder, {"seed": seed, "shard_size": shard_size, "incident": _digest(incident), **options, **about})
    firsts = range(0, len(incident), shard_size)
    seconds, made = 0.0, 0
    try:
        for first in firsts:
            part, file = incident[first : first + shard_size], _shard_file(folder, first)
            if not file.exists():
                start = time.perf_counter()
                showers = system.sample(part, seed=seed, batch_size=batch_size, first=first, **options)
                seconds, made = seconds + time.perf_counter() - start, made + len(part)
                _keep(voxelize(showers)[0] if getattr(system, "events", "points") == "voxels" else showers, file)
            if progress is not None:
                progress(first + len(part), len(incident))
    finally:
        if not _shard_file(folder, 0).exists():
            shutil.rmtree(folder)
    each = seconds / made if made else None
    facts = provenance(seed=seed, seconds_per_shower=each, **options, **about)
    with Writer(path, system.detector, provenance=facts, overwrite=overwrite) as writer:
        for first in firsts:
            writer.append(read(_shard_file(folder, first)))
    shutil.rmtree(folder)
    return Generated(len(incident), each)


def _keep(events: Showers | Voxels, file: Path) -> None:
    with Writer(file, events.detector) as writer:
        writer.append(events)


def _shard_file(folder: Path, first: int) -> Path:
    return folder / f"from-{first:09d}.h5"


def _open(folder: Path, request: dict[str, Any]) -> None:
    """Make the folder, or check that it holds shards of the same request."""
    file = folder / REQUEST
    text = json.dumps(request, sort_keys=True, default=str)
    if file.exists():
        if file.read_text(encoding="utf-8") != text:
            raise ValueError(f"{folder} holds an unfinished run of other options: finish it, or remove that folder")
        return
    folder.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _digest(incident: Incident) -> str:
    digest = hashlib.sha256()
    for column in (incident.energy, incident.direction, incident.pdg):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
