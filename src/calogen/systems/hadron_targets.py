"""Layer profiles of showers of any kind as targets of flow matching: sections as a whole, then their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calogen.detector.geometry import Detector
from calogen.gaussianize import ConditionalStandardize, GaussianQuantiles
from calogen.systems.profile_targets import FIT_SEED, LEAST_ENERGY_GEV, MAX_LOG, LayerProfile, ProfileTargets

COG = 3
"""Numbers of the centre of gravity: x, y mm, z layers."""


class SectionTargets(ProfileTargets):
    """The shower: ln E, ln(1 + n) and ln of the energy over the first's per section, cog; layers: ln(1 + n), ln(E / n).

    Hadrons start anywhere: nothing here is assumed normal jointly. Each number is standardised given the
    particle and mapped to N(0, 1) by its quantiles, so that its own distribution is right from the start and a
    flow learns how they hang together; showers that are wholly electromagnetic have maps of their own. Counts are
    spread over [n, n + 1); what does not exist (the energy of a layer or section without points) is drawn from N(0, 1)
    and never read. Counts of layers are brought to the section's sum, and energies too.

    Args:
        detector: its layers and sections.
        condition: C, length of the condition.
        electromagnetic: columns of the condition of which one is set for electrons, positrons and photons.
    """

    def __init__(self, detector: Detector, condition: int, electromagnetic: Sequence[int] = ()) -> None:
        super().__init__()
        self.layers = detector.n_layers
        self.sections = [detector.layers_of(name) for name in detector.sections]
        n = len(self.sections)
        self.given = 2 * n + COG
        self.dim = self.given + 2 * self.layers
        self.electromagnetic = list(electromagnetic)
        # What matters most comes first and follows nothing but the particle; the layers follow all the rest.
        links = [1, n, n - 1 + COG, 2 * self.layers]
        self.maps = nn.ModuleList(NormalMaps(links, condition) for _ in range(1 + bool(self.electromagnetic)))

    def _groups(self, condition: Tensor) -> list[tuple[NormalMaps, Tensor]]:
        """The maps, and the rows of the condition [N, C] they are for."""
        first, *others = (part for part in self.maps if isinstance(part, NormalMaps))
        if not others:
            return [(first, torch.arange(len(condition), device=condition.device))]
        light = (condition[:, self.electromagnetic] > 0).any(1)
        return [(first, (~light).nonzero()[:, 0]), (others[0], light.nonzero()[:, 0])]

    def _whole(self, profile: LayerProfile, spread: NDArray[Any]) -> Values:
        """Numbers of the shower as a whole [N, given]."""
        points = np.stack([spread[:, s].sum(1) for s in self.sections], axis=1)
        lit = np.stack([profile.counts[:, s].sum(1) for s in self.sections], axis=1) > 0
        energy = np.stack([profile.energy[:, s].sum(1) for s in self.sections], axis=1)
        log_energy = np.log(np.maximum(energy, LEAST_ENERGY_GEV))
        total = np.log(np.maximum(energy.sum(1, keepdims=True), LEAST_ENERGY_GEV))
        numbers = [total, np.log1p(points), log_energy[:, 1:] - log_energy[:, :1], profile.cog]
        exist = [lit.any(1, keepdims=True), np.ones_like(lit), lit[:, 1:] & lit[:, :1], np.ones((len(lit), COG), bool)]
        return Values(torch.from_numpy(np.concatenate(numbers, 1)).float(), torch.from_numpy(np.concatenate(exist, 1)))

    def _layer_values(self, profile: LayerProfile, spread: NDArray[Any]) -> Values:
        """ln(1 + n) and ln(E / n) of each layer [N, 2 L]."""
        values = np.concatenate([np.log1p(spread), _per_point(profile.energy, profile.counts)], axis=1)
        exists = np.concatenate([np.ones(spread.shape, bool), profile.counts > 0], axis=1)
        return Values(torch.from_numpy(values).float(), torch.from_numpy(exists))

    def _values(self, profile: LayerProfile, rng: np.random.Generator) -> Values:
        spread = profile.counts + rng.random(profile.counts.shape)
        parts = self._whole(profile, spread), self._layer_values(profile, spread)
        return Values(*(torch.cat(both, dim=1) for both in zip(*parts, strict=True)))

    def fit(self, profile: LayerProfile, condition: Tensor) -> None:
        """See `ProfileTargets`."""
        rng = np.random.default_rng(FIT_SEED)
        values = self._values(profile, rng)
        for maps, rows in self._groups(condition):
            if len(rows) >= LEAST_SHOWERS:
                maps.fit(values.rows(rows), condition[rows], rng)

    def encode(self, profile: LayerProfile, condition: Tensor, rng: np.random.Generator) -> Tensor:
        """See `ProfileTargets`."""
        values = self._values(profile, rng)
        x = condition.new_empty(len(condition), self.dim)
        for maps, rows in self._groups(condition):
            x[rows] = maps(values.rows(rows), condition[rows], rng)
        return x

    def decode(self, x: Tensor, condition: Tensor) -> LayerProfile:
        """See `ProfileTargets`; counts come out whole."""
        values = torch.empty_like(x)
        for maps, rows in self._groups(condition):
            values[rows] = maps.inverse(x[rows], condition[rows])
        drawn, layers = (t.double().cpu().numpy() for t in values.tensor_split([self.given], dim=1))
        n = len(self.sections)
        total = np.exp(np.clip(drawn[:, 0], -MAX_LOG, MAX_LOG))
        points = np.expm1(np.clip(drawn[:, 1 : 1 + n], 0.0, MAX_LOG))
        ratios = np.exp(np.clip(drawn[:, 1 + n : 2 * n], -MAX_LOG, MAX_LOG))
        counts = np.expm1(np.clip(layers[:, : self.layers], 0.0, MAX_LOG))
        energy = np.exp(np.clip(layers[:, self.layers :], -MAX_LOG, MAX_LOG))
        for k, section in enumerate(self.sections):
            counts[:, section] = np.floor(brought_to(counts[:, section], points[:, k]))
        lit = np.stack([counts[:, s].sum(1) > 0 for s in self.sections], axis=1)
        shares = np.concatenate([np.ones((len(drawn), 1)), ratios], axis=1) * lit
        shares /= np.maximum(shares.sum(1, keepdims=True), LEAST_ENERGY_GEV)
        for k, section in enumerate(self.sections):
            energy[:, section] = brought_to(energy[:, section] * counts[:, section], shares[:, k] * total)
        return LayerProfile(counts, energy, drawn[:, 2 * n :])


LEAST_SHOWERS = 12
"""With fewer of a group its maps stay as they are."""


class Values(NamedTuple):
    """Numbers [N, D] of N showers, and which of them exist."""

    numbers: Tensor
    exist: Tensor

    def rows(self, which: Tensor) -> Values:
        """Those of some of the showers."""
        return Values(self.numbers[which], self.exist[which])


class NormalMaps(nn.Module):
    """Numbers in links of a chain, each to N(0, 1) given the condition and the links before it, and back.

    Args:
        sizes: numbers of each link.
        condition: C.
    """

    def __init__(self, sizes: Sequence[int], condition: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        known = [condition + sum(self.sizes[:k]) for k in range(len(self.sizes))]
        self.standardize = nn.ModuleList(
            ConditionalStandardize(size, _features(c), ROWS_PER_FEATURE)
            for size, c in zip(self.sizes, known, strict=True)
        )
        self.quantiles = nn.ModuleList(GaussianQuantiles(size) for size in self.sizes)

    def fit(self, values: Values, condition: Tensor, rng: np.random.Generator) -> None:
        """Values of N showers and their conditions [N, C]."""
        self._forward(values, condition, rng, fit=True)

    def forward(self, values: Values, condition: Tensor, rng: np.random.Generator) -> Tensor:
        """Values of N showers, conditions [N, C] -> z [N, D], kept within `FARTHEST_Z`."""
        return self._forward(values, condition, rng, fit=False)

    def _forward(self, values: Values, condition: Tensor, rng: np.random.Generator, *, fit: bool) -> Tensor:
        known = condition
        links = zip(values.numbers.split(self.sizes, 1), values.exist.split(self.sizes, 1), strict=True)
        for (numbers, exist), (standardize, quantiles) in zip(links, self._links(), strict=True):
            features = _expand(known)
            if fit:
                standardize.fit(numbers, features, exist)
            z = _fill(standardize(numbers, features), exist, rng)
            if fit:
                quantiles.fit(z)
            known = torch.cat([known, _kept(quantiles(z))], dim=1)
        return known[:, condition.shape[1] :]

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """z [N, D] -> numbers."""
        known, values = condition, []
        for own, (standardize, quantiles) in zip(_kept(z).split(self.sizes, 1), self._links(), strict=True):
            values.append(standardize.inverse(quantiles.inverse(own), _expand(known)))
            known = torch.cat([known, own], dim=1)
        return torch.cat(values, dim=1)

    def _links(self) -> list[tuple[ConditionalStandardize, GaussianQuantiles]]:
        return list(zip(self.standardize, self.quantiles, strict=True))  # type: ignore[arg-type]


ROWS_PER_FEATURE = 5
"""Values that each feature needs to be fitted: many layers are reached by a handful of showers."""


def _kept(z: Tensor) -> Tensor:
    return z.clamp(-FARTHEST_Z, FARTHEST_Z)


FARTHEST_Z = 4.5
"""Standard deviations: 7e-6 of a normal distribution lie beyond. A layer that next to no training shower reaches has
no scale, and what another shower leaves there must not outweigh all else."""


def brought_to(values: NDArray[Any], total: NDArray[Any]) -> NDArray[np.float64]:
    """Non-negative values [N, L] changed so that their sums are `total` [N]: the largest most, the small hardly.

        v_l exp(a v_l / max v),   a such that the sum is right

    A common factor would move the one point of a track, or its energy, as much as the core of a shower.
    """
    largest = values.max(1, keepdims=True)
    share = np.divide(values, largest, out=np.zeros(values.shape), where=largest > 0)
    wanted = np.divide(total, largest[:, 0], out=np.zeros(len(values)), where=largest[:, 0] > 0)
    a = np.zeros((len(values), 1))
    for _ in range(NEWTON_STEPS):
        raised = share * np.exp(a * share)
        step = (wanted - raised.sum(1)) / np.maximum((share * raised).sum(1), LEAST_SLOPE)
        a = np.clip(a + np.clip(step, -1.0, 1.0)[:, None], -LARGEST_EXPONENT, LARGEST_EXPONENT)
    raised = share * np.exp(a * share)
    left = np.divide(wanted, raised.sum(1), out=np.zeros(len(values)), where=raised.sum(1) > 0)
    return largest * raised * left[:, None]


NEWTON_STEPS = 12
LEAST_SLOPE = 1e-12
LARGEST_EXPONENT = 8.0
"""A sum that is off by more than e^8 is brought there by a common factor."""


def _per_point(energy: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.log(np.maximum(energy, LEAST_ENERGY_GEV) / np.maximum(counts, 1))
    return out


def _fill(z: Tensor, exists: Tensor, rng: np.random.Generator) -> Tensor:
    return torch.where(exists, z, torch.from_numpy(rng.standard_normal(z.shape)).float())


def _features(condition: int) -> int:
    return 1 + 2 * condition + MAIN_PRODUCTS * (condition - 1)


MAIN_PRODUCTS = 1
"""The first number of a condition, the energy, is multiplied with all others."""
FARTHEST = 3.5
"""Standard deviations beyond which the linear part follows its condition no further."""


def _expand(condition: Tensor) -> Tensor:
    """[N, C] -> 1, c, c², c_0 c: what means and spreads are linear in."""
    c = condition.clamp(-FARTHEST, FARTHEST)
    return torch.cat([torch.ones_like(c[:, :1]), c, c**2, c[:, :1] * c[:, 1:]], dim=1)


class LogCounts(ProfileTargets):
    """ln(n + offset) of each layer, scaled: the targets of PointCountFM. Points alone; energies come from the points.

    Args:
        layers: L.
        offset: AllShowers 0.5; CaloHadronic 1e-20, which puts empty layers at a spike far from all others.
        scale: constant to divide by, as published with CaloHadronic; None standardises each layer on the
            training showers (AllShowers).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, layers: int, offset: float, scale: float | None = None) -> None:
        super().__init__()
        self.layers = self.dim = layers
        self.offset, self.fixed = offset, scale is not None
        self.register_buffer("shift", torch.zeros(layers))
        self.register_buffer("scale", torch.full((layers,), scale or 1.0))

    def _log(self, counts: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.log(counts + self.offset)).float()

    def fit(self, profile: LayerProfile, condition: Tensor) -> None:
        """Mean and standard deviation of each layer, unless the scale is a constant."""
        if self.fixed:
            return
        values = self._log(profile.counts)
        self.shift.copy_(values.mean(0))
        self.scale.copy_(values.std(0).clamp(min=LEAST_SCALE))

    def encode(self, profile: LayerProfile, condition: Tensor, rng: np.random.Generator) -> Tensor:
        """See `ProfileTargets`; as published, whole numbers stay whole."""
        return (self._log(profile.counts) - self.shift) / self.scale

    def decode(self, x: Tensor, condition: Tensor) -> LayerProfile:
        """See `ProfileTargets`; to the nearest whole number (CaloHadronic's code truncates), energies zero."""
        values = (x * self.scale + self.shift).double().cpu().numpy()
        counts = np.floor(np.maximum(np.exp(np.clip(values, -MAX_LOG, MAX_LOG)) - self.offset, 0.0) + 0.5)
        return LayerProfile(counts, np.zeros_like(counts), np.zeros((len(counts), COG)))


LEAST_SCALE = 1e-3
