"""Points on known layers as the vectors a flow learns: place in the plane and energy, by section and kind of shower."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.detector.geometry import Detector
from calogen.gaussianize import GaussianQuantiles, RadialQuantiles

PLANE_AND_ENERGY = 3
"""Numbers of a point whose layer is known: x, y, energy."""
MOST_POINTS = 1_000_000
"""Points that quantiles are taken from: more change nothing in them."""


class LayerPoints(NamedTuple):
    """Packed points `[P]` on known layers: x, y mm about the axis, energy GeV."""

    x: NDArray[Any]
    y: NDArray[Any]
    energy: NDArray[Any]


class Given(NamedTuple):
    """What is known of packed points `[P]` beforehand."""

    layer: NDArray[Any]
    hadronic: NDArray[np.bool_]
    """of a hadron's shower, not an electron's or a photon's"""
    mean_energy: NDArray[Any]
    """mean energy of the points of their shower and layer, GeV"""


class LayerPointTransform(nn.Module):
    """Points as latent vectors [P, 3] of about unit spread, given their layers [P], and back."""

    @abstractmethod
    def fit(self, points: LayerPoints, given: Given) -> None:
        """Take scales from training points."""

    @abstractmethod
    def encode(self, points: LayerPoints, given: Given) -> Tensor:
        """Points -> latent [P, 3]."""

    @abstractmethod
    def decode(self, latent: Tensor, given: Given) -> LayerPoints:
        """Latent [P, 3] -> points."""


class SectionPoints(LayerPointTransform):
    """Radii, and energies relative to the mean of their layer, made normal by their quantiles.

    A calorimeter's section has its own scale of lengths and energies, and so have electromagnetic and hadronic
    showers in it: among the points of hadrons those of a photon fill a corner, in which a network blurs its core.
    Relative energies leave the sum of a layer, which was drawn before, out of what is to be learned.

    Args:
        detector: its sections.
    """

    section: Tensor

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        of_layer = [detector.sections.index(layer.section) for layer in detector.layers]
        self.register_buffer("section", torch.tensor(of_layer), persistent=False)
        scales = GROUPS * len(detector.sections)
        self.radial = nn.ModuleList(RadialQuantiles() for _ in range(scales))
        self.energies = nn.ModuleList(GaussianQuantiles(1) for _ in range(scales))

    def _rows(self, given: Given) -> list[Tensor]:
        """The points of each section and group: sections of electromagnetic showers, then those of hadrons."""
        device = self.section.device
        section = self.section[torch.from_numpy(np.asarray(given.layer, dtype=np.int64)).to(device)]
        group = torch.from_numpy(np.asarray(given.hadronic, dtype=np.int64)).to(device)
        scale = group * (len(self.radial) // GROUPS) + section
        return [(scale == k).nonzero()[:, 0] for k in range(len(self.radial))]

    def fit(self, points: LayerPoints, given: Given) -> None:
        """See `LayerPointTransform`; a point alone in its layer says nothing of energies."""
        plane, relative = _plane(points), _relative(points.energy, given.mean_energy)
        rows = [part.cpu() for part in self._rows(given)]
        sections = len(rows) // GROUPS
        for k, own in enumerate(rows):
            others = rows[(k + sections) % len(rows)]  # those of the other group, where this one has next to none
            few = own if len(own) >= LEAST_POINTS else torch.cat([own, others])
            few = few[:: max(1, len(few) // MOST_POINTS)]
            if len(few) < LEAST_POINTS:
                continue
            self.radial[k].fit(plane[few])  # type: ignore[operator]
            shared = relative[few][relative[few].abs() > ALONE]
            if len(shared) >= LEAST_POINTS:
                self.energies[k].fit(shared[:, None])  # type: ignore[operator]

    def encode(self, points: LayerPoints, given: Given) -> Tensor:
        """See `LayerPointTransform`."""
        device = self.section.device
        plane, relative = _plane(points).to(device), _relative(points.energy, given.mean_energy).to(device)
        latent = plane.new_empty(len(plane), PLANE_AND_ENERGY)
        for k, rows in enumerate(self._rows(given)):
            latent[rows, :2] = self.radial[k](plane[rows])
            latent[rows, 2:] = self.energies[k](relative[rows, None])
        return latent

    def decode(self, latent: Tensor, given: Given) -> LayerPoints:
        """See `LayerPointTransform`."""
        values = torch.empty_like(latent)
        for k, rows in enumerate(self._rows(given)):
            values[rows, :2] = self.radial[k].inverse(latent[rows, :2])  # type: ignore[operator]
            values[rows, 2:] = self.energies[k].inverse(latent[rows, 2:])  # type: ignore[operator]
        x, y, relative = values.double().cpu().numpy().T
        return LayerPoints(x, y, given.mean_energy * np.exp(np.clip(relative, -LARGEST_LOG, LARGEST_LOG)))


GROUPS = 2
"""Electromagnetic showers, and hadrons'."""
LEAST_POINTS = 100
"""With fewer of both groups in a section its scales stay as they are."""
ALONE = 1e-6
LARGEST_LOG = 30.0
"""Keeps exponentials finite, whatever an untrained network says."""


def _plane(points: LayerPoints) -> Tensor:
    return torch.from_numpy(np.stack([points.x, points.y], axis=1).astype(np.float32))


def _relative(energy: NDArray[Any], mean_energy: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.log(energy / mean_energy).astype(np.float32))


class StandardPoints(LayerPointTransform):
    """x, y and ln E standardised, as AllShowers does."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(PLANE_AND_ENERGY))
        self.register_buffer("std", torch.ones(PLANE_AND_ENERGY))

    @staticmethod
    def _values(points: LayerPoints) -> Tensor:
        log_energy = np.log(points.energy)
        return torch.from_numpy(np.stack([points.x, points.y, log_energy], axis=1).astype(np.float32))

    def fit(self, points: LayerPoints, given: Given) -> None:
        """See `LayerPointTransform`."""
        values = self._values(points).double()
        self.mean.copy_(values.mean(0))
        self.std.copy_(values.std(0).clamp(min=1e-6))

    def encode(self, points: LayerPoints, given: Given) -> Tensor:
        """See `LayerPointTransform`."""
        return (self._values(points).to(self.mean) - self.mean) / self.std

    def decode(self, latent: Tensor, given: Given) -> LayerPoints:
        """See `LayerPointTransform`."""
        x, y, log_energy = (latent * self.std + self.mean).double().cpu().numpy().T
        return LayerPoints(x, y, np.exp(np.clip(log_energy, -LARGEST_LOG, LARGEST_LOG)))
