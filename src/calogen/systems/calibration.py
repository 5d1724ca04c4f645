"""Factors fitted against Geant4 after projection: on points and energy per layer, and on the energies of points."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.systems.points import Points

RADII_MM = np.geomspace(0.5, 300.0, 18)
"""Radii at which point energies are compared: from the core of a shower to its last points."""
ENERGIES_GEV = np.geomspace(1e-6, 1.0, 31)
"""Point energies at which the factor is known, from far below any readout threshold to the brightest point."""
SMALLEST_MM = 1e-3
"""Radii below this count as this: only the logarithm minds."""
FEWEST_POINTS = 200
"""With fewer points than this in either sample a factor stays what it is."""


class RadialPoints(NamedTuple):
    """Points `[P]` about the axis: radius mm and energy GeV."""

    r_mm: NDArray[Any]
    energy: NDArray[Any]


class PointShape(nn.Module):
    """Corrects the radii of generated points, and their spectrum of energies at each radius.

    A one-step point model gets the joint distribution of radius and energy right to some ten percent; the
    spectrum of readout cells, and hits and energy per radius, show it. Radii are mapped by their quantiles onto those
    of Geant4; so are, about each of `RADII_MM`, the energies. Both maps are stored as factors, linear in ln r and ln e.
    """

    log_radius: Tensor
    log_energy: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_radius", torch.zeros(len(RADII_MM)))
        shape = (len(RADII_MM), len(ENERGIES_GEV))
        self.register_buffer("log_energy", torch.zeros(shape))

    def forget(self) -> None:
        """Back to factors of one."""
        self.log_radius.zero_()
        self.log_energy.zero_()

    def forward(self, points: Points) -> Points:
        """Points `[P]` about the axis with corrected radii and energies."""
        if not (self.log_radius.any() or self.log_energy.any()):
            return points
        corners = _corners(self.log_energy)
        chunks = zip(*(v.split(CHUNK_POINTS) for v in points), strict=True)
        corrected = [self._corrected(Points(*chunk), corners) for chunk in chunks]
        return Points(*map(torch.cat, zip(*corrected, strict=True)))

    def _corrected(self, points: Points, corners: Tensor) -> Points:
        r = torch.hypot(points.x, points.y)
        i, u = _cell(r, RADII_MM)
        stretch = torch.lerp(self.log_radius[i], self.log_radius[i + 1], u).exp_()
        i, u = _cell(r.mul_(stretch), RADII_MM)
        k, v = _cell(points.energy, ENERGIES_GEV)
        near, far = corners[i * (len(ENERGIES_GEV) - 1) + k].unflatten(1, (2, 2)).unbind(2)
        along_r = torch.lerp(near, far, v[:, None])
        factor = torch.lerp(along_r[:, 0], along_r[:, 1], u).exp_()
        return Points(points.x * stretch, points.y * stretch, points.depth, points.energy * factor)

    def improve(self, generated: RadialPoints, truth: RadialPoints) -> None:
        """One step of the fit, from points as they leave the model (these factors included) and true ones."""
        own, true = (np.maximum(p.r_mm, SMALLEST_MM) for p in (generated, truth))
        _improve(self.log_radius, RADII_MM, own, true)
        own, true = nearest_radius(own), nearest_radius(true)
        for i, row in enumerate(self.log_energy):
            _improve(row, ENERGIES_GEV, generated.energy[own == i], truth.energy[true == i])


def _corners(table: Tensor) -> Tensor:
    """Table [R, K] -> values at the four corners of each of its cells [(R - 1)(K - 1), 4]: one look-up a point."""
    corners = [table[:-1, :-1], table[:-1, 1:], table[1:, :-1], table[1:, 1:]]
    return torch.stack(corners, dim=2).flatten(0, 1)


CHUNK_POINTS = 1 << 15
"""Points corrected together: intermediate values stay in cache."""


def _improve(log_factor: Tensor, knots: NDArray[np.float64], generated: NDArray[Any], truth: NDArray[Any]) -> None:
    """Move factors [K] at `knots` so that the quantiles of generated values come to those of the truth."""
    if min(generated.size, truth.size) < FEWEST_POINTS:
        return
    a, b = np.sort(np.log(generated)), np.sort(np.log(truth))
    step = _quantile_shift(a, b, np.log(knots) + log_factor.cpu().numpy())
    log_factor.add_(torch.from_numpy(np.clip(step, -LARGEST_STEP, LARGEST_STEP)).to(log_factor))


def _cell(values: Tensor, knots: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Knot below each value on logarithmically spaced knots, and how far beyond it, from 0 to 1; kept within them."""
    place = (values / knots[0]).log() / math.log(knots[1] / knots[0])
    place = place.clamp(0.0, len(knots) - 1)
    below = place.long().clamp(max=len(knots) - 2)
    return below, place - below


def nearest_radius(r_mm: NDArray[Any]) -> NDArray[np.int64]:
    """Index of the nearest of `RADII_MM`, in the logarithm."""
    middle = np.sqrt(RADII_MM[1:] * RADII_MM[:-1])
    return np.searchsorted(middle, r_mm)


def _quantile_shift(a: NDArray[Any], b: NDArray[Any], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the values `at` move when sorted `a` is mapped onto sorted `b`; constant beyond the range of `a`."""
    known = (np.arange(a.size) + 0.5) / a.size
    inside = np.clip(at, *np.quantile(a, TAIL_QUANTILES))
    level = np.interp(inside, a, known)
    return np.interp(level, (np.arange(b.size) + 0.5) / b.size, b) - inside


TAIL_QUANTILES = (0.005, 0.999)
"""Beyond these the few points of a sample say little: the shift is continued as it is there."""


class Calibration(nn.Module):
    """Factors on counts and layer energies, fitted so that hits and visible energy after projection match Geant4.

    factor_l(E, p_z) = layer_l · exp(polynomial in ln E and p_z), one for counts (CaloClouds' occupancy
    factor, a constant there) and one for energies.
    """

    centre: Tensor
    width: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("width", torch.ones(2, dtype=torch.float64))
        for kind in ("occupancy", "energy"):
            self.register_buffer(f"{kind}_layer", torch.ones(layers, dtype=torch.float64))
            self.register_buffer(f"{kind}_poly", torch.zeros(CALIBRATION_TERMS, dtype=torch.float64))
        self.points = PointShape()

    def set_scale(self, incident: Incident) -> None:
        """Fix the scales of ln E and p_z from training particles and forget earlier factors."""
        values = _log_energy_and_cosine(incident)
        low, high = values.min(0), values.max(0)
        self.centre.copy_(torch.from_numpy((low + high) / 2))
        self.width.copy_(torch.from_numpy(np.maximum((high - low) / 2, LEAST_WIDTH)))
        for kind in ("occupancy", "energy"):
            self._layer(kind).fill_(1.0)
            self._poly(kind).zero_()
        self.points.forget()

    def _layer(self, kind: str) -> Tensor:
        return getattr(self, f"{kind}_layer")

    def _poly(self, kind: str) -> Tensor:
        return getattr(self, f"{kind}_poly")

    def _powers(self, incident: Incident) -> NDArray[np.float64]:
        """1, t, t², t³, t⁴, u, u², t u of scaled ln E and p_z, `[N, CALIBRATION_TERMS]`."""
        scaled = (_log_energy_and_cosine(incident) - self.centre.cpu().numpy()) / self.width.cpu().numpy()
        t, u = np.clip(scaled, -1.0, 1.0).T
        return np.stack([np.ones_like(t), t, t**2, t**3, t**4, u, u**2, t * u], axis=1)

    def factor(self, kind: str, incident: Incident) -> NDArray[np.float64]:
        """Factors [N, L] of `kind` (occupancy or energy) for incident particles."""
        poly = np.exp(self._powers(incident) @ self._poly(kind).cpu().numpy())
        return poly[:, None] * self._layer(kind).cpu().numpy()

    def improve(self, kind: str, incident: Incident, generated: NDArray[Any], truth: NDArray[Any]) -> float:
        """One step of the fit: per-layer sums [N, L] of generated and true showers of the same particles [N].

        Returns the largest relative correction made, in any layer that holds more than `RELEVANT` of the total.
        """
        powers = self._powers(incident)
        poly = _fit_log_ratio(powers, generated.sum(1), truth.sum(1))
        poly *= min(1.0, LARGEST_STEP / max(float(np.abs(powers @ poly).max()), LARGEST_STEP))
        self._poly(kind).add_(torch.from_numpy(poly).to(self.centre))
        scaled = (generated * np.exp(powers @ poly)[:, None]).sum(0)
        share = truth.sum(0) / truth.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            layer = np.where((share > FAINT) & (scaled > 0), truth.sum(0) / scaled, 1.0)
        layer = np.clip(layer, math.exp(-LARGEST_STEP), math.exp(LARGEST_STEP))
        self._layer(kind).mul_(torch.from_numpy(layer).to(self.centre))
        relevant = share > RELEVANT
        return float(max(np.abs(layer[relevant] - 1).max(initial=0.0), np.abs(powers @ poly).max()))


def _log_energy_and_cosine(incident: Incident) -> NDArray[np.float64]:
    return np.stack([np.log(incident.energy), incident.direction[:, 2]], axis=1).astype(np.float64)


def _fit_log_ratio(powers: NDArray[Any], generated: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Coefficients of `powers` [N, terms] that fit ln(truth / generated) of showers alike in energy and angle.

    Sums, not showers one by one, are compared: the mean of a ratio is not the ratio of the means.
    """
    slices = max(1, min(ENERGY_SLICES, len(powers) // (SHOWERS_A_BIN * ANGLE_SLICES)))
    parts = [
        part
        for by_energy in np.array_split(np.argsort(powers[:, LOG_ENERGY], kind="stable"), slices)
        for part in np.array_split(by_energy[np.argsort(powers[by_energy, COSINE], kind="stable")], ANGLE_SLICES)
        if truth[part].sum() > 0 and generated[part].sum() > 0
    ]
    log_ratio = np.array([np.log(truth[part].sum() / generated[part].sum()) for part in parts])
    means = np.stack([powers[part].mean(0) for part in parts])
    weight = np.sqrt([len(part) for part in parts])
    # A pull to zero decides what the sample cannot (all directions alike: p_z has no say).
    pull = CALIBRATION_PULL * np.eye(powers.shape[1])
    normal = (means * weight[:, None] ** 2).T @ means + pull * weight.sum()
    return np.linalg.solve(normal, (means * weight[:, None] ** 2).T @ log_ratio)


LEAST_WIDTH = 1e-3
CALIBRATION_TERMS = 8
LOG_ENERGY, COSINE = 1, 5
"""Columns of the powers that hold t and u alone."""
CALIBRATION_PULL = 1e-4
ENERGY_SLICES, ANGLE_SLICES = 20, 4
SHOWERS_A_BIN = 20
LARGEST_STEP = 0.4
"""In ln(factor), a round of the fit: an untrained model must not ask for a thousand times its points."""
RELEVANT = 0.02
"""A layer counts for convergence if it holds more than this share of the total."""
FAINT = 1e-4
"""Layers below this share keep a factor of one: too few hits to fit it."""


def per_layer_after_projection(showers: Showers) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Hits and energy [N, L] that the readout sees."""
    hits = project(showers).showers
    return hits.counts_per_layer, hits.energy_per_layer
