"""Layer profiles of photon showers as targets of a flow: points and energy per layer, the shower as a whole."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.data.showers import Showers
from calogen.gaussianize import ConditionalStandardize, GaussianQuantiles, Whitening


@dataclass(frozen=True)
class LayerProfile:
    """Of N showers: points `counts [N, L]`, energy `[N, L]` GeV, centre of gravity `cog [N, 3]` (x, y mm, z layers)."""

    counts: NDArray[Any]
    energy: NDArray[Any]
    cog: NDArray[Any]

    @classmethod
    def of(cls, upright: Showers) -> LayerProfile:
        """The profile of upright showers; centres of gravity are weighted with energy."""
        index, energy = upright.shower_index, upright.energy.astype(np.float64)
        total = np.maximum(upright.visible_energy, np.finfo(np.float64).tiny)
        cog = [
            np.bincount(index, weights=energy * value, minlength=len(upright)) / total
            for value in (upright.x, upright.y, upright.layer + 0.5)
        ]
        return cls(upright.counts_per_layer, upright.energy_per_layer, np.stack(cog, axis=1))


class ProfileTargets(nn.Module):
    """Layer profiles as the vectors x [N, dim] a flow learns, and back."""

    dim: int
    layers: int
    given: int = 0  # how many numbers, at the front of x, are of the shower as a whole and condition the others

    @abstractmethod
    def fit(self, profile: LayerProfile, condition: Tensor) -> None:
        """Take the scales from training showers; condition [N, C] as the flow sees it."""

    @abstractmethod
    def encode(self, profile: LayerProfile, condition: Tensor, rng: np.random.Generator) -> Tensor:
        """Profile of N showers -> x [N, dim]; `rng` spreads whole numbers and fills what does not exist."""

    @abstractmethod
    def decode(self, x: Tensor, condition: Tensor) -> LayerProfile:
        """x [N, dim] -> profile, with counts still fractional and nothing clipped."""


LINEAR_COLUMNS = ("points", "energy", "cog_x", "cog_y", "cog_z")


class LinearTargets(ProfileTargets):
    """(value - shift) / scale of counts and energies, as CaloClouds 2 and 3 use.

    Args:
        layers: L.
        columns: what stands before the 2 L counts and energies, out of `LINEAR_COLUMNS`. With the totals
            `points` and `energy` present, the layers give only the shares of those (CaloClouds2).
        constants: (shift [dim], scale [dim]) as published, instead of fitted.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, layers: int, columns: tuple[str, ...], constants: tuple[list[float], list[float]] | None = None
    ) -> None:
        super().__init__()
        self.layers, self.columns = layers, columns
        self.dim = len(columns) + 2 * layers
        shift, scale = constants or ([0.0] * self.dim, [1.0] * self.dim)
        self.fixed = constants is not None
        self.register_buffer("shift", torch.tensor(shift))
        self.register_buffer("scale", torch.tensor(scale))

    def _values(self, profile: LayerProfile) -> Tensor:
        totals = {"points": profile.counts.sum(1), "energy": profile.energy.sum(1)}
        totals |= {f"cog_{axis}": profile.cog[:, i] for i, axis in enumerate("xyz")}
        values = [totals[name][:, None] for name in self.columns] + [profile.counts, profile.energy]
        return torch.from_numpy(np.concatenate(values, axis=1)).float()

    def fit(self, profile: LayerProfile, condition: Tensor) -> None:
        """Centre of gravity by mean and standard deviation; counts and energies by the largest seen in any layer."""
        if self.fixed:
            return
        values = self._values(profile)
        shift, scale = torch.zeros(self.dim), values.abs().amax(0)
        for i, name in enumerate(self.columns):
            if name.startswith("cog"):
                shift[i], scale[i] = values[:, i].mean(), values[:, i].std()
        self.shift.copy_(shift)
        self.scale.copy_(scale.clamp(min=1e-6))

    def encode(self, profile: LayerProfile, condition: Tensor, rng: np.random.Generator) -> Tensor:
        """See `ProfileTargets`; counts are spread evenly about the whole number."""
        counts = profile.counts + rng.random(profile.counts.shape) - 0.5
        return (self._values(LayerProfile(counts, profile.energy, profile.cog)) - self.shift) / self.scale

    def decode(self, x: Tensor, condition: Tensor) -> LayerProfile:
        """See `ProfileTargets`."""
        values = (x * self.scale + self.shift).double().cpu().numpy()
        first = len(self.columns)
        named = {name: values[:, i] for i, name in enumerate(self.columns)}
        counts, energy = values[:, first : first + self.layers], values[:, first + self.layers :]
        if "points" in named:
            counts = _shares(counts) * named["points"][:, None]
        if "energy" in named:
            energy = _shares(energy) * named["energy"][:, None]
        nothing = np.zeros(len(values))
        cog = np.stack([named.get(f"cog_{axis}", nothing) for axis in "xyz"], axis=1)
        return LayerProfile(counts, energy, cog)


def _shares(values: NDArray[Any]) -> NDArray[Any]:
    total = values.sum(1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


class FittedTargets(ProfileTargets):
    """The shower as a whole, then ln(1 + n_l) and ln(E_l / n_l) given that: standardised, made normal, whitened.

    The whole is the centre of gravity, ln of all points and ln of the visible energy. A photon that converts late moves
    its shower: all layers follow the depth of the centre of gravity, far from linearly. Layers are therefore
    standardised given the condition and the whole; what is left of them is nearly normal, and they are scaled to the
    visible energy that was drawn. All of it is fitted. Counts are spread over [n, n + 1); the energy per point
    of a layer without points, which does not exist, is drawn from N(0, 1). Energies come out positive and zero exactly
    where there are no points.

    Args:
        layers: L.
        condition: C, length of the flow's condition.
    """

    def __init__(self, layers: int, condition: int) -> None:
        super().__init__()
        self.layers = layers
        self.given = WHOLE
        self.dim = WHOLE + 2 * layers
        features = len(_monomials(condition))
        self.whole_standardize = ConditionalStandardize(WHOLE, features)
        self.whole_quantiles = GaussianQuantiles(WHOLE)
        self.standardize = ConditionalStandardize(2 * layers, features + WHOLE_FEATURES)
        self.quantiles = GaussianQuantiles(2 * layers)
        self.whitening = Whitening(self.dim, WHITENING_KNOTS)

    @staticmethod
    def _features(condition: Tensor) -> Tensor:
        """The monomials of the condition, `[N, F]`."""
        one = torch.ones_like(condition[:, :1])
        return torch.cat([condition, one], dim=1)[:, _factors(condition.shape[1])].prod(dim=2)

    def _layer_features(self, condition: Tensor, whole: Tensor) -> Tensor:
        """What layers are standardised on: the condition, and depth, points and energy out of the normal whole."""
        d, points, energy = whole[:, 2:].clamp(-WHOLE_RANGE, WHOLE_RANGE).split(1, dim=1)
        bends = (d - d.new_tensor(DEPTH_BENDS)).relu()
        main = condition[:, [0, -1]]
        by_depth = [d, bends, d * main, bends[:, -2:-1] * main]
        return torch.cat([self._features(condition), *by_depth, points, energy, points * main, points * d], dim=1)

    def _values(self, profile: LayerProfile, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The whole [N, 5], layer values [N, 2 L], and which of these exist."""
        counts, energy = profile.counts, profile.energy
        spread = counts + rng.random(counts.shape)
        per_point = np.log(np.maximum(energy, LEAST_ENERGY_GEV) / np.maximum(counts, 1))
        layers = np.concatenate([np.log1p(spread), per_point], axis=1)
        present = np.concatenate([np.ones(counts.shape, bool), counts > 0], axis=1)
        total = np.stack([spread.sum(1), np.maximum(energy.sum(1), LEAST_ENERGY_GEV)], axis=1)
        whole = np.concatenate([profile.cog, np.log(total)], axis=1)
        return torch.from_numpy(whole).float(), torch.from_numpy(layers).float(), torch.from_numpy(present)

    def fit(self, profile: LayerProfile, condition: Tensor) -> None:
        """See `ProfileTargets`."""
        rng = np.random.default_rng(FIT_SEED)
        features = self._features(condition)
        total, values, present = self._values(profile, rng)
        self.whole_standardize.fit(total, features, torch.ones(total.shape, dtype=torch.bool))
        self.whole_quantiles.fit(self.whole_standardize(total, features))
        total = self.whole_quantiles(self.whole_standardize(total, features))
        features = self._layer_features(condition, total)
        self.standardize.fit(values, features, present)
        z = _fill(self.standardize(values, features), present, rng)
        self.quantiles.fit(z)
        self.whitening.fit(torch.cat([total, self.quantiles(z)], dim=1), condition[:, -1])

    def encode(self, profile: LayerProfile, condition: Tensor, rng: np.random.Generator) -> Tensor:
        """See `ProfileTargets`."""
        total, values, present = self._values(profile, rng)
        total = self.whole_quantiles(self.whole_standardize(total, self._features(condition)))
        z = self.standardize(values, self._layer_features(condition, total))
        z = torch.cat([total, self.quantiles(_fill(z, present, rng))], dim=1)
        return self.whitening(z, condition[:, -1])

    def decode(self, x: Tensor, condition: Tensor) -> LayerProfile:
        """See `ProfileTargets`; counts come out whole."""
        total, z = self.whitening.inverse(x, condition[:, -1]).tensor_split([WHOLE], dim=1)
        values = self.standardize.inverse(self.quantiles.inverse(z), self._layer_features(condition, total))
        drawn = self.whole_standardize.inverse(self.whole_quantiles.inverse(total), self._features(condition))
        whole, layers = drawn.double().cpu().numpy(), values.double().cpu().numpy()
        points, visible = np.exp(np.clip(whole[:, 3:], -MAX_LOG, MAX_LOG)).T
        spread = np.expm1(np.clip(layers[:, : self.layers], 0.0, MAX_LOG))
        counts = np.floor(spread * (points / np.maximum(spread.sum(1), 1.0))[:, None])
        energy = counts * np.exp(np.clip(layers[:, self.layers :], -MAX_LOG, MAX_LOG))
        scale = visible / np.maximum(energy.sum(1), LEAST_ENERGY_GEV)
        return LayerProfile(counts, energy * scale[:, None], whole[:, :3])


WHOLE = 5
"""Numbers of the shower as a whole: centre of gravity x, y, z, ln of its points, ln of its visible energy."""
DEPTH_BENDS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Where the layers' response to the depth bends, in standard deviations: straight beyond, unlike powers."""
WHOLE_FEATURES = 1 + len(DEPTH_BENDS) + 2 + 2 + 5
WHOLE_RANGE = 3.5
"""Standard deviations beyond which the layers follow the whole no further."""


def _monomials(condition: int) -> list[tuple[int, ...]]:
    """Products of conditions by their indices: all of energy (first) and depth cosine (last) up to fourth order,
    since the length of a shower in layers goes with both together; the other directions up to second.
    """
    main = (0,) if condition == 1 else (0, condition - 1)
    powers = [m for k in range(PROFILE_ORDER + 1) for m in combinations_with_replacement(main, k)]
    others = range(1, condition - 1)
    return powers + [(i,) for i in others] + [(i, i) for i in others] + [(0, i) for i in others]


PROFILE_ORDER = 4
WHITENING_KNOTS = 3
"""Depth cosines (energies, where there are no directions) about which correlations of layers are fitted."""


@cache
def _factors(condition: int) -> Tensor:
    """The monomials as indices `[F, PROFILE_ORDER]` into the condition with a one behind it."""
    rows = [list(m) + [condition] * (PROFILE_ORDER - len(m)) for m in _monomials(condition)]
    return torch.tensor(rows)


def _fill(z: Tensor, present: Tensor, rng: np.random.Generator) -> Tensor:
    return torch.where(present, z, torch.from_numpy(rng.standard_normal(z.shape)).float())


LEAST_ENERGY_GEV = 1e-12
"""Keeps the logarithm of an empty layer's energy finite; such values are never used."""
MAX_LOG = 30.0
"""Keeps exponentials finite; whatever comes near it is refused by `Limits`."""
FIT_SEED = 0
