"""CPU seconds of the CaloChallenge's features and histograms of voxels, one thread, beside the same by the definitions.

OMP_NUM_THREADS=1 python benchmarks/high_level_features.py [FILE] [--memory SHOWERS]

Without a file, sparse random voxels of data sets 2 and 3. `--memory` streams so many showers of data set 3 through the
judge's reader and reports the peak memory.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from calogen import Incident, Voxels, read
from calogen.detector.catalog import CALOCHALLENGE_2, CALOCHALLENGE_3
from calogen.detector.geometry import Detector
from calogen.evaluate.calochallenge import observe_voxels
from calogen.evaluate.high_level import high_level
from calogen.evaluate.spectrum import VoxelSpectrum

REPEATS = 5
SHOWERS = 1000
PER = 10_000
BATCH = 500
OCCUPANCY = 0.1


def random_voxels(detector: Detector, n: int, seed: int = 0) -> Voxels:
    rng = np.random.default_rng(seed)
    energy = np.zeros((n, detector.n_cells), dtype=np.float32)
    hit = rng.random(energy.shape, dtype=np.float32) < OCCUPANCY
    energy[hit] = np.exp(2 * rng.standard_normal(int(hit.sum()), dtype=np.float32) - 7)
    return Voxels(energy, Incident.gun(n, pdg=11, energy=(1, 1000), spectrum="log", seed=seed), detector)


def by_definition(voxels: Voxels) -> None:
    """Layer by layer and feature by feature in float64, as the definitions read."""
    d = voxels.detector
    kept = np.where(voxels.energy < np.float32(d.threshold_gev[0]), 0, voxels.energy).astype(np.float64)
    for i, layer in enumerate(d.layers):
        e = kept[:, d.first_cell[i] : d.first_cell[i + 1]]
        total = e.sum(axis=-1) + 1e-19
        1.0 - (e > 0).mean(axis=-1)
        x, y = layer.cells.centre(np.arange(layer.cells.n_cells))
        for v in (x, y, np.hypot(x, y)):
            centre = (v * e).sum(axis=-1) / total
            np.sqrt(((v * v * e).sum(axis=-1) / total - centre**2).clip(min=0))


def spectrum_by_definition(voxels: Voxels) -> None:
    edges = np.geomspace(voxels.detector.threshold_gev[0], voxels.energy.max(), 50)
    np.histogram(voxels.energy.ravel(), edges)


def spectrum(voxels: Voxels) -> None:
    found = VoxelSpectrum(voxels.detector)
    found.add(voxels)
    found.counts(np.geomspace(found.lowest_gev, found.highest_gev, 50))


def cpu_seconds(work: Callable[[Voxels], object], voxels: Voxels, repeats: int = REPEATS) -> float:
    """The fastest of some runs, for `PER` showers."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work(voxels)
        times.append(time.process_time() - start)
    return min(times) * PER / len(voxels)


def speed(voxels: Voxels) -> None:
    print(f"{voxels.detector.name}, {len(voxels)} showers, {np.mean(voxels.energy > 0):.1%} of the voxels hit")
    for what, ours, theirs in (
        ("features", high_level, by_definition),
        ("voxel spectrum", spectrum, spectrum_by_definition),
    ):
        a, b = cpu_seconds(ours, voxels), cpu_seconds(theirs, voxels, 2)
        print(f"  {what:15s} {a:6.3f} CPU s per {PER:,} showers; by the definitions {b:6.2f} ({b / a:.0f} x)")


def memory(n: int) -> None:
    """The same batches again and again, so that only what is kept grows."""
    source = [random_voxels(CALOCHALLENGE_3, BATCH, seed) for seed in range(2)]

    def stream() -> Iterator[Voxels]:
        for i in range(n // BATCH):
            yield source[i % len(source)]

    start, before = time.process_time(), _peak_mb()
    sample = observe_voxels(stream())
    seconds = time.process_time() - start
    print(f"{len(sample):,} showers of data set 3: peak {_peak_mb():.0f} MB ({before:.0f} before), {seconds:.1f} CPU s")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    arguments = sys.argv[1:]
    if "--memory" in arguments:
        memory(int(arguments[arguments.index("--memory") + 1]))
        return
    if arguments:
        voxels = read(Path(arguments[0]), stop=SHOWERS)
        assert isinstance(voxels, Voxels)
        speed(voxels)
        return
    for detector in (CALOCHALLENGE_2, CALOCHALLENGE_3):
        speed(random_voxels(detector, SHOWERS if detector is CALOCHALLENGE_2 else SHOWERS // 4))


if __name__ == "__main__":
    main()
