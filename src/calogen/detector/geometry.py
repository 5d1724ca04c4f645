"""Detectors as pure descriptions: layers, their readout cells, and the shear that removes a shower's tilt.

The local frame has its origin where the particle enters the front face, z points into the calorimeter,
x runs along the beam and y completes the right-handed frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

OUTSIDE = -1
"""Index of "no cell": the point lies outside the readout of its layer."""


@dataclass(frozen=True)
class CartesianCells:
    """Square cells of `pitch_mm`, `n_x` by `n_y`, the lower edges of cell (0, 0) at `x_min_mm`, `y_min_mm`.

    The index of a cell in its layer is `i_x * n_y + i_y`.
    """

    pitch_mm: float
    x_min_mm: float
    y_min_mm: float
    n_x: int
    n_y: int
    kind: ClassVar[str] = "cartesian"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.pitch_mm) and self.pitch_mm > 0):
            raise ValueError(f"cell pitch must be a positive length in mm, got {self.pitch_mm}")
        if self.n_x < 1 or self.n_y < 1:
            raise ValueError(f"a layer needs at least one cell each way, got {self.n_x} x {self.n_y}")

    @classmethod
    def centred(cls, pitch_mm: float, half_width_mm: float) -> CartesianCells:
        """The grid symmetric about the entry point that reaches at least `half_width_mm` on each side."""
        n_half = max(1, math.ceil(half_width_mm / pitch_mm - 1e-9))
        return cls(pitch_mm, -n_half * pitch_mm, -n_half * pitch_mm, 2 * n_half, 2 * n_half)

    @property
    def n_cells(self) -> int:
        """Number of cells of the layer."""
        return self.n_x * self.n_y

    def index(self, x_mm: NDArray[Any], y_mm: NDArray[Any]) -> NDArray[np.int64]:
        """Cell of each point `[P]`; `OUTSIDE` beyond the grid."""
        i_x = np.floor((x_mm - self.x_min_mm) / self.pitch_mm).astype(np.int64)
        i_y = np.floor((y_mm - self.y_min_mm) / self.pitch_mm).astype(np.int64)
        inside = (i_x >= 0) & (i_x < self.n_x) & (i_y >= 0) & (i_y < self.n_y)
        return np.where(inside, i_x * self.n_y + i_y, OUTSIDE)

    def centre(self, index: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centre `(x, y)` in mm of each cell index."""
        i_x, i_y = np.divmod(index, self.n_y)
        return self.x_min_mm + (i_x + 0.5) * self.pitch_mm, self.y_min_mm + (i_y + 0.5) * self.pitch_mm

    def spread(
        self, index: NDArray[Any], u: NDArray[Any], v: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Place `(x, y)` in mm at the fractions `u, v` in [0, 1) of each cell's sides."""
        i_x, i_y = np.divmod(index, self.n_y)
        return self.x_min_mm + (i_x + u) * self.pitch_mm, self.y_min_mm + (i_y + v) * self.pitch_mm

    def to_dict(self) -> dict[str, Any]:
        """Plain description, the inverse of `cells_from_dict`."""
        return {
            "kind": self.kind,
            "pitch_mm": self.pitch_mm,
            "x_min_mm": self.x_min_mm,
            "y_min_mm": self.y_min_mm,
            "n_x": self.n_x,
            "n_y": self.n_y,
        }


@dataclass(frozen=True)
class PolarCells:
    """Rings between `r_edges_mm`, each cut in `n_alpha` sectors from -pi; index `i_alpha * n_r + i_r`.

    This is the order of the CaloChallenge files (radius fastest).
    """

    r_edges_mm: tuple[float, ...]
    n_alpha: int
    kind: ClassVar[str] = "polar"

    def __post_init__(self) -> None:
        if len(self.r_edges_mm) < 2 or any(np.diff(self.r_edges_mm) <= 0) or self.r_edges_mm[0] < 0:
            raise ValueError(f"radial edges must increase from >= 0 mm, got {self.r_edges_mm}")
        if self.n_alpha < 1:
            raise ValueError(f"a ring needs at least one sector, got {self.n_alpha}")

    @property
    def n_r(self) -> int:
        """Number of rings."""
        return len(self.r_edges_mm) - 1

    @property
    def n_cells(self) -> int:
        """Number of cells of the layer."""
        return self.n_r * self.n_alpha

    @cached_property
    def _edges(self) -> NDArray[np.float64]:
        return np.asarray(self.r_edges_mm, dtype=np.float64)

    def index(self, x_mm: NDArray[Any], y_mm: NDArray[Any]) -> NDArray[np.int64]:
        """Cell of each point `[P]`; `OUTSIDE` beyond the last (or inside the first) ring."""
        i_r = np.searchsorted(self._edges, np.hypot(x_mm, y_mm), side="right") - 1
        turn = (np.arctan2(y_mm, x_mm) + math.pi) / (2 * math.pi)
        i_alpha = np.minimum((turn * self.n_alpha).astype(np.int64), self.n_alpha - 1)
        inside = (i_r >= 0) & (i_r < self.n_r)
        return np.where(inside, i_alpha * self.n_r + i_r, OUTSIDE)

    def centre(self, index: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Middle of the cell in radius and angle, `(x, y)` in mm."""
        i_alpha, i_r = np.divmod(index, self.n_r)
        r = 0.5 * (self._edges[i_r] + self._edges[i_r + 1])
        return self._xy(r, i_alpha + 0.5)

    def spread(
        self, index: NDArray[Any], u: NDArray[Any], v: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Place `(x, y)` in mm uniformly in the cell's area for `u, v` uniform in [0, 1)."""
        i_alpha, i_r = np.divmod(index, self.n_r)
        low, high = self._edges[i_r], self._edges[i_r + 1]
        return self._xy(np.sqrt(low**2 + u * (high**2 - low**2)), i_alpha + v)

    def _xy(self, r: NDArray[Any], sector: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        alpha = sector * (2 * math.pi / self.n_alpha) - math.pi
        return r * np.cos(alpha), r * np.sin(alpha)

    def to_dict(self) -> dict[str, Any]:
        """Plain description, the inverse of `cells_from_dict`."""
        return {"kind": self.kind, "r_edges_mm": list(self.r_edges_mm), "n_alpha": self.n_alpha}


Cells = CartesianCells | PolarCells


def cells_from_dict(d: dict[str, Any]) -> Cells:
    """Cells from their plain description.

    Raises:
        ValueError: an unknown kind, or missing or unexpected keys.
    """
    fields = {k: v for k, v in d.items() if k != "kind"}
    try:
        match d.get("kind"):
            case "cartesian":
                if "half_width_mm" in fields:
                    return CartesianCells.centred(**fields)
                return CartesianCells(**fields)
            case "polar":
                return PolarCells(tuple(float(r) for r in fields.pop("r_edges_mm")), **fields)
            case kind:
                raise ValueError(f"cells of kind {kind!r} are unknown; use 'cartesian' or 'polar'")
    except (TypeError, KeyError) as error:
        raise ValueError(f"cells: {error}") from error


@dataclass(frozen=True)
class Layer:
    """One sensitive layer: its depth behind the front face (middle of the sensor), thickness and readout."""

    z_mm: float
    thickness_mm: float
    section: str
    cells: Cells
    threshold_gev: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain description."""
        return {
            "z_mm": self.z_mm,
            "thickness_mm": self.thickness_mm,
            "section": self.section,
            "cells": self.cells.to_dict(),
            "threshold_gev": self.threshold_gev,
        }


@dataclass(frozen=True)
class Detector:
    """A calorimeter seen along its depth: a name and its layers, front to back. Compared by value."""

    name: str
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError(f"detector {self.name!r} has no layers")
        if not np.all(np.isfinite(self.z_mm)) or np.any(np.diff(self.z_mm) <= 0):
            raise ValueError(f"detector {self.name!r}: layer depths must increase, got {self.z_mm.tolist()}")

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @cached_property
    def z_mm(self) -> NDArray[np.float64]:
        """Depth of each layer's middle behind the front face, `[layers]` mm."""
        return np.array([layer.z_mm for layer in self.layers], dtype=np.float64)

    @cached_property
    def threshold_gev(self) -> NDArray[np.float64]:
        """Readout threshold of each layer's cells, `[layers]` GeV."""
        return np.array([layer.threshold_gev for layer in self.layers], dtype=np.float64)

    @cached_property
    def cells_per_layer(self) -> NDArray[np.int64]:
        """Number of cells of each layer, `[layers]`."""
        return np.array([layer.cells.n_cells for layer in self.layers], dtype=np.int64)

    @cached_property
    def first_cell(self) -> NDArray[np.int64]:
        """Index of each layer's first cell in the detector's cell order (layer by layer), `[layers + 1]`."""
        return np.concatenate([[0], np.cumsum(self.cells_per_layer)])

    @property
    def n_cells(self) -> int:
        """Number of cells of the whole detector."""
        return int(self.first_cell[-1])

    @cached_property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections, in order of depth."""
        return tuple(dict.fromkeys(layer.section for layer in self.layers))

    def layers_of(self, section: str) -> NDArray[np.int64]:
        """Indices of the layers of one section."""
        return np.array([i for i, layer in enumerate(self.layers) if layer.section == section], dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain description (JSON or TOML); layers with the same cells share them."""
        kinds = list(dict.fromkeys(layer.cells for layer in self.layers))
        layers = [{**layer.to_dict(), "cells": kinds.index(layer.cells)} for layer in self.layers]
        return {"name": self.name, "cells": [cells.to_dict() for cells in kinds], "layers": layers}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Detector:
        """Detector from its plain description.

        Raises:
            ValueError: keys missing or unexpected, values of the wrong type or out of range.
        """
        try:
            kinds = [cells_from_dict(cells) for cells in d.get("cells", [])]
            layers = tuple(_layer_from_dict(layer, kinds) for layer in d["layers"])
            return cls(str(d["name"]), layers)
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"detector description: {type(error).__name__} {error}") from error


def _layer_from_dict(d: dict[str, Any], kinds: list[Cells]) -> Layer:
    cells = d["cells"]
    return Layer(
        z_mm=float(d["z_mm"]),
        thickness_mm=float(d["thickness_mm"]),
        section=str(d.get("section", "ecal")),
        cells=kinds[cells] if isinstance(cells, int) else cells_from_dict(cells),
        threshold_gev=float(d.get("threshold_gev", 0.0)),
    )


def tilt(direction: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sideways drift per mm of depth, `p_x / p_z` and `p_y / p_z`, of directions `[N, 3]`.

    The CaloClouds3 paper writes the shift as `d tan(asin(p_x))`, its code as `d p_x / p_z`; only the
    latter is the straight line along the particle, so it is the one used here.
    """
    p = np.asarray(direction, dtype=np.float64)
    return p[..., 0] / p[..., 2], p[..., 1] / p[..., 2]
