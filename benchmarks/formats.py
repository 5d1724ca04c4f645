"""Size and reading time of calogen's files against showerdata's, for the same showers, in one run.

    python benchmarks/formats.py [FILE ...]

takes synthetic showers (10,000 of 1,000 points, and as many of 420 to 1,580 points, every bit of every number random)
and the showers of the files given. Times are the best of five, wall and CPU, of reading the whole file into memory.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import showerdata

from calogen import ILD_ECAL, Incident, Showers
from calogen.data import formats
from calogen.data.formats.ragged import offsets_of

REPEATS = 5
N_SHOWERS = 10_000
N_POINTS = 1_000
MM = 30.0  # width of the synthetic showers
GEV = 1e-3  # mean energy of a synthetic point


def synthetic(counts: np.ndarray) -> Showers:
    """Points of a Gaussian profile in no order: as hard to compress as showers can be."""
    rng = np.random.default_rng(0)
    p = int(counts.sum())
    return Showers(
        rng.normal(0, MM, p),
        rng.normal(0, MM, p),
        rng.integers(0, ILD_ECAL.n_layers, p),
        rng.exponential(GEV, p),
        offsets_of(counts),
        Incident.gun(len(counts)),
        ILD_ECAL,
    )


def by_layer(showers: Showers) -> Showers:
    """The same with the points of each shower in order of their layer, as simulation and models give them."""
    order = np.lexsort((showers.layer, showers.shower_index))
    columns = [getattr(showers, name)[order] for name in ("x", "y", "layer", "energy")]
    return Showers(*columns, showers.offsets, showers.incident, showers.detector)


def best(action: Callable[[], Any]) -> tuple[float, float]:
    """Shortest wall and CPU time of an action, in s."""
    times = []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        kept = action()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        del kept
    return min(t[0] for t in times), min(t[1] for t in times)


def samples(paths: list[str]) -> Iterator[tuple[str, Showers]]:
    """Name and showers of each case."""
    fixed = synthetic(np.full(N_SHOWERS, N_POINTS))
    yield f"{N_SHOWERS} x {N_POINTS}, all random", fixed
    yield f"{N_SHOWERS} x {N_POINTS}, random, by layer", by_layer(fixed)
    counts = np.random.default_rng(1).integers(420, 1581, N_SHOWERS)
    yield f"{N_SHOWERS} x 420-1580, random, by layer", by_layer(synthetic(counts))
    for path in paths:
        showers = formats.read(path)
        if isinstance(showers, Showers):
            yield Path(path).name, showers


def main(paths: list[str]) -> None:
    """Print one table."""
    print("size against showerdata, exact and compact; time to read all, wall / CPU; how much faster, wall and CPU")
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Path(folder) / "showerdata.h5", Path(folder) / "calogen.h5"
        for name, showers in samples(paths):
            formats.write(theirs, showers, format="showerdata", overwrite=True)
            size = theirs.stat().st_size
            formats.write(ours, showers, precision="compact", overwrite=True)
            compact = ours.stat().st_size / size
            formats.write(ours, showers, overwrite=True)
            exact = ours.stat().st_size / size
            a, b = best(lambda: showerdata.load(theirs)), best(lambda: formats.read(ours))
            print(
                f"{name:38} {exact:6.1%} {compact:7.1%}   {a[0]:8.3f} / {a[1]:5.3f} s {b[0]:6.3f} / {b[1]:5.3f} s "
                f"{a[0] / b[0]:9.2f} {a[1] / b[1]:9.2f}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
