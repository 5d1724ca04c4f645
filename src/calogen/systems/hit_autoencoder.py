"""The autoencoder that writes each hit of a shower as one code, seeing the whole shower both ways.

    hits [P, 4] -> NormFormer -> [P, D] -> nearest code -> [P, D] -> NormFormer -> hits [P, 4]

VQ-VAE of OmniJet-alpha_C (arXiv:2501.05534, sec. 3). A hit that is decoded depends on all codes of its shower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from calogen.methods.codebook import Codebook
from calogen.methods.conditional import mean_per_set
from calogen.networks.normformer import NormFormer
from calogen.networks.turns import TURN_FEATURES, turns

FEATURES = 4
"""Numbers of a hit: two places across, one along, and its energy."""


@dataclass(frozen=True)
class AutoencoderSizes:
    """What fixes a `HitAutoencoder`; as published unless said otherwise."""

    codes: int = 65_536  # K, words of the vocabulary
    code_dim: int = 12  # D, numbers of a code
    width: int = 128  # of the blocks
    heads: int = 8
    blocks: int = 4  # of the encoder, and as many of the decoder
    dropout: float = 0.1
    beta: float = 0.8  # of the codebook's loss; the paper's. The published configuration has 0.9
    affine_rate: float = 2.0  # of the codebook's affine map
    sync: float = 1.0  # nu: share of the gradient of its values that a code gets itself
    patience: int = 100  # steps after which an unused code is replaced
    weight: float = 10.0  # alpha: of the codebook's loss beside the squared error
    start: Literal["normal", "hits"] = "normal"  # codes are first drawn as N(0, 1), or put where hits are
    turns: bool = False  # both networks are told when in its shower's order a hit comes, see `turns`


class Losses(NamedTuple):
    """Of P hits: squared error, summed over the features, and the codebook's loss [P]; and their codes [P]."""

    squared_error: Tensor
    codebook: Tensor
    ids: Tensor


class HitAutoencoder(nn.Module):
    """Packed hits of showers to codes and back.

    Args:
        sizes: of it.
        condition: C, numbers of each shower that both networks are given; published: 0.
    """

    def __init__(self, sizes: AutoencoderSizes, condition: int = 0) -> None:
        super().__init__()
        self.sizes, self.condition = sizes, condition
        self.encoder = self._network(FEATURES, sizes.code_dim)
        self.codebook = Codebook(
            sizes.codes,
            sizes.code_dim,
            beta=sizes.beta,
            affine_rate=sizes.affine_rate,
            sync=sizes.sync,
            patience=sizes.patience,
        )
        self.decoder = self._network(sizes.code_dim, FEATURES)

    def _network(self, inputs: int, outputs: int) -> NormFormer:
        s = self.sizes
        return NormFormer(
            inputs + (TURN_FEATURES if s.turns else 0),
            outputs,
            width=s.width,
            heads=s.heads,
            blocks=s.blocks,
            dropout=s.dropout,
            condition=self.condition,
        )

    def points(self, x: Tensor, counts: Tensor, c: Tensor | None = None) -> Tensor:
        """Hits x [P, 4] of showers of counts [N], condition [N, C] -> where among the codes they are [P, D]."""
        at: Tensor = self.encoder(self._told(x, counts), counts, c)
        return at

    def _told(self, x: Tensor, counts: Tensor) -> Tensor:
        if not self.sizes.turns:
            return x
        n = counts.repeat_interleave(counts, output_size=len(x))
        i = torch.arange(len(x), device=x.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        return torch.cat([x, turns(i, n)], dim=1)

    def encode(self, x: Tensor, counts: Tensor, c: Tensor | None = None) -> Tensor:
        """Hits x [P, 4] of showers of counts [N], condition [N, C] -> codes [P] int64."""
        return self.codebook.ids(self.points(x, counts, c))

    def decode(self, ids: Tensor, counts: Tensor, c: Tensor | None = None) -> Tensor:
        """Codes [P] of showers of counts [N] -> hits [P, 4]."""
        return self._hits(self.codebook.lookup(ids), counts, c)

    def _hits(self, values: Tensor, counts: Tensor, c: Tensor | None) -> Tensor:
        hits: Tensor = self.decoder(self._told(values, counts), counts, c)
        return hits

    def losses(self, x: Tensor, counts: Tensor, c: Tensor | None = None) -> Losses:
        """Hit by hit, how far it comes back from where it was, and how far it is from its code."""
        quantized = self.codebook(self.points(x, counts, c))
        again = self._hits(quantized.values, counts, c)
        return Losses((x - again).square().sum(1), quantized.loss, quantized.ids)

    def loss(self, x: Tensor, counts: Tensor, c: Tensor | None = None) -> Tensor:
        """|x - x'|² + alpha · codebook's loss, the mean over the hits of each shower [N]; 0 for one without hits."""
        losses = self.losses(x, counts, c)
        each = losses.squared_error + self.sizes.weight * losses.codebook
        return mean_per_set(each[:, None], counts)
