"""Simulated photons against the published histograms of 100,000 photons in the full ILD.

    GEANT4_DATA_DIR=... python benchmarks/geant4_reference.py HISTOGRAMS.npz --showers 1500 --workers 2

Prints visible energy, odd/even ratio and energy per layer with their statistical errors, and the response's
linearity and resolution. HISTOGRAMS is `scripts/plotting/standard_metrics_ref/Geant_4.npz` of the CaloClouds3 code.
`--shards FOLDER` keeps finished shards, so that a run can be stopped and continued.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.geant4.ild import PLATES_MM
from calogen.geant4.run import make_request, run_shards

REFERENCE_SHOWERS = 100_000
ENERGY_GEV = (10.0, 100.0)
REFERENCE_HALF_WIDTH_MM = 200.0  # the histograms hold points within this distance of the axis
SHARE = 0.02  # layers below this share of the energy are not judged
BOOTSTRAPS = 200


def stratified(n: int) -> Incident:
    """Perpendicular photons at evenly spaced energies in random order: the spectrum adds no noise."""
    low, high = ENERGY_GEV
    energies = low + (high - low) * (np.random.default_rng(0).permutation(n) + 0.5) / n
    return Incident(energies, np.tile([0.0, 0.0, 1.0], (n, 1)), np.full(n, 22))


def odd_to_even(layers: NDArray[np.float64]) -> float:
    """Energy of the odd layers 9 to 15 over that of the even layers 10 to 16, the core of the shower."""
    return float(layers[9:16:2].sum() / layers[10:17:2].sum())


def simulated(n: int, workers: int, shards: Path | None) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Energy per layer `[N, 30]` GeV, incident energy `[N]` GeV, CPU seconds a shower."""
    layers, energy, cpu_s = [], [], []
    request = make_request("ild-ecal", stratified(n), seed=1)
    for shard in run_shards(request, workers=workers, shard_dir=shards, progress=lambda *d: print(*d, end="\r")):
        s = shard.showers
        near = (np.abs(s.x) < REFERENCE_HALF_WIDTH_MM) & (np.abs(s.y) < REFERENCE_HALF_WIDTH_MM)
        cell = s.shower_index[near] * s.detector.n_layers + s.layer[near]
        flat = np.bincount(cell, s.energy[near], minlength=len(s) * s.detector.n_layers)
        layers.append(flat.reshape(len(s), -1))
        energy.append(s.incident.energy)
        cpu_s.append(shard.cpu_s)
    return np.concatenate(layers), np.concatenate(energy), float(np.concatenate(cpu_s).mean())


def main() -> None:
    """Simulate, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("histograms", type=Path)
    parser.add_argument("--showers", type=int, default=1500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shards", type=Path)
    options = parser.parse_args()
    with np.load(options.histograms) as file:
        reference = file["counts_3"] / REFERENCE_SHOWERS
    layers, energy, cpu_s = simulated(options.showers, options.workers, options.shards)
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(layers), (BOOTSTRAPS, len(layers)))
    resampled = np.array([layers[draw].mean(axis=0) for draw in draws])
    mean = layers.mean(axis=0)

    print(f"{len(layers)} showers, {cpu_s:.2f} CPU s a shower")
    total, error = mean.sum() / reference.sum(), resampled.sum(axis=1).std() / reference.sum()
    print(f"visible energy {mean.sum():.4f} GeV, reference {reference.sum():.4f}: ratio {total:.4f} +- {error:.4f}")
    ratio, error = odd_to_even(mean), np.std([odd_to_even(r) for r in resampled])
    print(f"odd/even {ratio:.4f} +- {error:.4f}, reference {odd_to_even(reference):.4f}")
    print("layer  share %  deviation %  error %")
    for i, part in enumerate(reference / reference.sum()):
        mark = "" if part > SHARE else "  (not judged)"
        deviation, error = mean[i] / reference[i] - 1, resampled[:, i].std() / reference[i]
        print(f"{i:5d}  {100 * part:7.2f}  {100 * deviation:+11.1f}  {100 * error:7.1f}{mark}")
    response(layers @ (np.array(PLATES_MM) / PLATES_MM[0]), energy)


def response(weighted: NDArray[np.float64], energy: NDArray[np.float64]) -> None:
    """Print linearity and resolution of the energy weighted with the tungsten of each layer."""
    ratio = weighted / energy
    print("   GeV  response  sigma/E*sqrt(E) %")
    for low in range(10, 100, 15):
        chosen = (energy >= low) & (energy < low + 15)
        mine, root = ratio[chosen], np.sqrt(energy[chosen].mean())
        print(
            f"{low:3d}-{low + 15:3d}  {mine.mean() / ratio.mean():7.4f}  {100 * mine.std() / mine.mean() * root:7.1f}"
        )


if __name__ == "__main__":
    main()
