"""Incident particles: what enters the calorimeter, and the gun that makes requests for them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from particle import InvalidParticle, Particle, ParticleNotFound

DIRECTION_TOLERANCE = 1e-3
"""How far from one the length of a direction may be: float32 files and rounded text stay well inside."""

MAX_ENERGY_GEV = 1e5
"""No calorimeter shower of the field is above 100 TeV; a larger number is an energy in MeV, keV or eV."""

BARREL_THETA_DEG = (30.0, 150.0)
"""Polar angles of the CaloClouds3 training set (arXiv:2511.01460): a particle from the interaction point."""
BARREL_PHI_DEG = (80.0, 110.0)
"""Azimuths of the same set: onto the top segment of the barrel, whose normal lies at 90 degrees."""


@dataclass(frozen=True)
class Incident:
    """N particles at the front face: energy `[N]` GeV (kinetic), unit direction `[N, 3]`, PDG code `[N]`.

    Directions are in the local frame: z into the calorimeter, x along the beam, origin at the entry point.

    Raises:
        ValueError: lengths that disagree, energies that are not positive and finite or look like MeV,
            directions that are not unit vectors or point out of the calorimeter, unknown PDG codes.
    """

    energy: NDArray[Any]
    direction: NDArray[Any]
    pdg: NDArray[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "energy", np.ascontiguousarray(self.energy, dtype=np.float32))
        object.__setattr__(self, "direction", np.ascontiguousarray(self.direction, dtype=np.float32))
        object.__setattr__(self, "pdg", np.ascontiguousarray(self.pdg, dtype=np.int32))
        n = self.energy.shape[0] if self.energy.ndim == 1 else -1
        if n < 0 or self.direction.shape != (n, 3) or self.pdg.shape != (n,):
            raise ValueError(
                "incident particles need energy [N], direction [N, 3] and pdg [N]; got "
                f"{self.energy.shape}, {self.direction.shape}, {self.pdg.shape}"
            )
        _check_energy(self.energy)
        _check_direction(self.direction)
        _check_pdg(self.pdg)

    def __len__(self) -> int:
        return self.energy.shape[0]

    def __getitem__(self, which: slice | ArrayLike) -> Incident:
        index: Any = which if isinstance(which, slice) else np.asarray(which)
        return Incident(self.energy[index], self.direction[index], self.pdg[index])

    @classmethod
    def concatenate(cls, parts: Sequence[Incident]) -> Incident:
        """The particles of all parts, one after the other."""
        return cls(
            np.concatenate([p.energy for p in parts]),
            np.concatenate([p.direction for p in parts]),
            np.concatenate([p.pdg for p in parts]),
        )

    @classmethod
    def gun(
        cls,
        n: int,
        *,
        pdg: int | Sequence[int] = 22,
        energy: tuple[float, float] | float = (10.0, 90.0),
        spectrum: str = "uniform",
        angles: str = "perpendicular",
        seed: int = 0,
    ) -> Incident:
        """Draw `n` requests.

        Args:
            n: how many particles.
            pdg: one PDG code, or several, taken in turn in equal parts.
            energy: one energy or (lowest, highest) in GeV.
            spectrum: `uniform` or `log` between the two.
            angles: `perpendicular`; `fixed:THETA,PHI` (degrees from the normal, and about it from x);
                `cone:DEG` (uniform in solid angle about the normal); `barrel` (from the interaction point
                onto ILD's top barrel segment: cot(theta) and cot(phi) uniform and independent, for polar angles
                of 30 to 150 and azimuths of 80 to 110 degrees; the normal is at 90, 90).
            seed: same seed, same particles.

        >>> incident = Incident.gun(4, pdg=22, energy=(1, 127), spectrum="log", angles="barrel", seed=1)
        >>> incident.direction.shape
        (4, 3)

        Raises:
            ValueError: an option out of its range, named.
        """
        if n < 0:
            raise ValueError(f"cannot draw {n} particles; give a number of at least 0")
        rng = np.random.default_rng([seed, _GUN_STREAM])
        low, high = energy if isinstance(energy, tuple) else (energy, energy)
        values = _draw_energy(rng, n, float(low), float(high), spectrum)
        codes = np.asarray([pdg] if isinstance(pdg, int) else list(pdg), dtype=np.int32)
        return cls(values, _draw_direction(rng, n, angles), np.resize(codes, n))


_GUN_STREAM = 0x67756E  # "gun": keeps these draws apart from any other use of the same seed


def _draw_energy(rng: np.random.Generator, n: int, low: float, high: float, spectrum: str) -> NDArray[np.float64]:
    if not (0 < low <= high < math.inf):
        raise ValueError(f"energies must satisfy 0 < lowest <= highest in GeV, got {low}:{high}")
    u = rng.random(n)
    if spectrum == "uniform":
        return low + u * (high - low)
    if spectrum == "log":
        return np.clip(low * (high / low) ** u, low, high)
    raise ValueError(f"unknown spectrum {spectrum!r}; use 'uniform' or 'log'")


_ANGLES = re.compile(r"(?P<kind>[a-z]+)(?::(?P<numbers>[-+.0-9eE,]+))?$")


def _draw_direction(rng: np.random.Generator, n: int, angles: str) -> NDArray[np.float64]:
    match = _ANGLES.match(angles)
    kind = match["kind"] if match else ""
    try:
        numbers = [float(v) for v in match["numbers"].split(",")] if match and match["numbers"] else []
    except ValueError:
        kind, numbers = "", []
    if kind == "perpendicular" and not numbers:
        return np.tile([0.0, 0.0, 1.0], (n, 1))
    if kind == "barrel" and not numbers:
        return _barrel(rng, n)
    if kind == "fixed" and len(numbers) == 2:
        return np.tile(_from_angles(*np.radians(_inward(numbers[0], numbers[1]))), (n, 1))
    if kind == "cone" and len(numbers) == 1:
        cos_max = math.cos(math.radians(_inward(numbers[0], 0.0)[0]))
        cos = 1.0 - rng.random(n) * (1.0 - cos_max)
        return _from_angles(np.arccos(cos), rng.random(n) * 2 * math.pi)
    raise ValueError(f"unknown angles {angles!r}; use perpendicular, fixed:THETA,PHI, cone:DEG or barrel")


def _inward(theta_deg: float, phi_deg: float) -> tuple[float, float]:
    if not 0 <= theta_deg < 90:
        raise ValueError(f"the angle from the normal must be in [0, 90) degrees, got {theta_deg}")
    return theta_deg, phi_deg


def _from_angles(theta: ArrayLike, phi: ArrayLike) -> NDArray[np.float64]:
    theta, phi = np.asarray(theta), np.asarray(phi)
    sin = np.sin(theta)
    return np.stack([sin * np.cos(phi), sin * np.sin(phi), np.cos(theta)], axis=-1)


def _barrel(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """cot(theta) and cot(phi) uniform and independent.

    The face is hit evenly but for a factor sin(phi) > 0.93: p_x / p_z is cot(theta) / sin(phi).
    """
    cot_theta = _between(rng, BARREL_THETA_DEG, n)
    cot_phi = _between(rng, BARREL_PHI_DEG, n)
    p = np.stack([cot_theta * np.sqrt(1 + cot_phi**2), cot_phi, np.ones(n)], axis=-1)
    return p / np.linalg.norm(p, axis=-1, keepdims=True)


def _between(rng: np.random.Generator, angles_deg: tuple[float, float], n: int) -> NDArray[np.float64]:
    low, high = sorted(1 / np.tan(np.radians(angles_deg)))
    return rng.uniform(float(low), float(high), n)


def _first(bad: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(bad)[0])


def _check_energy(energy: NDArray[np.float32]) -> None:
    bad = ~np.isfinite(energy) | (energy <= 0)
    if bad.any():
        i = _first(bad)
        raise ValueError(f"incident energy of shower {i} is {energy[i]}; it must be positive and finite (GeV)")
    if energy.size and energy.max() > MAX_ENERGY_GEV:
        i = int(energy.argmax())
        raise ValueError(
            f"incident energy of shower {i} is {energy[i]:g}, above {MAX_ENERGY_GEV:g} GeV: "
            "it looks like MeV; convert it to GeV"
        )


def _check_direction(direction: NDArray[np.float32]) -> None:
    length = np.linalg.norm(direction.astype(np.float64), axis=1)
    bad = ~(np.abs(length - 1) <= DIRECTION_TOLERANCE)
    if bad.any():
        i = _first(bad)
        raise ValueError(f"direction of shower {i} has length {length[i]:.4g}; normalise directions to 1")
    out = direction[:, 2] <= 0
    if out.any():
        i = _first(out)
        raise ValueError(
            f"direction of shower {i} has p_z = {direction[i, 2]:.4g} and points out of the calorimeter; "
            "give directions in the local frame, z into the calorimeter"
        )


def _check_pdg(pdg: NDArray[np.int32]) -> None:
    for code in np.unique(pdg):
        try:
            Particle.from_pdgid(int(code))
        except (ParticleNotFound, InvalidParticle):
            i = _first(pdg == code)
            raise ValueError(f"PDG code {code} of shower {i} is not a known particle (photon is 22)") from None
