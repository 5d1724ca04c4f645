"""The two point transformers of CaloHadronic (arXiv:2506.21720), one for each calorimeter, on ragged sets."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from calogen.networks.layers import FourierFeatures
from calogen.networks.set_attention import SetBlock

HIGHEST, NUMBER = 16.0, 32
"""Frequencies of a point's features: 2^0 to 2^16 in 32 equal steps of the exponent (the published settings)."""

TINY = 1e-6
"""Added to the weight of a token of the compressor, as published: a token that nothing went to is zero."""


@dataclass(frozen=True)
class PointCondition:
    """Conditions of N sets: numbers `values` [N, C], and for each `counts` [N] points of another set, packed [M, F].

    It has rows as a tensor [N, C] has them: len, slices.
    """

    values: Tensor
    points: Tensor
    counts: Tensor

    def __post_init__(self) -> None:
        if self.counts.shape != (len(self.values),) or int(self.counts.sum()) != len(self.points):
            raise ValueError(
                f"counts {list(self.counts.shape)} with sum {int(self.counts.sum())} do not describe "
                f"{len(self.points)} points of {len(self.values)} sets"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> PointCondition:
        ends = torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)])
        first, last, _ = rows.indices(len(self))
        return PointCondition(self.values[rows], self.points[int(ends[first]) : int(ends[last])], self.counts[rows])


class PointFeatures(nn.Module):
    """x -> [x, sin f₁x, cos f₁x, sin f₂x, ...], f from 2^0 to 2^highest; no π, and no randomness.

    Args:
        highest: exponent of the highest frequency.
        number: of frequencies.
    """

    frequencies: Tensor

    def __init__(self, highest: float = HIGHEST, number: int = NUMBER) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.linspace(0, highest, number), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [P, F] -> [P, F (1 + 2 number)]."""
        phase = x[:, None] * self.frequencies[:, None]
        return torch.cat([x, torch.stack([phase.sin(), phase.cos()], dim=2).flatten(1)], dim=1)


class SetCompressor(nn.Module):
    """Each packed set to a few tokens: every point gives itself to the tokens in shares, a token is their mean.

        token_k = Σ_p w_pk V(p) / (Σ_p w_pk + 1e-6),   w_p = softmax(W p) over the tokens

    Args:
        features: of a point, and of a token.
        tokens: of a set.
    """

    def __init__(self, features: int = 4, tokens: int = 10) -> None:
        super().__init__()
        self.shares = nn.Linear(features, tokens)
        self.values = nn.Linear(features, features)

    def forward(self, points: Tensor, counts: Tensor) -> Tensor:
        """points [M, F], counts [N] -> [N, tokens, F]; zeros for an empty set."""
        shares = self.shares(points).softmax(dim=1)
        weighted = torch.cat([shares[:, :, None] * self.values(points)[:, None], shares[:, :, None]], dim=2)
        of_set = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        sums = weighted.new_zeros(len(counts), *weighted.shape[1:]).index_add(0, of_set, weighted)
        return sums[:, :, :-1] / (sums[:, :, -1:] + TINY)


class HadronicTransformer(nn.Module):
    """The denoiser network F of points in one calorimeter, by default the published one of the ECal.

        tokens of a set: points (features, linear), noise level (Fourier, MLP), condition (MLP)
        -> blocks of attention among all of them -> the points -> MLP 128-64-32-4

    With `given` features, a condition comes with points of another set (`PointCondition`): those are compressed to ten
    more tokens, and the points, as they entered, see the encoded tokens once more through a decoder block. That is
    the HCal's network, given the ECal's points (`HadronicTransformer(condition=49, heads=16, blocks=4, given=4)`).
    Published sizes: 656,260 and 1,128,400 parameters.

    Points are packed; a set sees itself alone.

    Args:
        features: F of a point, in and out.
        condition: C.
        width: d.
        heads: of attention.
        blocks: of the encoder.
        feedforward: hidden width of a block's MLP.
        given: features of the points in the condition; 0: there are none.
        tokens: to which these are compressed.
        time_features, fourier_std: of the noise level, see `FourierFeatures`.
        highest, frequencies: of a point's features, see `PointFeatures`.
        added: noise level and condition are also added to every point, as they are in AllShowers: one of a thousand
            tokens is found slowly by attention alone.
        dropout: in training; published is 0.1.
    """

    def __init__(
        self,
        features: int = 4,
        condition: int = 31,
        *,
        width: int = 128,
        heads: int = 8,
        blocks: int = 3,
        feedforward: int = 512,
        given: int = 0,
        tokens: int = 10,
        time_features: int = 64,
        fourier_std: float = 16.0,
        highest: float = HIGHEST,
        frequencies: int = NUMBER,
        added: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features, self.condition, self.given, self.added = features, condition, given, added
        self.time = nn.Sequential(
            FourierFeatures(time_features, fourier_std),
            nn.Linear(time_features, time_features),
            nn.GELU(),
            nn.Linear(time_features, width),
        )
        self.context = _mlp(condition, condition, width // 2 if given else width)
        if given:
            self.compressor = SetCompressor(given, tokens)
            self.context_given = _mlp(given, given, width // 2)
            self.widen = nn.Linear(width // 2, width)
            self.decoder = SetBlock(width, heads, feedforward, dropout, memory=True)
        self.points = nn.Sequential(
            PointFeatures(highest, frequencies), nn.Linear(features * (1 + 2 * frequencies), width)
        )
        self.encoder = nn.ModuleList(SetBlock(width, heads, feedforward, dropout) for _ in range(blocks))
        self.head = _mlp(width, width // 2, width // 4, features)

    def bind(self, c: Tensor | PointCondition, counts: Tensor) -> BoundHadronic:
        """The network for conditions c [N] and counts [N]: their tokens are made once.

        Raises:
            ValueError: if the condition does not fit the network or the counts.
        """
        values = self._checked(c, counts)
        with torch.autocast(values.device.type, enabled=False):  # energies and counts keep their digits
            context = self.context(values)[:, None]
            if isinstance(c, PointCondition):
                given = self.context_given(self.compressor(c.points, c.counts))
                context = self.widen(torch.cat([context, given], dim=1))
        return BoundHadronic(self, context, counts)

    def forward(self, x: Tensor, t: Tensor, c: Tensor | PointCondition, counts: Tensor) -> Tensor:
        """Packed x [P, features], noise level t [N] (EDM: ln σ / 4), conditions c [N], counts [N] -> [P, features].

        Raises:
            ValueError: if they do not fit each other.
        """
        return self.bind(c, counts)(x, t)

    def _checked(self, c: Tensor | PointCondition, counts: Tensor) -> Tensor:
        """The numbers [N, C] of the condition."""
        if isinstance(c, PointCondition) != bool(self.given):
            raise ValueError(f"this network {'needs' if self.given else 'takes no'} points as a condition")
        values = c.values if isinstance(c, PointCondition) else c
        if values.shape != (len(counts), self.condition):
            raise ValueError(
                f"{len(counts)} sets need a condition [{len(counts)}, {self.condition}], not {list(values.shape)}"
            )
        if isinstance(c, PointCondition) and c.points.shape[1] != self.given:
            raise ValueError(f"points of the condition have {c.points.shape[1]} features, not {self.given}")
        return values


class BoundHadronic:
    """A `HadronicTransformer` for given sets. Not a module: it lives as long as a batch."""

    def __init__(self, network: HadronicTransformer, context: Tensor, counts: Tensor) -> None:
        extra = 1 + context.shape[1]
        of_set = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        self.network, self.context = network, context
        self.sizes = counts.tolist()
        self.token_sizes = [n + extra for n in self.sizes]
        self.of_set = of_set
        self.at = torch.arange(len(of_set), device=counts.device) + extra * of_set  # where the points are in the tokens
        ends = (counts + extra).cumsum(0)
        self.extra_at = (ends[:, None] + torch.arange(-extra, 0, device=counts.device)).flatten()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Packed points x [P, features], noise level t [N] -> [P, features]."""
        network = self.network
        if x.shape != (len(self.at), network.features):
            raise ValueError(f"points must be [{len(self.at)}, {network.features}], not {list(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):  # positions keep their digits
            points, time = network.points(x), network.time(t)
            if network.added:
                points = points + (time + self.context[:, 0])[self.of_set]
            extra = torch.cat([time[:, None], self.context], dim=1).flatten(0, 1)
        h = points.new_zeros(len(points) + len(extra), points.shape[1])
        h = h.index_copy(0, self.at, points).index_copy(0, self.extra_at, extra)
        for block in network.encoder:
            h = block(h, self.token_sizes)
        h = cast(SetBlock, network.decoder)(points, self.sizes, h, self.token_sizes) if network.given else h[self.at]
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = network.head(h.to(x.dtype))
        return out


def _mlp(*widths: int) -> nn.Sequential:
    """Linear maps with GELU between."""
    parts: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for a, b in itertools.pairwise(widths[1:]):
        parts += [nn.GELU(), nn.Linear(a, b)]
    return nn.Sequential(*parts)
