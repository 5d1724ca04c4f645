"""The histograms of the CaloChallenge (arXiv:2410.21611 and the plotting code of its repository), in blocks of showers.

Bins and ranges are the challenge's on its four data sets; entries outside are dropped before a histogram is
normalised, as there, but counted. A detector that is none of these gets as many bins over the range of the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calogen.detector.catalog import CALOCHALLENGE_1_PHOTONS, CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2, CALOCHALLENGE_3
from calogen.detector.geometry import Detector
from calogen.evaluate.high_level import HighLevel, angular_layers
from calogen.evaluate.spectrum import VoxelSpectrum, lowest_edge

DATASETS: dict[str, Detector] = {
    "ds1-photons": CALOCHALLENGE_1_PHOTONS,
    "ds1-pions": CALOCHALLENGE_1_PIONS,
    "ds2": CALOCHALLENGE_2,
    "ds3": CALOCHALLENGE_3,
}

LINEAR_BINS = 100
LAYER_ENERGY_BINS = 39
VOXEL_BINS = 49
SPARSITY_BINS = 20
ENERGY_RATIO_RANGE = (0.5, 1.5)
DS23_RANGES_MM = {"centre_x": (-30, 30), "centre_y": (-30, 30), "width_x": (0, 30), "width_y": (0, 30)}
DS23_RANGES_MM |= {"centre_r": (0, 42), "width_r": (0, 20)}
# Data set 1: samplings 12 and up (the hadronic ones) have wider ranges. The challenge gives none for the radius;
# here the positive half of that of x, and the range of the other widths.
DS1_RANGES_MM = {"centre_x": (-100, 100), "centre_y": (-100, 100), "width_x": (0, 100), "width_y": (0, 100)}
DS1_RANGES_MM |= {"centre_r": (0, 100), "width_r": (0, 100)}
DS1_HADRONIC_RANGES_MM = {"centre_x": (-500, 500), "centre_y": (-500, 500), "width_x": (0, 400), "width_y": (0, 400)}
DS1_HADRONIC_RANGES_MM |= {"centre_r": (0, 500), "width_r": (0, 400)}
TAIL = 1e-3
"""Share of the truth left outside the range in a detector without published ranges."""

ShowerBlocks = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Block of each shower of the generated sample `[N]` and of the truth `[M]`."""


def dataset_of(detector: Detector) -> str | None:
    """Which of the challenge's data sets has the cells of this detector; None if none has.

    >>> dataset_of(CALOCHALLENGE_3)
    'ds3'
    """
    cells = [layer.cells for layer in detector.layers]
    return next((name for name, d in DATASETS.items() if [layer.cells for layer in d.layers] == cells), None)


@dataclass(frozen=True)
class Group:
    """Histograms of one feature: one a layer, or one for the shower. `published` is its column in the final results."""

    name: str
    title: str
    axis: str
    unit: str
    published: str
    values: Callable[[HighLevel], NDArray[np.float64]]


def _feature(name: str) -> Callable[[HighLevel], NDArray[np.float64]]:
    return lambda f: np.asarray(getattr(f, name))


GROUPS: tuple[Group, ...] = (
    Group(
        "energy_ratio",
        "Visible over incident energy",
        "visible / incident energy",
        "",
        "E total",
        lambda f: f.energy_ratio[:, None],
    ),
    Group("layer_energy", "Layer energy", "layer energy", "GeV", "E layer", _feature("layer_energy")),
    Group("centre_x", "Centre in x (eta)", "centre in x (eta)", "mm", "EC eta", _feature("centre_x")),
    Group("centre_y", "Centre in y (phi)", "centre in y (phi)", "mm", "EC phi", _feature("centre_y")),
    Group("width_x", "Width in x (eta)", "width in x (eta)", "mm", "EC eta std", _feature("width_x")),
    Group("width_y", "Width in y (phi)", "width in y (phi)", "mm", "EC phi std", _feature("width_y")),
    Group("centre_r", "Centre in the radius", "centre in the radius", "mm", "EC r", _feature("centre_r")),
    Group("width_r", "Width in the radius", "width in the radius", "mm", "EC r std", _feature("width_r")),
    Group("sparsity", "Sparsity", "share of cells without energy", "", "sparsity", _feature("sparsity")),
)
VOXELS = ("voxel_energy", "Voxel energy", "voxel energy", "GeV", "cell")
"""Name, title, axis, unit and published column of the one histogram that counts cells."""


@dataclass(frozen=True, eq=False)
class Histograms:
    """One group of two samples: counts `[blocks, layers, bins]` on `edges [layers, bins + 1]`.

    `layers` are the layers these are (empty for one histogram a shower); `left_out` the layers where the truth has
    nothing to bin. `totals` are `[layers, bins]` of both whole samples where sums over blocks are not exactly these,
    `dropped` the shares of entries outside the bins, of the generated and the true sample.
    """

    name: str
    title: str
    axis: str
    unit: str
    published: str
    layers: tuple[int, ...]
    left_out: tuple[int, ...]
    edges: NDArray[np.float64]
    generated: NDArray[np.float64]
    truth: NDArray[np.float64]
    dropped: tuple[float, float]
    totals: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    @property
    def whole(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Counts `[layers, bins]` of the generated and the true sample."""
        return self.totals or (self.generated.sum(axis=0), self.truth.sum(axis=0))


def feature_histograms(
    group: Group, generated: HighLevel, truth: HighLevel, blocks: ShowerBlocks, n_blocks: int
) -> Histograms:
    """The histograms of one feature, edges from the truth where the challenge takes them from there."""
    layers, left_out, edges = feature_edges(group.name, truth)
    made, true = (group.values(f)[:, layers or [0]] for f in (generated, truth))
    counts = [block_counts(v, edges, block, n_blocks) for v, block in zip((made, true), blocks, strict=True)]
    # A layer without energy has no place on a logarithmic axis: it is empty, not outside.
    entries = [np.count_nonzero(v) if group.name == "layer_energy" else v.size for v in (made, true)]
    dropped = [1 - float(c.sum()) / max(n, 1) for c, n in zip(counts, entries, strict=True)]
    return Histograms(
        group.name,
        group.title,
        group.axis,
        group.unit,
        group.published,
        layers,
        left_out,
        edges,
        counts[0],
        counts[1],
        (dropped[0], dropped[1]),
    )


def voxel_histogram(generated: VoxelSpectrum, truth: VoxelSpectrum, blocks: ShowerBlocks, n_blocks: int) -> Histograms:
    """The spectrum of all voxels above threshold, up to the largest of the truth."""
    edges = np.geomspace(truth.lowest_gev, truth.highest_gev, VOXEL_BINS + 1)
    both = (generated, truth)
    counts = [s.block_counts(edges, block, n_blocks)[:, None] for s, block in zip(both, blocks, strict=True)]
    totals = [s.counts(edges)[None] for s in both]
    dropped = [1 - float(t.sum()) / max(s.n_voxels, 1) for t, s in zip(totals, both, strict=True)]
    return Histograms(
        *VOXELS, (), (), edges[None], counts[0], counts[1], (dropped[0], dropped[1]), (totals[0], totals[1])
    )


def feature_edges(name: str, truth: HighLevel) -> tuple[tuple[int, ...], tuple[int, ...], NDArray[np.float64]]:
    """Layers with a histogram of this feature, layers where the truth has nothing, and the edges `[layers, bins + 1]`.

    Layer energies are binned from the readout threshold to the truth's largest value; that value itself is in the last
    bin (in the challenge's code rounding decides whether it is).
    """
    if name == "energy_ratio":
        return (), (), _energy_ratio_edges(truth)[None]
    in_x = name in ("centre_x", "centre_y", "width_x", "width_y")
    every = angular_layers(truth.detector) if in_x else np.arange(truth.detector.n_layers)
    low = np.array([lowest_edge(layer.threshold_gev) for layer in truth.detector.layers])
    used = truth.layer_energy.max(axis=0) > low
    layers = tuple(int(i) for i in every if used[i])
    left_out = tuple(int(i) for i in every if not used[i])
    if not layers:
        raise ValueError(f"no layer of {truth.detector.name!r} has energy above threshold in the truth: check its unit")
    if name == "sparsity":
        edges = np.tile(np.linspace(0, 1, SPARSITY_BINS + 1), (len(layers), 1))
    elif name == "layer_energy":
        top = truth.layer_energy.max(axis=0)
        edges = np.stack([np.geomspace(low[i], top[i], LAYER_ENERGY_BINS + 1) for i in layers])
    else:
        edges = np.stack([np.linspace(*_range_mm(name, i, truth), LINEAR_BINS + 1) for i in layers])
    return layers, left_out, edges


def _energy_ratio_edges(truth: HighLevel) -> NDArray[np.float64]:
    unit = 1.0 if dataset_of(truth.detector) else float(np.median(truth.energy_ratio))
    return np.linspace(*ENERGY_RATIO_RANGE, LINEAR_BINS + 1) * (unit or 1.0)


def _range_mm(name: str, layer: int, truth: HighLevel) -> tuple[float, float]:
    match dataset_of(truth.detector):
        case "ds2" | "ds3":
            return DS23_RANGES_MM[name]
        case "ds1-photons" | "ds1-pions" if truth.detector.layers[layer].section == "hcal":
            return DS1_HADRONIC_RANGES_MM[name]
        case "ds1-photons" | "ds1-pions":
            return DS1_RANGES_MM[name]
    values = np.abs(getattr(truth, name)[:, layer])
    reach = float(np.quantile(values, 1 - TAIL)) or float(values.max()) or 1.0
    return (-reach if name in ("centre_x", "centre_y") else 0.0), reach


def block_counts(
    values: NDArray[np.float64], edges: NDArray[np.float64], block: NDArray[np.int64], n_blocks: int
) -> NDArray[np.float64]:
    """Histograms `[blocks, layers, bins]` of values `[N, layers]` on `edges [layers, bins + 1]`.

    Bins as numpy's: each has its lower edge, the last also its upper one; values outside are left out.
    """
    n_layers, bins = edges.shape[0], edges.shape[1] - 1
    counts = np.zeros((n_blocks, n_layers, bins))
    for i in range(n_layers):
        place = np.searchsorted(edges[i], values[:, i], side="right") - 1
        place[values[:, i] == edges[i, -1]] = bins - 1
        inside = (place >= 0) & (place < bins)
        flat = np.bincount(block[inside] * bins + place[inside], minlength=n_blocks * bins)
        counts[:, i] = flat.reshape(n_blocks, bins)
    return counts
