"""What a calorimeter measures of each shower: the observables of the CaloClouds papers, on cells above threshold.

Each shower becomes one row of small histograms and sums, so a file of any length is read in batches and costs
about a kilobyte a shower; any resampling of showers is then a sum of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.projection import Hits, project
from calogen.data.showers import Showers
from calogen.detector.geometry import CartesianCells, Detector, PolarCells
from calogen.units import GEV_PER_MEV

# ---- Binning of CaloClouds3 (arXiv:2511.01460, code pointcloud/evaluation/bin_standard_metrics.py) ----
CELL_ENERGY_RANGE_GEV = (0.01 * GEV_PER_MEV, 1100.0 * GEV_PER_MEV)
CELL_ENERGY_BINS = 100  # logarithmic
VISIBLE_ENERGY_MAX_GEV = 4000.0 * GEV_PER_MEV
VISIBLE_ENERGY_BINS = 50
HITS_MAX = 3000
HITS_BINS = 50
COG_RANGE_MM = 200.0  # the box of the paper, either side of the shower axis
COG_BINS = 2000
COG_BINS_PER_LAYER = 2
RADIUS_MAX_MM = math.hypot(COG_RANGE_MM, COG_RANGE_MM)  # "up to the farthest cell": the corner of that box

HADRON_RADIUS_MAX_MM = 600.0  # CaloHadronic (plotting_features.py), where there is a section behind the first
VOXEL_ENERGY_MAX_GEV = 100.0  # CaloChallenge voxels hold energies scaled to the incident one, not deposits

BATCH_SHOWERS = 1024
"""Showers observed at once when a whole sample is handed over."""


@dataclass(frozen=True)
class Observable:
    """One row of the published table: what is counted along which axis."""

    name: str
    title: str
    axis: str
    unit: str
    counted: str


OBSERVABLES: dict[str, Observable] = {
    o.name: o
    for o in (
        Observable("visible_energy", "Visible energy", "visible energy", "GeV", "showers"),
        Observable("cell_energy", "Cell energy spectrum", "cell energy", "GeV", "cells"),
        Observable("energy_per_layer", "Energy per layer", "layer", "", "energy"),
        Observable("energy_per_radius", "Energy per radius", "radius", "mm", "energy"),
        Observable("hits", "Hits", "cells above threshold", "", "showers"),
        Observable("hits_per_layer", "Hits per layer", "layer", "", "cells"),
        Observable("hits_per_radius", "Hits per radius", "radius", "mm", "cells"),
        Observable("cog_x", "Centre of gravity x", "centre of gravity x", "mm", "showers"),
        Observable("cog_y", "Centre of gravity y", "centre of gravity y", "mm", "showers"),
        Observable("cog_z", "Centre of gravity z", "centre of gravity z", "layers", "showers"),
    )
}
"""The ten rows of CaloClouds3's Table 2, in its order; energies are energy-weighted histograms in GeV."""


@dataclass(frozen=True, eq=False)
class Binning:
    """Edges of the axes along which cells are counted: GeV, mm and layers."""

    cell_energy: NDArray[np.float64]
    radius: NDArray[np.float64]
    layer: NDArray[np.float64]

    @classmethod
    def of(cls, detector: Detector) -> Binning:
        """The published bins, on the layers and the cell pitch of `detector`.

        Radii run in steps of the first layer's pitch from minus half a pitch (its rings where cells are polar).
        """
        low, high = CELL_ENERGY_RANGE_GEV
        polar = isinstance(detector.layers[0].cells, PolarCells)
        per_decade = CELL_ENERGY_BINS / math.log10(high / low)
        high = VOXEL_ENERGY_MAX_GEV if polar else high
        bins = round(per_decade * math.log10(high / low))
        return cls(
            np.geomspace(low, high, bins + 1, dtype=np.float64),
            _radius_edges(detector),
            np.arange(detector.n_layers + 1.0),
        )

    def edges(self, name: str) -> NDArray[np.float64]:
        """Edges of the axis of a cell observable."""
        axes = {
            "cell_energy": self.cell_energy,
            "energy_per_layer": self.layer,
            "hits_per_layer": self.layer,
            "energy_per_radius": self.radius,
            "hits_per_radius": self.radius,
        }
        return axes[name]


def _radius_edges(detector: Detector) -> NDArray[np.float64]:
    cells = detector.layers[0].cells
    if not isinstance(cells, CartesianCells):
        return np.asarray(cells.r_edges_mm, dtype=np.float64)
    reach = RADIUS_MAX_MM if len(detector.sections) == 1 else HADRON_RADIUS_MAX_MM
    bins = math.ceil(reach / cells.pitch_mm) + 1
    return (np.arange(bins + 1, dtype=np.float64) - 0.5) * np.float64(cells.pitch_mm)


@dataclass(frozen=True, eq=False)
class Observed:
    """One row a shower. Histograms `[N, bins + 2]` have the entries below and above their range at the ends.

    `incident_energy`, `visible_energy` `[N]` GeV; `direction [N, 3]`; `cog_x`, `cog_y` `[N]` mm in the upright frame
    (tilt removed, so they are distances from the shower axis); `cog_z [N]` in layers, the middle of layer l at
    l + 0.5; the three are NaN for a shower without hits. Radii are measured from the shower axis: entry point plus
    tilt at the layer's depth. `outside_*` and `dropped_*` are what `project` left out.
    """

    incident_energy: NDArray[Any]
    direction: NDArray[Any]
    pdg: NDArray[Any]
    visible_energy: NDArray[Any]
    hits: NDArray[Any]
    cog_x: NDArray[Any]
    cog_y: NDArray[Any]
    cog_z: NDArray[Any]
    cell_energy: NDArray[Any]
    energy_per_layer: NDArray[Any]
    hits_per_layer: NDArray[Any]
    energy_per_radius: NDArray[Any]
    hits_per_radius: NDArray[Any]
    outside_points: NDArray[Any]
    outside_energy: NDArray[Any]
    dropped_cells: NDArray[Any]
    dropped_energy: NDArray[Any]

    def __len__(self) -> int:
        return self.incident_energy.shape[0]

    def __getitem__(self, which: Any) -> Observed:
        return Observed(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def __add__(self, other: Observed) -> Observed:
        return Observed.concatenate([self, other])

    @classmethod
    def concatenate(cls, parts: Sequence[Observed]) -> Observed:
        """The rows of all parts, one after the other.

        Raises:
            ValueError: no parts.
        """
        if not parts:
            raise ValueError("no showers to observe: the sample is empty")
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


def observe(hits: Hits, binning: Binning) -> Observed:
    """The observables of projected showers."""
    s = hits.showers
    n, shower = len(s), s.shower_index
    up = s.upright()
    total = s.visible_energy
    with np.errstate(invalid="ignore", divide="ignore"):
        cog = [np.bincount(shower, s.energy * v, n) / total for v in (up.x, up.y, s.layer + 0.5)]
    layer = _bins(s.layer + 0.5, binning.layer)
    radius = _bins(np.hypot(up.x, up.y), binning.radius)
    cell = _bins(s.energy, binning.cell_energy)
    return Observed(
        incident_energy=s.incident.energy,
        direction=s.incident.direction,
        pdg=s.incident.pdg,
        visible_energy=total,
        hits=s.counts,
        cog_x=cog[0],
        cog_y=cog[1],
        cog_z=cog[2],
        cell_energy=_rows(shower, cell, n, binning.cell_energy),
        energy_per_layer=_rows(shower, layer, n, binning.layer, s.energy),
        hits_per_layer=_rows(shower, layer, n, binning.layer),
        energy_per_radius=_rows(shower, radius, n, binning.radius, s.energy),
        hits_per_radius=_rows(shower, radius, n, binning.radius),
        outside_points=hits.outside_points,
        outside_energy=hits.outside_energy,
        dropped_cells=hits.dropped_cells,
        dropped_energy=hits.dropped_energy,
    )


def observe_all(batches: Iterable[Showers], binning: Binning, detector: Detector) -> Observed:
    """Project a stream of batches into the cells of `detector` and observe it; holds one batch at a time.

    Raises:
        ValueError: batches of another detector, or no showers at all.
    """
    parts = []
    for batch in batches:
        if batch.detector != detector:
            raise ValueError(f"showers of {batch.detector.name!r} cannot be judged as {detector.name!r}")
        for start in range(0, len(batch), BATCH_SHOWERS):
            parts.append(observe(project(batch[start : start + BATCH_SHOWERS]), binning))
    return Observed.concatenate(parts)


def _bins(values: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each value, counted from 1; 0 is below the range and `bins + 1` above it."""
    return np.searchsorted(edges, values, side="right")


def _rows(
    shower: NDArray[np.int64],
    bins: NDArray[np.int64],
    n: int,
    edges: NDArray[np.float64],
    weights: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    width = edges.size + 1
    flat = np.bincount(shower * width + bins, weights=weights, minlength=n * width)
    return flat.reshape(n, width).astype(np.float32)


def shower_edges(name: str, truth: Observed, n_layers: int) -> NDArray[np.float64]:
    """Edges of an observable with one entry a shower.

    The published ones; where the truth goes beyond the published range of visible energy or hits (another
    particle, another detector) as many bins up to just above the truth's largest value.
    """
    match name:
        case "visible_energy":
            return _up_to(VISIBLE_ENERGY_MAX_GEV, truth.visible_energy, VISIBLE_ENERGY_BINS)
        case "hits":
            return _up_to(HITS_MAX, truth.hits, HITS_BINS)
        case "cog_z":
            return np.linspace(0, n_layers, COG_BINS_PER_LAYER * n_layers + 1)
        case _:
            return np.linspace(-COG_RANGE_MM, COG_RANGE_MM, COG_BINS + 1)


RANGE_MARGIN = 1.1
"""Room left above the truth's largest value where its range is not the published one."""


def _up_to(published: float, values: NDArray[Any], bins: int) -> NDArray[np.float64]:
    largest = float(values.max(initial=0))
    return np.linspace(0, published if largest < published else RANGE_MARGIN * largest, bins + 1)


def quantile_edges(values: NDArray[Any], bins: int) -> NDArray[np.float64]:
    """Edges that hold equal shares of `values` (fewer bins where values repeat)."""
    finite = values[np.isfinite(values)]
    return np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1))) if finite.size else np.array([0.0, 1.0])


def block_histogram(
    values: NDArray[Any], block: NDArray[np.int64], n_blocks: int, edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Histograms `[blocks, bins + 2]` of one value a shower `[N]`, showers sorted into blocks; NaN is left out."""
    known = np.isfinite(values)
    width = edges.size + 1
    flat = block[known] * width + _bins(values[known], edges)
    return np.bincount(flat, minlength=n_blocks * width).reshape(n_blocks, width).astype(np.float64)


def block_sum(rows: NDArray[Any], block: NDArray[np.int64], n_blocks: int) -> NDArray[np.float64]:
    """Sums `[blocks, bins + 2]` of the rows `[N, bins + 2]` of each block."""
    result = np.zeros((n_blocks, rows.shape[1]))
    np.add.at(result, block, rows)
    return result
