"""Voxel showers as the numbers CaloDREAM's networks learn, and back: ratios and shares by logits, standardised.

arXiv:2405.09629 (logit: eq. 3); constants from the published code where the paper leaves them out. With
x_inc = ln(E_inc / E_min) / ln(E_max / E_min), the ratios u [N, L] and the shares [N, V] of `VoxelLayers`:

    network        learns                                              given
    energies       standardised logit(u_0 / f, u_1, ...)               x_inc
    shapes         standardised logit(share + noise)                   x_inc, u_0 standardised, u_1, ... as learnt
                   (or normal numbers, see `cell_marginals`            and numbers of filled voxels)
    autoencoder    shares as they are                                  x_inc, u as it is
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.systems.cell_marginals import SHOWERS_FITTED, CellMarginals, Hits
from calogen.systems.logits import LOGITS, ROUND_OFF, Moments
from calogen.systems.voxel_shares import Cut, Shares, VoxelLayers
from calogen.transforms import Standardize, finite


@dataclass(frozen=True)
class TargetConstants:
    """What is chosen, not fitted.

    Raises:
        ValueError: an unknown logit, or numbers out of range.
    """

    logit: str = "regularised"  # one of LOGITS
    alpha: float = 1e-6  # of the logits
    noise: float = 5e-6  # shares get U(0, noise) for training; generated ones below it are 0
    factor: float = 1 / 0.35  # f: u_0 / f must not exceed 1 (the paper prints 2.85)
    incident_gev: tuple[float, float] = (1.0, 1000.0)  # E_min, E_max, which become 0 and 1
    shares: Literal["logit", "marginals"] = "logit"  # how the shapes' flow sees shares; marginals: `CellMarginals`

    def __post_init__(self) -> None:
        if self.logit not in LOGITS:
            raise ValueError(f"there is no logit {self.logit!r}; choose one of {', '.join(LOGITS)}")
        if self.shares not in ("logit", "marginals"):
            raise ValueError(f"there are no shares as {self.shares!r}; choose logit or marginals")
        low, high = self.incident_gev
        if not (0 < low < high and self.factor > 0 and 0 <= self.noise < 1):
            raise ValueError(f"need 0 < E_min < E_max, factor > 0 and 0 <= noise < 1, got {self}")


CONSTANTS: Mapping[str, TargetConstants] = MappingProxyType(
    {"published": TargetConstants(), "published-clamped": TargetConstants(logit="clamped")}
)
"""`published` has the paper's logit (eq. 3); `published-clamped` is what the published code does by default."""


class Targets(NamedTuple):
    """Of N showers what the networks learn, and what they are given; single precision."""

    energy: Tensor
    """x_energy [N, L]"""
    shape: Tensor
    """x_shape [N, F]: one number a voxel, and with marginals one a ring behind them"""
    incident: Tensor
    """condition of the energy network [N, 1]"""
    condition: Tensor
    """condition of the shape network [N, C], see `VoxelTargets.conditions`"""
    edge: Tensor | None
    """of empty voxels the largest that x_shape could have been, NaN of others [N, F]; None: x_shape is what it is"""


class DrawnLayers(NamedTuple):
    """What was drawn for the layers of N showers."""

    x_energy: Tensor
    """[N, L], see `Targets.energy`"""
    condition: Tensor
    """what the flow of the shapes is given [N, C]"""
    filled: Tensor | None
    """numbers of filled voxels [N, L], where they are drawn before the shapes"""


class VoxelTargets(nn.Module):
    """Showers to targets and conditions, and back. Everything fitted is a buffer; results are where the buffers are.

    Args:
        cells_per_layer: voxels of each layer.
        constants: what is not fitted.
        alike: with marginals the group of each voxel [V] (`cell_marginals.alike`), which has one distribution; without
            it each voxel has its own.
    """

    def __init__(
        self,
        cells_per_layer: Sequence[int],
        constants: TargetConstants = CONSTANTS["published"],
        alike: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.constants = VoxelLayers(cells_per_layer), constants
        self.logit = LOGITS[constants.logit](constants.alpha)
        self.energy = Standardize(self.layers.n_layers)
        self.shape = Standardize(self.layers.n_voxels if constants.shares == "logit" else 0)
        self.total = Standardize(1)
        self.marginals: CellMarginals | None = None
        if constants.shares == "marginals":
            self.marginals = CellMarginals(cells_per_layer, range(sum(cells_per_layer)) if alike is None else alike)

    @property
    def rings_per_layer(self) -> list[int] | None:
        """Numbers of each layer that the shapes' flow learns behind those of the voxels; None: there are none."""
        return None if self.marginals is None else torch.bincount(self.marginals.layer).tolist()

    @property
    def conditions(self) -> int:
        """C, what the shape network is given: 1 + L numbers of the energies; with marginals as well how many voxels
        of each layer are filled."""
        return 1 + self.layers.n_layers * (1 if self.marginals is None else 2)

    def fit(self, showers: Iterable[tuple[NDArray[Any], NDArray[Any]]], rng: np.random.Generator) -> None:
        """Means and deviations, or the marginals, from batches of (energy [N, V] GeV, incident energy [N] GeV).

        Marginals are made of the first `SHOWERS_FITTED` of them.

        Args:
            showers: read once, a batch at a time.
            rng: draws the noise on the shares.

        Raises:
            ValueError: fewer than two showers, values out of range.
        """
        energy, shape, total = (Moments(len(part.shift)) for part in (self.energy, self.shape, self.total))
        hits, kept = Hits(), []
        for batch in showers:
            shares = self.shares(*batch)
            energy.add(self.energy_logit(shares.u))
            total.add(shares.u[:, :1])
            if self.marginals is None:
                shape.add(self._shape_logit(shares, rng))
            elif hits.showers < SHOWERS_FITTED:
                hits.add(shares.within)
                kept.append((shares.u.cpu(), np.asarray(batch[1])))
        for moments, part in ((energy, self.energy), (total, self.total)):
            moments.store(part)
        if self.marginals is None:
            shape.store(self.shape)
            return
        u, incident = (
            torch.cat([part[0] for part in kept]).to(self.energy.shift.device),
            np.concatenate([p[1] for p in kept]),
        )
        layers = self._layers(u, incident)
        self.marginals.fit(layers.cpu().numpy(), hits)
        given = self._condition(self.scaled_incident(incident), u, self.energy(self.energy_logit(u).float()))
        n = torch.from_numpy(hits.counts(self.layers.n_layers, self.marginals.layer_of(hits))).to(u.device)
        self.marginals.filled_layers.fit_model(n, given, layers, rng)

    def encode(self, energy: NDArray[Any], incident: NDArray[Any], rng: np.random.Generator) -> Targets:
        """Voxel energies [N, V] and incident energies [N], both GeV; `rng` draws the noise on the shares.

        Raises:
            ValueError: negative or NaN energies, showers of more than `factor` times their incident energy.
        """
        shares = self.shares(energy, incident)
        x = self.energy(self.energy_logit(shares.u).float())
        x_inc = self.scaled_incident(incident)
        condition = self._condition(x_inc, shares.u, x)
        if self.marginals is None:
            return Targets(x, self.shape(self._shape_logit(shares, rng).float()), x_inc, condition, None)
        within, layers = shares.within, self._layers(shares.u, incident)
        uniform = torch.from_numpy(rng.random((len(x), self.marginals.n_numbers), dtype=np.float32)).to(within)
        normal = torch.from_numpy(rng.standard_normal(layers.shape, dtype=np.float32)).to(within)
        shape, edge = self.marginals(within.float(), layers, uniform, normal)
        condition = self._with_filled(condition, self.layers.sum(within > 0), layers)
        return Targets(x, shape, x_inc, condition, edge)

    def encode_energies(self, energy: NDArray[Any], incident: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """What the energy network learns [N, L] and is given [N, 1], from what `encode` takes; nothing is random."""
        shares = self.shares(energy, incident)
        return self.energy(self.energy_logit(shares.u).float()), self.scaled_incident(incident)

    def _with_filled(self, condition: Tensor, n: Tensor, layers: Tensor) -> Tensor:
        """The condition [N, C] with numbers of filled voxels n [N, L] in layers of these energies [N, L] GeV."""
        assert self.marginals is not None
        return torch.cat([condition, self.marginals.filled_layers.level(n, self.marginals.bins(layers))], dim=1)

    def drawn_layers(self, x_energy: Tensor, incident: NDArray[Any], noise: Tensor) -> DrawnLayers:
        """What is known of the layers when their energies are drawn, and what the shape network is given.

        Args:
            x_energy: [N, L].
            incident: energies [N] GeV.
            noise: standard normal numbers [N, L] (none [N, 0] without marginals), of which numbers of filled voxels
                are made.
        """
        condition = self.condition(x_energy, incident)
        if self.marginals is None:
            return DrawnLayers(x_energy, condition, None)
        layers, model = self._layers(self.u(x_energy), incident), self.marginals.filled_layers
        n = model.n(model.draw(noise, condition, layers), self.marginals.bins(layers))
        return DrawnLayers(x_energy, self._with_filled(condition, n, layers), n)

    def _layers(self, u: Tensor, incident: NDArray[Any]) -> Tensor:
        return self.layers.layer_energies(u, self._incident(incident))

    def decode(
        self,
        layers: DrawnLayers,
        x_shape: Tensor,
        incident: NDArray[Any],
        threshold_gev: float | Sequence[float] | Tensor = 0.0,
        *,
        faint_gev: Tensor | None = None,
    ) -> tuple[Tensor, Cut]:
        """Layers, x_shape [N, F] and incident energies [N] GeV -> voxel energies [N, V] GeV, and what was cut.

        See `VoxelLayers.from_shares`; of logits, shares below the noise are 0; always what is below `faint_gev` [L].
        Logits are inverted exactly; marginals have no shares beyond those they were fitted to (`CellMarginals`).
        """
        x_energy = layers.x_energy
        if self.marginals is not None:
            assert layers.filled is not None
            within = self.marginals.inverse(x_shape, layers.filled, self._layers(self.u(x_energy), incident))
            return self.decode_shares(x_energy, within, incident, threshold_gev, faint_gev=faint_gev)
        within, least = self.logit.inverse(self.shape.inverse(x_shape)), self.constants.noise
        return self.decode_shares(x_energy, within, incident, threshold_gev, least_share=least, faint_gev=faint_gev)

    def decode_shares(
        self,
        x_energy: Tensor,
        within: Tensor,
        incident: NDArray[Any],
        threshold_gev: float | Sequence[float] | Tensor = 0.0,
        *,
        least_share: float = 0.0,
        faint_gev: Tensor | None = None,
    ) -> tuple[Tensor, Cut]:
        """`decode` for shares [N, V] of any sum, for instance those of an autoencoder."""
        given, u = self._incident(incident), self.u(x_energy)
        shares = Shares(u, within)
        if faint_gev is not None and bool((faint_gev > 0).any()):
            layers = self.layers.layer_energies(u, given)
            whole = self.layers.sum(within.clamp(min=0))  # shares of a flow need not add up to one
            faint = torch.where(layers > 0, whole * faint_gev / torch.where(layers > 0, layers, 1.0), 0.0)
            return self.layers.from_shares(shares, given, threshold_gev, least_share=faint.clamp(min=least_share))
        return self.layers.from_shares(shares, given, threshold_gev, least_share=least_share)

    def shares(self, energy: NDArray[Any], incident: NDArray[Any]) -> Shares:
        """Ratios [N, L] and shares [N, V] of showers, without noise."""
        device = self.energy.shift.device
        return self.layers.to_shares(torch.as_tensor(energy).to(device), self._incident(incident))

    def u(self, x_energy: Tensor) -> Tensor:
        """x_energy [N, L] -> the ratios u [N, L], double precision: u_0 in [0, f], the others in [0, 1].

        The inverse of eq. 3 reaches beyond by alpha: there, and within round-off of it, u is 0 or 1. So a shower that
        ended early ends there again.
        """
        shift, scale = self.energy.shift.double(), self.energy.scale.double()
        u: Tensor = self.logit.inverse(finite(x_energy, "energy targets").double() * scale + shift)
        end = ROUND_OFF * self.constants.alpha
        u = torch.where(u <= end, 0.0, torch.where(u >= 1 - end, 1.0, u))
        return torch.cat([u[:, :1] * self.constants.factor, u[:, 1:]], dim=1)

    def scaled_incident(self, incident: NDArray[Any]) -> Tensor:
        """Incident energies [N] GeV -> x_inc [N, 1], the condition of the energy network."""
        low, high = self.constants.incident_gev
        return ((self._incident(incident) / low).log() / math.log(high / low)).float()[:, None]

    def condition(self, x_energy: Tensor, incident: NDArray[Any]) -> Tensor:
        """What the shape network is given of the energies [N, 1 + L], from drawn x_energy [N, L]."""
        return self._condition(self.scaled_incident(incident), self.u(x_energy), x_energy)

    def condition_of_shares(self, u: Tensor, incident: NDArray[Any]) -> Tensor:
        """Condition of the autoencoder and of the network of its latent numbers [N, 1 + L]: x_inc and u as it is."""
        return torch.cat([self.scaled_incident(incident), u.float()], dim=1)

    def _condition(self, x_inc: Tensor, u: Tensor, x_energy: Tensor) -> Tensor:
        return torch.cat([x_inc, self.total(u[:, :1].float()), x_energy[:, 1:]], dim=1)

    def energy_logit(self, u: Tensor) -> Tensor:
        """Logits of the ratios u [N, L], before they are standardised.

        Raises:
            ValueError: u_0 above `factor`.
        """
        most, factor = float(u[:, 0].max()) if len(u) else 0.0, self.constants.factor
        if most > factor:
            raise ValueError(f"a shower has {most:.3f} of its incident energy; choose a factor above {factor:.3f}")
        out: Tensor = self.logit(torch.cat([u[:, :1] / factor, u[:, 1:]], dim=1))
        return out

    def _shape_logit(self, shares: Shares, rng: np.random.Generator) -> Tensor:
        """Noise is added as published, but no share exceeds 1: a layer of one voxel has no logit else."""
        within = shares.within
        drawn = torch.from_numpy(rng.random(within.shape, dtype=np.float32)).to(within)
        out: Tensor = self.logit((within + self.constants.noise * drawn).clamp(max=1.0))
        return out

    def _incident(self, incident: NDArray[Any]) -> Tensor:
        given = torch.from_numpy(np.asarray(incident, dtype=np.float64)).flatten()
        if len(given) and not bool((given > 0).all()):
            raise ValueError(f"incident energies must be positive, the least is {float(given.min()):g} GeV")
        return given.to(self.energy.shift.device)
