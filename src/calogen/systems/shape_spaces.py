"""What the flow of CaloDREAM's shapes draws: shares of the voxels themselves, or latent numbers of an autoencoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.detector.geometry import CartesianCells, Detector, PolarCells
from calogen.networks.grid_convolution import Triple
from calogen.networks.patches import Patches
from calogen.networks.voxel_vae import BETA, Latent, Level, VoxelVAE
from calogen.systems.logits import Moments
from calogen.systems.voxel_shares import Cut, Shares
from calogen.systems.voxel_targets import DrawnLayers, VoxelTargets
from calogen.transforms import Standardize


@dataclass(frozen=True)
class Autoencoder:
    """Sizes of the autoencoder of the latent form, laViT (arXiv:2405.09629, sec. 3.4)."""

    levels: tuple[Level, ...] = ()  # from the voxels inwards; none: no autoencoder, the flow draws voxels
    latent: int = 2  # numbers of each place of the latent grid
    width: int = 100  # of the condition's embedding
    around: bool = True  # angles close to a circle; published: zeros beyond the seam
    beta: float = BETA  # weight of the KL divergence


class Drawn(NamedTuple):
    """Of N showers what a space's flow learns [N, F], and what it is given [N, C]."""

    x: Tensor
    condition: Tensor
    edge: Tensor | None = None
    """see `Targets`"""


class Cuts(NamedTuple):
    """Below which energies cells are empty, in each layer [L] GeV: the readout's threshold, which no cell is below in
    the end, and what was fitted (see `FaintCut`), before the layer is scaled to its energy."""

    threshold_gev: Sequence[float]
    faint_gev: Tensor | None


class ShapeSpace(Protocol):
    """The way from showers to what a flow learns, and from what it draws to energies of voxels.

    `energy` [N, V] and `incident` [N] are in GeV, `x_energy` [N, L] is as `VoxelTargets` has it.
    """

    patches: Patches
    """of the F numbers"""
    conditions: int
    """C, of what the flow is given"""
    layer_noise: int
    """standard normal numbers of a shower that `layers` takes"""

    def encode(self, energy: NDArray[Any], incident: NDArray[Any], rng: np.random.Generator) -> Drawn:
        """What the flow learns of showers; `rng` draws the noise on it."""

    def layers(self, x_energy: Tensor, incident: NDArray[Any], noise: Tensor) -> DrawnLayers:
        """What is known of the layers, and the flow is given, where their energies were drawn."""

    def decode(self, layers: DrawnLayers, x: Tensor, incident: NDArray[Any], cuts: Cuts) -> _Decoded:
        """Drawn numbers x [N, F] -> energies [N, V] GeV, and what the cuts did."""


_Decoded = tuple[Tensor, Cut]


class ShareSpace:
    """The share of each voxel in its layer, as a logit, or as a normal number with those of rings behind.

    Args:
        targets: the transforms.
        patches: of the voxels and of what is behind them.
    """

    def __init__(self, targets: VoxelTargets, patches: Patches) -> None:
        self.targets, self.patches = targets, patches
        self.conditions = targets.conditions
        self.layer_noise = 0 if targets.marginals is None else targets.layers.n_layers

    def encode(self, energy: NDArray[Any], incident: NDArray[Any], rng: np.random.Generator) -> Drawn:
        """See `ShapeSpace`; the noise is that on the shares."""
        made = self.targets.encode(energy, incident, rng)
        return Drawn(made.shape, made.condition, made.edge)

    def layers(self, x_energy: Tensor, incident: NDArray[Any], noise: Tensor) -> DrawnLayers:
        """See `ShapeSpace`."""
        return self.targets.drawn_layers(x_energy, incident, noise)

    def decode(self, layers: DrawnLayers, x: Tensor, incident: NDArray[Any], cuts: Cuts) -> _Decoded:
        """See `ShapeSpace`."""
        return self.targets.decode(layers, x, incident, cuts.threshold_gev, faint_gev=cuts.faint_gev)


class LatentSpace:
    """The latent numbers of an autoencoder of the shares, standardised by channel.

    The published system leaves them on the scale they happen to have: the KL term is too weak to set one.

    Args:
        targets: the transforms.
        detector: its layers must have the same cells.
        sizes: of the autoencoder.
        patch: of the latent grid: layers, angles, radii.

    Raises:
        ValueError: layers of different cells, or sizes that do not fit them.
    """

    def __init__(self, targets: VoxelTargets, detector: Detector, sizes: Autoencoder, patch: Triple) -> None:
        self.targets, self.grid, self.beta = targets, grid_of(detector), sizes.beta
        self.network = VoxelVAE(
            self.grid,
            1 + detector.n_layers,
            sizes.levels,
            latent=sizes.latent,
            width=sizes.width,
            around=sizes.around,
        )
        channels, *latent_grid = self.network.latent_shape
        layers, angles, radii = latent_grid
        self.scale = Standardize(channels)
        self.module = nn.ModuleDict({"network": self.network, "scale": self.scale})
        self.patches = Patches.of_grid((layers, angles, radii), patch, channels)
        self.conditions, self.layer_noise = 1 + detector.n_layers, 0

    def encode(self, energy: NDArray[Any], incident: NDArray[Any], rng: np.random.Generator) -> Drawn:
        """See `ShapeSpace`; the noise is that of the latent numbers."""
        noise = rng.standard_normal((len(energy), self.patches.voxels), dtype=np.float32)
        return self.encode_with(energy, incident, torch.from_numpy(noise))

    def encode_with(self, energy: NDArray[Any], incident: NDArray[Any], noise: Tensor) -> Drawn:
        """`encode` with given noise [N, F]."""
        latent, condition = self.latent(energy, incident)
        rows = latent.sample(noise.to(condition).view_as(latent.mu)).movedim(1, -1)
        standard: Tensor = self.scale(rows.flatten(0, -2)).view(rows.shape)
        return Drawn(standard.movedim(-1, 1).flatten(1), condition)

    @torch.no_grad()
    def latent(self, energy: NDArray[Any], incident: NDArray[Any]) -> tuple[Latent, Tensor]:
        """Means and variances of the latent numbers, and the condition [N, 1 + L] they were made with."""
        shares, condition = self.shares(energy, incident)
        return self.network.encode(shares, condition), condition

    def shares(self, energy: NDArray[Any], incident: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """What the autoencoder sees: shares on the grid [N, layers, angles, radii], condition [N, 1 + L]."""
        made: Shares = self.targets.shares(energy, incident)
        return made.within.float().unflatten(1, self.grid), self.targets.condition_of_shares(made.u, incident)

    def loss(self, shares: Tensor, condition: Tensor) -> Tensor:
        """Binary cross-entropy + β KL [N]; the noise is drawn from torch's global generator."""
        return self.network.loss(shares, condition, beta=self.beta)

    def fit(self, showers: Iterable[tuple[NDArray[Any], NDArray[Any]]], rng: np.random.Generator) -> None:
        """Scale the channels, when the autoencoder is trained, by batches of (energy, incident energy).

        Raises:
            ValueError: fewer than two showers.
        """
        moments = Moments(len(self.scale.shift))
        for energy, incident in showers:
            latent, _ = self.latent(energy, incident)
            noise = torch.from_numpy(rng.standard_normal(tuple(latent.mu.shape), dtype=np.float32)).to(latent.mu)
            moments.add(latent.sample(noise).movedim(1, -1).flatten(0, -2).cpu())
        moments.store(self.scale)

    def layers(self, x_energy: Tensor, incident: NDArray[Any], noise: Tensor) -> DrawnLayers:
        """See `ShapeSpace`; there is no noise."""
        return DrawnLayers(x_energy, self.targets.condition_of_shares(self.targets.u(x_energy), incident), None)

    def decode(self, layers: DrawnLayers, x: Tensor, incident: NDArray[Any], cuts: Cuts) -> _Decoded:
        """See `ShapeSpace`."""
        z = x.unflatten(1, self.network.latent_shape).movedim(1, -1)
        z = self.scale.inverse(z.flatten(0, -2)).view(z.shape).movedim(-1, 1)
        within = self.network.decode(z, layers.condition).flatten(1)
        return self.targets.decode_shares(
            layers.x_energy, within, incident, cuts.threshold_gev, faint_gev=cuts.faint_gev
        )


def grid_of(detector: Detector) -> Triple:
    """Layers, angles and radii (or cells in x and y) of a detector whose layers are alike.

    Raises:
        ValueError: layers of different cells.
    """
    cells = {layer.cells for layer in detector.layers}
    if len(cells) > 1:
        raise ValueError(
            f"the layers of {detector.name!r} have different cells: an autoencoder needs one grid; learn the voxels "
            "themselves (no levels)"
        )
    one = cells.pop()
    if isinstance(one, PolarCells):
        return detector.n_layers, one.n_alpha, one.n_r
    assert isinstance(one, CartesianCells)
    return detector.n_layers, one.n_x, one.n_y


def patches_of(detector: Detector, patch: Triple, numbers: Sequence[int] | None = None) -> Patches:
    """Patches of the detector's cells, and of as many `numbers` of each layer [L] behind them.

    Rings lie where their inner edges are, as shares of the largest radius.
    """
    layout, rings = [], []
    outermost = max(_outer(layer.cells) for layer in detector.layers)
    for layer in detector.layers:
        cells = layer.cells
        if isinstance(cells, PolarCells):
            layout.append((cells.n_alpha, cells.n_r))
            rings.append([r / outermost for r in cells.r_edges_mm[:-1]])
        else:
            layout.append((cells.n_x, cells.n_y))
            rings.append([k / cells.n_y for k in range(cells.n_y)])
    alike = all(part == layout[0] for part in layout)
    return Patches.of_layers(layout, patch, rings=None if alike else rings, numbers=numbers)


def _outer(cells: Any) -> float:
    return float(cells.r_edges_mm[-1]) if isinstance(cells, PolarCells) else 1.0
