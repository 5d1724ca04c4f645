"""The point model of one calorimeter of CaloHadronic: what its points are given, their transform, networks, factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.detector.geometry import Detector
from calogen.methods.bespoke import BespokeSolver
from calogen.methods.conditional import Condition
from calogen.methods.consistency import ConsistencyDistillation
from calogen.methods.edm import EDM
from calogen.networks.hadronic_transformer import HadronicTransformer, PointCondition
from calogen.systems.calibration import PointShape
from calogen.systems.calohadronic_published import BoxPoints
from calogen.systems.drawing import Precision
from calogen.systems.layer_counts import assign_layers, rescale
from calogen.systems.points import FEATURES, FittedPoints, Points, PointTransform
from calogen.systems.profile_targets import LEAST_ENERGY_GEV, LayerProfile

if TYPE_CHECKING:
    from calogen.systems.calohadronic import CaloHadronicConfig

CENTRE = 2
"""Numbers of the centre of gravity that points are given: x and y."""
LEAST_STD = 0.1
"""Smallest scale a number is standardised with: layers that nearly no shower reaches have none."""


LEAST_STEPS = 2
"""Noise levels of Heun's method: from the first to the last is one step."""


class Placed(NamedTuple):
    """Points [P] on their layers, ordered by shower and layer: x, y mm, layer of the detector, energy GeV."""

    x: NDArray[Any]
    y: NDArray[Any]
    layer: NDArray[np.int64]
    energy: NDArray[Any]


@dataclass(frozen=True)
class PointSampling:
    """How points are drawn: by the student at a few noise levels, or by the teacher, with its own solver or Heun's."""

    sampler: Literal["few", "bespoke", "teacher"] = "few"
    steps: int = 18  # of Heun's method: 2 steps - 1 evaluations
    sigmas: tuple[float, ...] = ()  # falling, one evaluation each; none: those of the configuration
    precision: Precision = "float32"  # of the products

    def __post_init__(self) -> None:
        if self.sampler not in ("few", "bespoke", "teacher"):
            raise ValueError(f"unknown sampler {self.sampler!r}; use 'few', 'bespoke' or 'teacher'")
        if self.sigmas and self.sampler != "few":
            raise ValueError(f"sigmas={self.sigmas}: noise levels of sampler 'few', not of {self.sampler!r}")
        if self.steps < LEAST_STEPS:
            raise ValueError(f"steps={self.steps}: give at least {LEAST_STEPS}")

    @property
    def is_calibrated(self) -> bool:
        """Whether radii and energies of points are corrected: the maps are fitted to the students' own errors."""
        return self.sampler == "few" and not self.sigmas


class ProfileNumbers(nn.Module):
    """Per layer ln(1 + n) and ln(E / n), and the centre of gravity in the plane, standardised on training showers.

    A layer without points has no energy per point: its number is zero, the mean.

    Args:
        layers: of the section.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.size = 2 * layers + CENTRE
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("std", torch.ones(self.size))

    @staticmethod
    def _values(profile: LayerProfile) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        per_point = np.log(np.maximum(profile.energy, LEAST_ENERGY_GEV) / np.maximum(profile.counts, 1))
        values = [np.log1p(np.maximum(profile.counts, 0)), per_point, profile.cog[:, :CENTRE]]
        exists = [np.ones_like(profile.counts, bool), profile.counts > 0, np.ones((len(profile.cog), CENTRE), bool)]
        return np.concatenate(values, axis=1), np.concatenate(exists, axis=1)

    def fit(self, profile: LayerProfile) -> None:
        """Take mean and spread of what exists in the section's layers of training showers."""
        values, exists = self._values(profile)
        many = np.maximum(exists.sum(0), 1)
        mean = np.where(exists, values, 0).sum(0) / many
        std = np.sqrt((np.where(exists, values - mean, 0) ** 2).sum(0) / many)
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.maximum(std, LEAST_STD)))

    def forward(self, profile: LayerProfile) -> Tensor:
        """Profile of the section's layers of N showers -> [N, size]."""
        values, exists = self._values(profile)
        z = (torch.from_numpy(values).to(self.mean) - self.mean) / self.std
        return z * torch.from_numpy(exists).to(z)


class CountShares(nn.Module):
    """n / largest n of the training showers: what the published points are given of their layers.

    Args:
        layers: of the section.
    """

    largest: Tensor

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.size = layers
        self.register_buffer("largest", torch.tensor(1.0))

    def fit(self, profile: LayerProfile) -> None:
        """Take the largest count in any layer of the section."""
        self.largest.fill_(max(float(profile.counts.max(initial=0)), 1.0))

    def forward(self, profile: LayerProfile) -> Tensor:
        """Profile of the section's layers of N showers -> [N, size]."""
        return torch.from_numpy(profile.counts).to(self.largest) / self.largest


class Calorimeter:
    """One section: EDM of its points, given its layers and the points of the section before; how that is drawn fast.

    Args:
        config: of the system.
        detector: with the section.
        index: of the section.
        numbers: how many the particle is.

    Raises:
        ValueError: if the section's layers do not lie one behind the other.
    """

    def __init__(self, config: CaloHadronicConfig, detector: Detector, index: int, numbers: int) -> None:
        self.name = detector.sections[index]
        at = detector.layers_of(self.name)
        if not (np.diff(at) == 1).all():
            raise ValueError(f"layers of section {self.name!r} of {detector.name!r} do not lie one behind the other")
        self.first, self.layers = int(at[0]), slice(int(at[0]), int(at[-1]) + 1)
        published = config.normalisation == "published"
        self.profile: ProfileNumbers | CountShares = (CountShares if published else ProfileNumbers)(len(at))
        self.points: PointTransform = (
            BoxPoints(self.name, len(at)) if published else FittedPoints(len(at), config.sigma_data)
        )
        network = HadronicTransformer(
            FEATURES,
            numbers + self.profile.size,
            width=config.width,
            heads=config.heads[index],
            blocks=config.blocks[index],
            feedforward=config.feedforward,
            given=FEATURES if index > 0 else 0,
            highest=config.highest,
            frequencies=config.frequencies,
            added=config.added,
            dropout=config.dropout,
        )
        self.teacher = EDM(
            network,
            FEATURES,
            sigma_data=config.sigma_data,
            p_mean=config.p_mean,
            p_std=config.p_std,
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
            stratified=True,
            weighting=config.weighting,
        )
        self.distillation = ConsistencyDistillation(
            self.teacher, steps=config.distillation_steps, target_decay=config.target_decay
        )
        self.solver = BespokeSolver(config.bespoke_steps)
        self.sigmas = config.sigmas
        self.shape = PointShape()

    def parts(self) -> dict[str, nn.Module]:
        """What a state stores of the section."""
        modules = {
            "profile": self.profile,
            "points": self.points,
            "teacher": self.teacher,
            "student": self.distillation.target,
            "solver": self.solver,
            "shape": self.shape,
        }
        return {f"{self.name}_{name}": module for name, module in modules.items()}

    def of(self, profile: LayerProfile) -> LayerProfile:
        """The section's layers of a profile."""
        return LayerProfile(profile.counts[:, self.layers], profile.energy[:, self.layers], profile.cog)

    def values(self, numbers: Tensor, profile: LayerProfile) -> Tensor:
        """The numbers [N, C] of the condition: the particle's, and the section's out of the whole profile."""
        return torch.cat([numbers, self.profile(self.of(profile)).to(numbers)], dim=1)

    def as_given(self, latent: Tensor, placed: Placed, counts: NDArray[np.int64]) -> Tensor:
        """Points [P, 4] of this section as the network of the next one sees them: what became of them in the end.

        Published weights are given the points as they were drawn (`of_geant4` serves training).
        """
        if isinstance(self.points, BoxPoints):
            return self.points.with_energies(latent)
        points = Points(
            *(torch.from_numpy(v).to(latent.device) for v in placed._replace(layer=placed.layer - self.first))
        )
        u = torch.from_numpy(within_layers(counts)).to(latent.device)
        return self.points.encode(points._replace(energy=points.energy.clamp(min=LEAST_ENERGY_GEV)), u).to(latent)

    def of_geant4(self, latent: Tensor) -> Tensor:
        """Latent points [P, 4] of Geant4 as the network of the next section sees them."""
        return self.points.with_energies(latent) if isinstance(self.points, BoxPoints) else latent

    def placed(
        self, latent: Tensor, counts: NDArray[np.int64], energy: NDArray[Any] | None, how: PointSampling
    ) -> Placed:
        """Latent points [P, 4] onto the section's layers [N, L]; scaled to energies [N, L] GeV, where given."""
        points = self.points.decode(latent)
        if how.is_calibrated:
            points = self.shape(points)
        x, y, depth, own = (value.cpu().numpy() for value in points)
        order, layer = assign_layers(depth, counts)
        held = own[order] if energy is None else rescale(own[order], counts, energy)
        return Placed(x[order], y[order], layer + self.first, held)

    def evaluations(self, how: PointSampling) -> int:
        """How many times noise is drawn for each point."""
        return len(how.sigmas or self.sigmas) if how.sampler == "few" else 1

    def require_possible(self, how: PointSampling) -> None:
        """Refuse noise levels that the student cannot start from or go to.

        Raises:
            ValueError: levels that do not fall from sigma_max, or not within sigma_min.
        """
        if not how.sigmas:
            return
        student, levels = self.distillation.target, list(how.sigmas)
        falls = levels == sorted(set(levels), reverse=True) and levels[-1] >= student.sigma_min
        if not falls or levels[0] != student.sigma_max:
            raise ValueError(
                f"sigmas={how.sigmas}: they must start at {student.sigma_max:g}, where all is noise, and fall to no "
                f"less than {student.sigma_min:g}"
            )

    def draw(self, condition: Condition, counts: NDArray[np.int64], noise: Tensor, how: PointSampling) -> Tensor:
        """Latent points [P, 4] of sets of these sizes [N] out of standard normal noise [evaluations, P, 4]."""
        with torch.autocast(noise.device.type, torch.bfloat16, enabled=how.precision == "bfloat16"):
            return self._drawn(condition, counts, noise, how).float()

    def _drawn(self, condition: Condition, counts: NDArray[np.int64], noise: Tensor, how: PointSampling) -> Tensor:
        sizes = torch.from_numpy(counts).to(noise.device)
        if how.sampler != "few":
            solver = self.solver if how.sampler == "bespoke" else None
            return self.teacher.sample(condition, counts=sizes, noise=noise[0], steps=how.steps, solver=solver)
        sigmas = how.sigmas or self.sigmas
        return self.distillation.target.sample(condition, counts=sizes, noise=noise, sigmas=sigmas)


def given(values: Tensor, points: Tensor | None = None, counts: Tensor | None = None) -> Condition:
    """The condition of a section's network: numbers [N, C], and points [M, 4] of the section before, counts [N]."""
    return values if points is None or counts is None else PointCondition(values, points, counts)


def within_layers(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Places [P] in (0, 1) of points within their layers [N, L], evenly spaced in their order.

    >>> within_layers(np.array([[2, 0, 1]])).tolist()
    [0.25, 0.75, 0.5]
    """
    flat = counts.ravel()
    first = np.repeat(np.cumsum(flat) - flat, flat)
    places: NDArray[np.float64] = (np.arange(len(first)) - first + 0.5) / np.repeat(flat, flat)
    return places


def noise_of(
    streams: Sequence[np.random.Generator], counts: NDArray[np.int64], evaluations: int
) -> NDArray[np.float32]:
    """Standard normal numbers [evaluations, P, 4], those of each shower from its own stream; counts [N] add up to P."""
    own = [
        stream.standard_normal((evaluations, n, FEATURES), dtype=np.float32)
        for stream, n in zip(streams, counts.tolist(), strict=True)
    ]
    return np.concatenate(own, axis=1)
