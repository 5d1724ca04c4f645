"""Voxels as energy ratios of the layers and shares within each layer, and back so that no energy is lost.

CaloDREAM (arXiv:2405.09629): of the layer energies E_l of a shower of an incident energy E_inc

    u_0 = Σ_l E_l / E_inc,   u_i = E_{i-1} / Σ_{j >= i-1} E_j  for 0 < i < L,

and of each voxel its share of its layer. What is empty has ratio and shares 0, also behind the end of a shower, where
the ratio would be 0 / 0: the ratio 1 of the last layer with energy leaves nothing, whatever stands behind it.

On the way back voxels below a threshold must go. The authors set them to zero and lose their energy. Here as many
voxels are kept as can be, the brightest first, so that all of them reach the threshold once they are scaled to the
energy of the layer: see `brightest`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from calogen.transforms import LayerFractions, finite


class Shares(NamedTuple):
    """Of N showers the ratios `u` [N, L] in double precision, and the shares `within` [N, V] of voxels in layers."""

    u: Tensor
    within: Tensor


class Cut(NamedTuple):
    """What a threshold did to N showers; their total energies stay what they were.

    `voxels` that were above zero and are not now; `layers` that had energy, but less than their threshold, and
    are empty now; `moved_gev`, the energy that went from those layers to the others of their showers; `faint` showers
    with less energy than any threshold: all of it is in one voxel, below the threshold.
    """

    voxels: int
    layers: int
    moved_gev: float
    faint: int

    def plus(self, other: Cut) -> Cut:
        """Both together."""
        return Cut(
            self.voxels + other.voxels,
            self.layers + other.layers,
            self.moved_gev + other.moved_gev,
            self.faint + other.faint,
        )


class VoxelLayers:
    """Where the layers are among V voxels; layers may differ in their number of voxels.

    Args:
        cells_per_layer: voxels of each layer, in order.

    Raises:
        ValueError: if there is no layer, or one without voxels.
    """

    def __init__(self, cells_per_layer: Sequence[int]) -> None:
        sizes = [int(n) for n in cells_per_layer]
        if not sizes or min(sizes) < 1:
            raise ValueError(f"every layer needs voxels, and a detector a layer, got {sizes}")
        self.n_layers, self.n_voxels = len(sizes), sum(sizes)
        self.runs = [(len(list(run)), n) for n, run in itertools.groupby(sizes)]

    def split(self, x: Tensor) -> list[Tensor]:
        """x [N, V] as views [N, layers, voxels], one for each run of layers of the same size."""
        if x.ndim != 2 or x.shape[1] != self.n_voxels:
            raise ValueError(f"showers of this detector are [N, {self.n_voxels}] voxels, not {list(x.shape)}")
        parts = x.split([layers * n for layers, n in self.runs], dim=1)
        return [part.unflatten(1, run) for part, run in zip(parts, self.runs, strict=True)]

    def per_run(self, y: Tensor) -> list[Tensor]:
        """Numbers y [N, L] of layers as [N, layers, 1] beside `split`."""
        return list(y[..., None].split([layers for layers, _ in self.runs], dim=1))

    def sum(self, x: Tensor) -> Tensor:
        """x [N, V] -> sums of the layers [N, L], in double precision."""
        return torch.cat([part.sum(-1, dtype=torch.float64) for part in self.split(x)], dim=1)

    def to_shares(self, energy: Tensor, incident: Tensor) -> Shares:
        """Voxel energies [N, V] and incident energies [N], both GeV.

        Raises:
            ValueError: NaN, infinite or negative energies, incident energies that are not positive.
        """
        _check_incident(incident, len(energy))
        if energy.numel() and not energy.min() >= 0:
            raise ValueError(f"voxel energies must be 0 or more GeV, the least is {float(energy.min()):g}")
        layers = self.sum(energy)
        fractions: Tensor = LayerFractions()(layers)
        u = torch.cat([fractions[:, :1] / incident.double()[:, None], fractions[:, 1:]], dim=1)
        each = [
            part / torch.where(total > 0, total, 1.0).to(part.dtype)
            for part, total in zip(self.split(energy), self.per_run(layers), strict=True)
        ]
        return Shares(u, torch.cat([part.flatten(1) for part in each], dim=1))

    def layer_energies(self, u: Tensor, incident: Tensor) -> Tensor:
        """Ratios u [N, L], incident energies [N] GeV -> energy of each layer [N, L] GeV, in double precision.

        The last layer gets what is left, so that the sum is u_0 E_inc whatever the other ratios.

        Raises:
            ValueError: u_0 < 0, another ratio outside of [0, 1], NaN, incident energies that are not positive.
        """
        _check_incident(incident, len(u))
        if u.ndim != 2 or u.shape[1] != self.n_layers:
            raise ValueError(f"showers of this detector have ratios [N, {self.n_layers}], not {list(u.shape)}")
        u = u.double()
        out: Tensor = LayerFractions().inverse(torch.cat([u[:, :1] * incident.double()[:, None], u[:, 1:]], dim=1))
        return out

    def from_shares(
        self,
        shares: Shares,
        incident: Tensor,
        threshold_gev: float | Sequence[float] | Tensor = 0.0,
        *,
        least_share: float | Tensor = 0.0,
    ) -> tuple[Tensor, Cut]:
        """The inverse of `to_shares`, for any shares: each layer is scaled to its energy.

        Layers that have less than their threshold give their energy to the others of the shower, in proportion; then
        in each layer the voxels that cannot reach the threshold give theirs to the others. A layer with energy whose
        shares are all 0 (or less) has it in the voxel with the largest share.

        Args:
            shares: u [N, L], see `layer_energies`; shares [N, V] of any sum, negative ones count as 0.
            incident: incident energies [N] GeV.
            threshold_gev: least energy of a voxel, for all layers or of each [L]; 0 keeps everything.
            least_share: smaller shares are 0 (the noise that was added for training); one, or each layer's [N, L].

        Returns:
            Energies [N, V] GeV in the precision of the shares, each 0 or at least the threshold (but for a shower that
            is fainter than that as a whole, see `Cut`), and what was cut.
        """
        threshold = torch.as_tensor(threshold_gev, dtype=torch.float64, device=shares.u.device).expand(self.n_layers)
        finite(shares.within, "shares")
        given = self.layer_energies(shares.u, incident)
        total = given.sum(1)
        layers = brightest(given, total, threshold.expand_as(given))
        energy, voxels = [], 0
        faintest = torch.as_tensor(least_share, device=layers.device).clamp(min=0.0).expand_as(layers)
        for part, own, least, faint in zip(
            self.split(shares.within),
            self.per_run(layers),
            self.per_run(threshold[None]),
            self.per_run(faintest.to(shares.within.dtype)),
            strict=True,
        ):
            whole = _not_empty(torch.where(part >= faint, part, 0.0), part).double()
            kept = brightest(whole, own[..., 0], least.expand_as(own))
            voxels += int(((kept == 0) & (whole > 0) & (own > 0)).sum())
            energy.append(kept.to(part.dtype).flatten(1))
        emptied = (layers == 0) & (given > 0)
        faint = ((layers > 0) & (layers < threshold * (1 - ROUNDING))).any(1)
        moved = float(given[emptied].sum())
        return torch.cat(energy, dim=1), Cut(voxels, int(emptied.sum()), moved, int(faint.sum()))


def brightest(values: Tensor, total: Tensor, threshold: Tensor) -> Tensor:
    """As many of the values [..., K] >= 0 as reach their threshold when they are scaled to the sum `total` [...].

    The brightest are kept, measured by the threshold, the others set to zero: of values v_1 / T_1 >= v_2 / T_2 >= ...
    the first k, with the largest k for which  v_k · total / (v_1 + ... + v_k) >= T_k. If not even the
    first reaches its threshold, it has the total nevertheless. So the sum is `total` always, and values that
    are all zero or above the threshold already stay as they are.

    Args:
        values: not all zero where the total is not.
        total: what each row is scaled to.
        threshold: T [..., K], or [..., 1] for all the same.

    >>> brightest(torch.tensor([6.0, 2.0, 1.9, 0.1]), torch.tensor(10.0), torch.tensor([2.0]))
    tensor([7.5000, 2.5000, 0.0000, 0.0000])
    """
    order = (values if threshold.shape[-1] == 1 else values / threshold.clamp(min=LEAST_THRESHOLD_GEV)).argsort(
        dim=-1, descending=True
    )
    ordered = values.gather(-1, order)
    sums = ordered.cumsum(-1)
    scale = total[..., None] / torch.where(sums > 0, sums, 1.0)
    least = threshold if threshold.shape[-1] == 1 else threshold.gather(-1, order)
    place = torch.arange(values.shape[-1], device=values.device)
    reached = (ordered > 0) & (ordered * scale >= least * (1 - ROUNDING))
    last = torch.where(reached, place, 0).amax(-1, keepdim=True)
    kept = torch.where(place <= last, ordered * scale.gather(-1, last), 0.0)
    return torch.zeros_like(kept).scatter(-1, order, kept)


ROUNDING = 1e-9
"""A value this close to its threshold, relatively, has reached it; less than single precision resolves."""
LEAST_THRESHOLD_GEV = 1e-30
"""Stands for a threshold of 0 where brightness is measured by it."""


def _not_empty(whole: Tensor, raw: Tensor) -> Tensor:
    """Shares [..., K]; where a layer has none, the voxel with the largest of the raw ones has all."""
    alone = nn.functional.one_hot(raw.argmax(-1), raw.shape[-1]).to(whole.dtype)
    return torch.where((whole > 0).any(-1, keepdim=True), whole, alone)


def _check_incident(incident: Tensor, n: int) -> None:
    if incident.shape != (n,):
        raise ValueError(f"{n} showers need {n} incident energies, not {list(incident.shape)}")
    if n and not bool(((incident > 0) & torch.isfinite(incident)).all()):
        raise ValueError(f"incident energies must be positive, the least is {float(incident.min()):g} GeV")
