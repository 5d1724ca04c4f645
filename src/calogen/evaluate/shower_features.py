"""What classifiers of point-cloud showers look at: the observables of the CaloClouds 2 and CaloHadronic classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.observables import Observed

# CaloClouds 2 (arXiv:2309.05704, utils/plotting.py): ten groups of its 30 layers; and ten of radii, there up to 6.558,
# 9.849, 12.96, 17.03, 23.43, 33.61, 40.12, 48.49, 68.81 and 300 mm, here in the nearest whole rings of one cell pitch.
LAYER_STARTS = (0, 8, 11, 13, 15, 16, 18, 19, 21, 24)
PUBLISHED_LAYERS = 30
RING_STARTS = (0, 1, 2, 3, 4, 5, 7, 8, 10, 14)

INCIDENT_FEATURES = 3
"""So many of `all`, the first, are of the incident particle."""

Choice = Literal["caloclouds2", "calohadronic", "all"]


def shower_features(observed: Observed, choice: Choice = "caloclouds2") -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Features of each shower `[N, d]` and their names, from the cells above threshold.

    - `caloclouds2`, 25: centre of gravity x, y (mm) and z (layers), hits, visible over incident energy, energy (GeV) in
      ten groups of layers and in ten of rings. Another number of layers is divided in proportion; fewer than ten
      layers or rings stay single. The published "one cell's energy" is the first entries of a list and left out.
    - `calohadronic`, 5: hits, centre of gravity x, y, z, visible over incident energy.
    - `all`: logarithm of the incident energy and direction, the five, and energy and hits of each layer and each ring,
      over the incident energy (1/GeV for hits). Recognises most: the others mix showers of all energies.

    A shower without hits has no centre of gravity; it is given that of the entry point, 0, and is known by its 0 hits.

    Raises:
        ValueError: another choice.
    """
    energy, _hits = observed.energy_per_layer[:, 1:-1], observed.hits_per_layer[:, 1:-1]
    cog = {f"centre of gravity {axis}": np.nan_to_num(getattr(observed, f"cog_{axis}")) for axis in "xyz"}
    size = {"hits": observed.hits, "visible over incident energy": observed.visible_energy / observed.incident_energy}
    match choice:
        case "calohadronic":
            return _stacked({"hits": size.pop("hits")} | cog | size)
        case "caloclouds2":
            stretched = [s * energy.shape[1] // PUBLISHED_LAYERS for s in LAYER_STARTS]
            layers = _groups(energy, "energy in layer", stretched)
            rings = _groups(_rings(observed.energy_per_radius), "energy in ring", RING_STARTS)
            return _stacked(cog | size | layers | rings)
        case "all":
            incident = {"logarithm of incident energy": np.log10(observed.incident_energy)}
            incident |= {f"direction {axis}": observed.direction[:, k] for k, axis in enumerate("xy")}
            per_gev = 1 / observed.incident_energy[:, None]
            parts = {name: rows * per_gev for name, rows in _parts(observed).items()}
            return _stacked(incident | size | cog | _columns(parts))
    raise ValueError(f"features {choice!r} of showers are not known; choose caloclouds2, calohadronic or all")


def plain_observables(observed: Observed) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    """What is to be read about showers, `[N, d]`, with names and units: the observables of `all` but for the incident
    particle, as they are instead of over the incident energy.
    """
    parts = _parts(observed)
    values, names = _stacked(
        {"visible energy": observed.visible_energy, "hits": observed.hits}
        | {f"centre of gravity {axis}": np.nan_to_num(getattr(observed, f"cog_{axis}")) for axis in "xyz"}
        | _columns(parts)
    )
    units = ["GeV", "", "mm", "mm", "layers"]
    units += ["GeV" if name.startswith("energy") else "" for name in names[len(units) :]]
    return values, names, tuple(units)


def _parts(observed: Observed) -> dict[str, NDArray[Any]]:
    """Energy and hits of each layer and ring, `[N, layers]` and `[N, rings]`."""
    return {
        "energy in layer": observed.energy_per_layer[:, 1:-1],
        "hits in layer": observed.hits_per_layer[:, 1:-1],
        "energy in ring": _rings(observed.energy_per_radius),
        "hits in ring": _rings(observed.hits_per_radius),
    }


def _columns(parts: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: column for part, rows in parts.items() for name, column in _each(rows, part).items()}


def _rings(rows: NDArray[Any]) -> NDArray[Any]:
    """Rings `[N, bins]`; what is beyond the last edge belongs to the last ring."""
    rings = rows[:, 1:-1].copy()
    rings[:, -1] += rows[:, -1]
    return rings


def _each(rows: NDArray[Any], name: str) -> dict[str, NDArray[Any]]:
    return {f"{name} {i}": rows[:, i] for i in range(rows.shape[1])}


def _groups(rows: NDArray[Any], name: str, starts: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Sums over groups of columns that begin at `starts`; single columns where there are no more than groups."""
    n = rows.shape[1]
    if n <= len(starts):
        return _each(rows, name)
    first = [s for s in dict.fromkeys(starts) if s < n]
    last = [*(s - 1 for s in first[1:]), n - 1]
    names = [f"{name} {a}" if a == b else f"{name}s {a} to {b}" for a, b in zip(first, last, strict=True)]
    sums = np.add.reduceat(rows, first, axis=1, dtype=np.float64)
    return {label: sums[:, i] for i, label in enumerate(names)}


def _stacked(columns: dict[str, NDArray[Any]]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    values = np.empty((next(iter(columns.values())).size, len(columns)), dtype=np.float32)
    for k, column in enumerate(columns.values()):
        values[:, k] = column
    return values, tuple(columns)
