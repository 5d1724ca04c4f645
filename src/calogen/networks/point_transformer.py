"""PointTransformer: points of a set see those of near layers; the transformer of AllShowers, on ragged sets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.banded_attention import Band, BandedPlan, banded_attention, banded_plan
from calogen.networks.layer_properties import LayerEmbedding, LayerSum
from calogen.networks.layers import Harmonics

CHUNK = 1024
"""Points that widen and narrow together without gradient: 256 numbers of each take 1 MB and stay in an L2 cache."""


class Bound(NamedTuple):
    """What a batch of sets keeps through all evaluations."""

    plan: BandedPlan
    of_set: Tensor  # the set of each point [P]
    fixed: Tensor  # of each point [P, d]: the embeddings of its layer and of its set's condition, particle and counts


class PointTransformer(nn.Module):
    """The velocity of points, given the layer of each (arXiv:2601.11716).

        h = Linear(x) + layer + Linear([cos kπt, sin kπt, c]) + particle + MLP(points in each layer)
        h -> 4 blocks:  h = LN(h + attention(h)),  h = LN(h + MLP(h)) -> Linear -> v

    Points are packed, and sorted by layer within each set. A point sees those of its set in the layers of the band.
    A set's condition is one row: `condition` numbers, the index of its particle, its points in each of L layers.
    Published sizes (78 layers, 4 numbers, 12 particles): 263,491 parameters.

    Args:
        layers: L; or properties of the layers [L, K], standardised. With properties the network does not know
            layers by their index, and its parameters fit any detector (see `calogen.networks.layer_properties`).
        features: of a point, in and out.
        condition: numbers of a set's condition, besides particle and counts.
        particles: how many kinds.
        width: d.
        heads: of attention; d / heads numbers each.
        blocks: how many.
        feedforward: hidden width of a block's MLP.
        counts_width: hidden width of the MLP of the counts.
        band: layers that see each other; published is layer_q - layer_k in [-3, 2].
        harmonics: of the time.
    """

    def __init__(
        self,
        layers: int | Tensor = 78,
        features: int = 3,
        condition: int = 4,
        particles: int = 12,
        *,
        width: int = 64,
        heads: int = 4,
        blocks: int = 4,
        feedforward: int = 256,
        counts_width: int = 512,
        band: Band = Band(),  # noqa: B008 - frozen
        harmonics: int = 3,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be cut into {heads} heads")
        self.layers = layers if isinstance(layers, int) else len(layers)
        first: nn.Module
        self.features, self.conditions, self.particles = features, condition, particles
        self.band = band
        self.time = Harmonics(harmonics)
        self.points = nn.Linear(features, width)
        self.condition = nn.Linear(2 * harmonics + condition, width)
        self.particle = nn.Embedding(particles, width)
        self.layer: nn.Module
        if isinstance(layers, int):
            self.layer, first = nn.Embedding(layers, width), nn.Linear(layers, counts_width)
        else:
            self.layer, first = LayerEmbedding(layers, width), LayerSum(layers, counts_width)
        self.counts = nn.Sequential(first, nn.GELU(), nn.Linear(counts_width, width))
        self.blocks = nn.ModuleList(Block(width, heads, feedforward) for _ in range(blocks))
        self.head = nn.Linear(width, features)

    @property
    def condition_size(self) -> int:
        """Length of the condition of a set: numbers, particle, points in each layer."""
        return self.conditions + 1 + self.layers

    def bind(self, c: Tensor, counts: Tensor) -> BoundTransformer:
        """The network for conditions c [N, C] and counts [N]: plan and embeddings are made once.

        Raises:
            ValueError: if the shapes do not agree, the points in the layers do not add up to the counts, or a
                particle is unknown.
        """
        n = len(counts)
        if c.shape != (n, self.condition_size):
            raise ValueError(f"{n} sets need a condition [{n}, {self.condition_size}], not {list(c.shape)}")
        numbers, particle, per_layer = c.split([self.conditions, 1, self.layers], dim=1)
        whole = per_layer.round().long()
        if not torch.equal(whole.sum(1), counts.to(whole)):
            raise ValueError("the points in the layers of a set must add up to its count")
        if n and not 0 <= float(particle.min()) <= float(particle.max()) < self.particles:
            raise ValueError(
                f"particles {float(particle.min())} to {float(particle.max())}, known are 0 to {self.particles - 1}"
            )
        of_set = torch.repeat_interleave(torch.arange(n, device=c.device), whole.sum(1))
        layer = torch.repeat_interleave(torch.arange(self.layers, device=c.device).repeat(n), whole.flatten())
        with torch.autocast(c.device.type, enabled=False):  # energies and counts keep their digits
            weight = self.condition.weight[:, 2 * len(self.time.frequencies) :]
            each = F.linear(numbers, weight, self.condition.bias) + self.counts(per_layer)
            fixed = self.layer(layer) + (each + self.particle(particle[:, 0].long()))[of_set]
        return BoundTransformer(self, Bound(banded_plan(whole, self.band, like=fixed.detach()), of_set, fixed))

    def forward(self, x: Tensor, t: Tensor, c: Tensor, counts: Tensor) -> Tensor:
        """Packed points x [P, features], time t [N], condition c [N, C], counts [N] -> [P, features]."""
        return self.bind(c, counts)(x, t)

    def embed(self, x: Tensor, t: Tensor, bound: Bound) -> Tensor:
        """What enters the blocks [P, d]."""
        time = F.linear(self.time(t), self.condition.weight[:, : 2 * len(self.time.frequencies)])
        return self.points(x) + bound.fixed + time[bound.of_set]


class BoundTransformer:
    """A `PointTransformer` for given sets. Not a module: it lives as long as a batch."""

    def __init__(self, network: PointTransformer, bound: Bound) -> None:
        self.network, self.bound = network, bound

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Packed points x [P, features], time t [N] -> [P, features]."""
        network = self.network
        if x.shape != (len(self.bound.of_set), network.features):
            raise ValueError(f"points must be [{len(self.bound.of_set)}, {network.features}], not {list(x.shape)}")
        with torch.autocast(x.device.type, enabled=False):  # positions keep their digits
            h = network.embed(x, t, self.bound)
        for block in network.blocks:
            h = block(h, self.bound.plan)
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = network.head(h.to(x.dtype))
        return out


class Block(nn.Module):
    """h = LN(h + attention(h)), h = LN(h + W₂ GELU(W₁ h)); attention without a map of its output.

    The rows of the fused map are laid out as (head, [key, query, value], d / heads), as published.
    """

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_query_value = nn.Linear(width, 3 * width)
        self.widen = nn.Linear(width, feedforward)
        self.narrow = nn.Linear(feedforward, width)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_feedforward = nn.LayerNorm(width)

    def forward(self, h: Tensor, plan: BandedPlan) -> Tensor:
        """h [P, d] -> [P, d]."""
        k, q, v = self.key_query_value(h).view(len(h), self.heads, 3, h.shape[1] // self.heads).unbind(2)
        h = self.norm_attention(h + banded_attention(q, k, v, plan).reshape(h.shape))
        if h.device.type != "cpu" or torch.is_grad_enabled():
            return self._feedforward(h)
        return (
            torch.cat([self._feedforward(part) for part in h.split(CHUNK)]) if len(h) > CHUNK else self._feedforward(h)
        )

    def _feedforward(self, h: Tensor) -> Tensor:
        out: Tensor = self.norm_feedforward(h + self.narrow(F.gelu(self.widen(h))))
        return out
