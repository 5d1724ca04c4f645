"""Showers in the cells of a box as sequences of tokens, one a hit, and back.

    hits (cell, energy) -> features [P, 4] -> autoencoder -> tokens [P] -> autoencoder -> features -> one hit a cell

The tokenizer of OmniJet-alpha_C (arXiv:2501.05534). What comes back has as many hits as there were tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector
from calogen.methods.conditional import in_groups
from calogen.systems.box_cells import Box, Integers, Way, apart, rounded
from calogen.systems.box_view import BoxHits, Order, hits_of
from calogen.systems.hit_autoencoder import AutoencoderSizes, HitAutoencoder
from calogen.systems.hit_features import HitFeatures, Scaling
from calogen.transforms import Standardize


@dataclass(frozen=True)
class TokenizerConfig:
    """What a `HitTokenizer` is."""

    sizes: AutoencoderSizes = field(default_factory=AutoencoderSizes)  # of the networks and the codebook
    scaling: Scaling = "published"  # of the features
    conditioned: bool = False  # whether both networks are told ln(E / GeV) of the particle
    order: Order = "energy"  # of the hits of a shower
    apart: Way = "depth"  # where decoded hits go that share a cell; published: along the depth

    def __post_init__(self) -> None:
        if self.apart not in get_args(Way):
            raise ValueError(f"apart={self.apart!r}: hits that share a cell go by {' or '.join(get_args(Way))}")


PRESETS: Mapping[str, TokenizerConfig] = MappingProxyType(
    {
        # arXiv:2501.05534 and its code. The order is the code's (brightest first); the paper does not say.
        "published": TokenizerConfig(),
        # For one core: a vocabulary that some thousand showers can fill, and a start from where their hits are.
        "desk": TokenizerConfig(
            AutoencoderSizes(codes=4096, width=64, heads=4, blocks=2, dropout=0.0, start="hits"),
            scaling="fitted",
            conditioned=True,
        ),
    }
)


class Tokens(NamedTuple):
    """Sequences of N showers: ids [T] int64 from 0, one after the other, and offsets [N + 1] int64; both on the CPU."""

    ids: Tensor
    offsets: Tensor


class Decoded(NamedTuple):
    """Hits of N showers, in the order of their tokens; and how many of each were decoded outside of the box, and how
    many were moved because another hit of the shower had their cell, each [N]."""

    hits: BoxHits
    outside: Integers
    moved: Integers


class HitTokenizer(nn.Module):
    """Hits to tokens and back.

    Args:
        config: what it is.
        detector: a regular box.

    Raises:
        ValueError: another detector.
    """

    def __init__(self, config: TokenizerConfig, detector: Detector) -> None:
        super().__init__()
        self.config, self.detector, self.box = config, detector, Box.of(detector)
        self.features = HitFeatures(config.scaling)
        self.energies = Standardize(1) if config.conditioned else None
        self.network = HitAutoencoder(config.sizes, condition=1 if config.conditioned else 0)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.config.sizes.codes

    def hits(self, showers: Showers) -> BoxHits:
        """The hits that become tokens, in their order.

        Raises:
            ValueError: showers of another detector.
        """
        if showers.detector != self.detector:
            raise ValueError(
                f"these are showers of {showers.detector.name!r}; the tokenizer is for {self.detector.name!r}: "
                f"convert them to its cells"
            )
        return hits_of(showers, self.config.order)

    def condition(self, incident: Incident) -> Tensor | None:
        """What the networks are told [N, 1], if anything."""
        if self.energies is None:
            return None
        told: Tensor = self.energies(self._energies_of(incident))
        return told

    def fit_condition(self, incident: Incident) -> None:
        """Scale what the networks are told by the training particles."""
        if self.energies is not None:
            self.energies.fit(self._energies_of(incident))

    def _energies_of(self, incident: Incident) -> Tensor:
        log = torch.from_numpy(np.log(incident.energy.astype(np.float64))).float()
        return log[:, None].to(self.network.codebook.weight.device)

    @torch.no_grad()
    def encode(self, showers: Showers) -> Tokens:
        """Tokens of showers; a shower's do not depend on the others.

        Raises:
            ValueError: showers of another detector, or a tokenizer that is in training mode.
        """
        return self.encode_hits(self.hits(showers))

    @torch.no_grad()
    def encode_hits(self, hits: BoxHits) -> Tokens:
        """Tokens of hits, in their order; see `encode`."""
        self._require_evaluation()
        x, counts, c = self.features.encode(hits), torch.from_numpy(hits.counts), self.condition(hits.incident)
        made = [
            self.network.encode(x[points], counts[sets].to(x.device), None if c is None else c[sets]).cpu()
            for sets, points in in_groups(counts)
        ]
        ids = torch.cat(made) if made else torch.zeros(0, dtype=torch.int64)
        return Tokens(ids, torch.from_numpy(hits.offsets))

    @torch.no_grad()
    def decode(self, tokens: Tokens, incident: Incident) -> Decoded:
        """Hits of sequences of tokens, one for each, no two of a shower in one cell.

        Args:
            tokens: of N showers.
            incident: their particles [N].

        Raises:
            ValueError: ids that are no tokens, offsets that do not fit, more hits in a shower than there are cells, or
                a tokenizer that is in training mode.
        """
        self._require_evaluation()
        offsets = tokens.offsets.cpu().numpy()
        if len(offsets) != len(incident) + 1 or offsets[0] != 0 or offsets[-1] != len(tokens.ids):
            raise ValueError(
                f"{len(incident)} particles and {len(tokens.ids)} tokens need {len(incident) + 1} offsets up to that, "
                f"got {len(offsets)} from {offsets[0]} to {offsets[-1]}"
            )
        places, energy = self.features.decode(self._decoded(tokens, incident))
        found = rounded(places, offsets, self.box)
        cell = apart(found.cell, energy, offsets, self.box, self.config.apart)
        moved = np.concatenate([[0], np.cumsum(cell != found.cell)])
        hits = BoxHits(cell, energy, offsets, incident, self.detector)
        return Decoded(hits, found.outside, np.diff(moved[offsets]))

    def _require_evaluation(self) -> None:
        if self.training:
            raise ValueError("a tokenizer in training mode drops weights at random: call eval() first")

    def _decoded(self, tokens: Tokens, incident: Incident) -> Tensor:
        """Features [T, 4] of tokens."""
        counts, c = tokens.offsets.diff().cpu(), self.condition(incident)
        device = self.network.codebook.weight.device
        made = [
            self.network.decode(tokens.ids[points].to(device), counts[sets].to(device), None if c is None else c[sets])
            for sets, points in in_groups(counts)
        ]
        return torch.cat(made) if made else torch.zeros(0, 4, device=device)
