"""High-level features of voxels as the CaloChallenge defines them (arXiv:2410.21611), from one pass over the cells.

Energies, centres and widths of a layer follow from seven sums that are linear in the cell energies: each run of equal
layers is one matrix product, a cache-sized piece at a time, in float64. The challenge's eta and phi are our local x
and y: distances in mm along the beam and across it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.data.voxels import Voxels
from calogen.detector.geometry import Detector, Layer, PolarCells
from calogen.evaluate.voxel_hits import cut, least_energy
from calogen.units import GEV_PER_MEV, MEV_PER_GEV

PIECE_CELLS = 1 << 16
"""Cells handled at once: their float64 copy stays in the processor's cache."""
NO_ENERGY_GEV = 1e-16 * GEV_PER_MEV
"""Added to a layer's energy before dividing by it (1e-16 MeV in the challenge's code)."""
LOG_FLOOR_MEV = 1e-8
"""Added to energies before their logarithm is taken, in the inputs of the challenge's classifiers."""
MM_PER_INPUT = 100.0
"""Centres and widths are given to the challenge's classifiers in units of 100 mm."""

_MOMENTS = 7  # of a layer: sums of E, xE, yE, rE, x^2 E, y^2 E, r^2 E


@dataclass(frozen=True, eq=False)
class HighLevel:
    """Features of N showers, cells below the readout threshold left out.

    `layer_energy [N, layers]` GeV; `layer_hits [N, layers]` cells above threshold; `centre_*`, `width_*` `[N, layers]`
    mm, energy-weighted mean and standard deviation in x (the challenge's eta), y (phi) and the radius: 0 in a layer
    without energy, and in x and y also where rings are not cut in sectors (see `angular_layers`).
    About 2.7 kB a shower with 45 layers.
    """

    incident: Incident
    detector: Detector
    layer_energy: NDArray[np.float64]
    layer_hits: NDArray[np.int32]
    centre_x: NDArray[np.float64]
    centre_y: NDArray[np.float64]
    centre_r: NDArray[np.float64]
    width_x: NDArray[np.float64]
    width_y: NDArray[np.float64]
    width_r: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.incident)

    def __getitem__(self, which: Any) -> HighLevel:
        return HighLevel(self.incident[which], self.detector, *(getattr(self, name)[which] for name in _ROWS))

    @classmethod
    def concatenate(cls, parts: Sequence[HighLevel]) -> HighLevel:
        """The rows of all parts, one after the other.

        Raises:
            ValueError: no parts, or parts of different detectors.
        """
        if not parts:
            raise ValueError("no showers: the sample is empty")
        detector = parts[0].detector
        for part in parts:
            if part.detector != detector:
                raise ValueError(f"features of {part.detector.name!r} cannot be joined to those of {detector.name!r}")
        rows = (np.concatenate([getattr(p, name) for p in parts]) for name in _ROWS)
        return cls(Incident.concatenate([p.incident for p in parts]), detector, *rows)

    @property
    def incident_energy(self) -> NDArray[np.float32]:
        """Energy of each incident particle, `[N]` GeV."""
        return np.asarray(self.incident.energy)

    @property
    def direction(self) -> NDArray[np.float32]:
        """Direction of each incident particle, `[N, 3]`."""
        return np.asarray(self.incident.direction)

    @property
    def pdg(self) -> NDArray[np.int32]:
        """PDG code of each incident particle, `[N]`."""
        return np.asarray(self.incident.pdg)

    @property
    def hits(self) -> NDArray[np.int64]:
        """Cells above threshold in all layers, `[N]`."""
        return np.asarray(self.layer_hits.sum(axis=1))

    @property
    def visible_energy(self) -> NDArray[np.float64]:
        """Energy of all layers, `[N]` GeV."""
        return np.asarray(self.layer_energy.sum(axis=1))

    @property
    def energy_ratio(self) -> NDArray[np.float64]:
        """Energy of all layers over the incident energy, `[N]`."""
        return self.visible_energy / self.incident_energy.astype(np.float64)

    @property
    def sparsity(self) -> NDArray[np.float64]:
        """Share of each layer's cells that are not hit, `[N, layers]`."""
        return 1.0 - self.layer_hits / self.detector.cells_per_layer


_ROWS = ("layer_energy", "layer_hits", "centre_x", "centre_y", "centre_r", "width_x", "width_y", "width_r")


def angular_layers(detector: Detector) -> NDArray[np.int64]:
    """Layers that have a centre in x and y: all but those of whole rings."""
    return np.array([i for i, layer in enumerate(detector.layers) if _has_angle(layer)], dtype=np.int64)


def _has_angle(layer: Layer) -> bool:
    return not isinstance(layer.cells, PolarCells) or layer.cells.n_alpha > 1


# ---- from voxels to features ----


@dataclass(frozen=True, eq=False)
class _Run:
    """Consecutive layers of equal cells and thresholds: `weights [cells, moments]` turn cells into sums."""

    layers: slice
    columns: slice
    weights: NDArray[np.float64]
    least_gev: np.float32

    @property
    def n_layers(self) -> int:
        return int(self.layers.stop - self.layers.start)


@lru_cache(maxsize=8)
def _runs(detector: Detector) -> tuple[_Run, ...]:
    runs = []
    for _, group in groupby(enumerate(detector.layers), key=lambda item: (item[1].cells, item[1].threshold_gev)):
        members = list(group)
        first, stop = members[0][0], members[-1][0] + 1
        columns = slice(int(detector.first_cell[first]), int(detector.first_cell[stop]))
        layer = members[0][1]
        runs.append(_Run(slice(first, stop), columns, _weights(layer), least_energy(layer.threshold_gev)))
    return tuple(runs)


def _weights(layer: Layer) -> NDArray[np.float64]:
    x, y = layer.cells.centre(np.arange(layer.cells.n_cells))
    r = np.hypot(x, y)
    if not _has_angle(layer):
        x = y = np.zeros_like(r)
    return np.stack([np.ones_like(r), x, y, r, x * x, y * y, r * r], axis=1)


def high_level(voxels: Voxels) -> HighLevel:
    """The features of voxels, cells below their layer's threshold set to zero first (the challenge's cut).

    >>> from calogen.detector.catalog import CALOCHALLENGE_2
    >>> one_cell = np.zeros((1, 6480), dtype=np.float32)
    >>> one_cell[0, 0] = 1.0
    >>> features = high_level(Voxels(one_cell, Incident.gun(1, pdg=11), CALOCHALLENGE_2))
    >>> round(float(features.centre_r[0, 0]), 3), float(features.width_r[0, 0]), int(features.hits.sum())
    (2.325, 0.0, 1)
    """
    n, detector = len(voxels), voxels.detector
    moments = np.zeros((_MOMENTS, n, detector.n_layers))
    hits = np.zeros((n, detector.n_layers), dtype=np.int32)
    for run in _runs(detector):
        _sum_run(voxels.energy[:, run.columns], run, moments[:, :, run.layers], hits[:, run.layers])
    _to_centres_and_widths(moments)
    return HighLevel(voxels.incident, detector, moments[0], hits, *moments[1:])


def observe_features(batches: Iterable[Voxels]) -> HighLevel:
    """The features of a stream of batches; holds one batch and the rows.

    Raises:
        ValueError: no showers, or batches of different detectors.
    """
    return HighLevel.concatenate([high_level(batch) for batch in batches])


def _sum_run(energy: NDArray[np.float32], run: _Run, moments: NDArray[np.float64], hits: NDArray[np.int32]) -> None:
    """Add up one run of layers, `energy [N, cells of the run]`, into `moments [moments, N, layers]`, piece by piece."""
    n, width = energy.shape
    cells = width // run.n_layers
    step = max(1, PIECE_CELLS // width)
    above = np.empty((step, width), dtype=np.bool_)
    kept = np.empty((step, width), dtype=np.float32)
    exact = np.empty((step, width), dtype=np.float64)
    ones = np.ones(cells, dtype=np.float32)
    for start in range(0, n, step):
        stop = min(start + step, n)
        used = stop - start
        here, mask, doubles = energy[start:stop], kept[:used], exact[:used]
        np.greater_equal(here, run.least_gev, out=above[:used])
        np.copyto(mask, above[:used])
        hits[start:stop] = (mask.reshape(-1, cells) @ ones).reshape(used, run.n_layers)
        np.multiply(here, mask, out=mask)
        np.copyto(doubles, mask)
        sums = doubles.reshape(-1, cells) @ run.weights
        moments[:, start:stop] = sums.T.reshape(_MOMENTS, used, run.n_layers)


def _to_centres_and_widths(moments: NDArray[np.float64]) -> None:
    """Turn the sums `[moments, N, layers]` into means and standard deviations, in place."""
    energy, first, second = moments[0], moments[1:4], moments[4:7]
    total = energy + NO_ENERGY_GEV
    for centre, width in zip(first, second, strict=True):
        centre /= total
        width /= total
        width -= centre * centre
        np.maximum(width, 0.0, out=width)
        np.sqrt(width, out=width)


# ---- inputs of the classifiers ----


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a classifier sees of N showers: `values [N, inputs]` (float32) and a name for each input."""

    values: NDArray[np.float32]
    names: tuple[str, ...]


def classifier_features(sample: HighLevel | Voxels) -> Inputs:
    """The high-level inputs of the challenge's classifier, FPD and KPD: 362 numbers for data sets 2 and 3.

    In this order: log10 of the incident energy in MeV; per layer log10 of (energy in MeV + 1e-8), centres in x and y
    and widths in x and y over 100 mm (layers with sectors only); log10 of (total energy in MeV + 1e-8); per layer
    sparsity, centre and width in the radius over 100 mm.
    """
    f = high_level(sample) if isinstance(sample, Voxels) else sample
    angular = angular_layers(f.detector)
    every = np.arange(f.detector.n_layers)
    blocks: list[tuple[str, NDArray[np.int64], NDArray[np.float64]]] = [
        ("log10_layer_energy", every, _log10_mev(f.layer_energy)),
        *((name, angular, getattr(f, name) / MM_PER_INPUT) for name in ("centre_x", "centre_y", "width_x", "width_y")),
        ("log10_total_energy", every[:1], _log10_mev(f.visible_energy)[:, None]),
        ("sparsity", every, f.sparsity),
        *((name, every, getattr(f, name) / MM_PER_INPUT) for name in ("centre_r", "width_r")),
    ]
    values = [_log10_incident(f.incident), *(v[:, layers] for _, layers, v in blocks)]
    names = ["log10_incident_energy"]
    for name, layers, _ in blocks:
        names += [name] if name == "log10_total_energy" else [f"{name}_{i}" for i in layers]
    return Inputs(np.concatenate(values, axis=1, dtype=np.float32), tuple(names))


def low_level_features(voxels: Voxels) -> Inputs:
    """The low-level inputs: log10 of the incident energy in MeV, and every voxel over the incident energy.

    Voxels below threshold are set to zero first.
    """
    scaled = cut(voxels.energy, voxels.detector)
    scaled /= voxels.incident.energy[:, None]
    values = np.concatenate([_log10_incident(voxels.incident), scaled], axis=1, dtype=np.float32)
    return Inputs(values, ("log10_incident_energy", *_voxel_names(voxels.detector)))


def low_level_normalised(voxels: Voxels) -> Inputs:
    """The normalised low-level inputs: log10 of the incident energy in MeV, voxels over the energy of their layer, and
    log10 of (layer energy in MeV + 1e-8).

    As in the challenge's code, voxels below threshold are kept here: cut them before where that is not wanted.
    """
    layer = voxels.energy_per_layer
    share = np.repeat(1 / (layer + NO_ENERGY_GEV), voxels.detector.cells_per_layer, axis=1)
    parts = [_log10_incident(voxels.incident), voxels.energy * share, _log10_mev(layer)]
    names = [f"log10_layer_energy_{i}" for i in range(voxels.detector.n_layers)]
    values = np.concatenate(parts, axis=1, dtype=np.float32)
    return Inputs(values, ("log10_incident_energy", *_voxel_names(voxels.detector), *names))


def _log10_mev(energy_gev: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log10(energy_gev * MEV_PER_GEV + LOG_FLOOR_MEV))


def _log10_incident(incident: Incident) -> NDArray[np.float64]:
    return np.asarray(np.log10(incident.energy.astype(np.float64) * MEV_PER_GEV))[:, None]


def _voxel_names(detector: Detector) -> list[str]:
    return [f"voxel_{i}" for i in range(detector.n_cells)]
