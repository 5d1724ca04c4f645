"""OmniJet-alpha_C (arXiv:2501.05534): showers as sequences of tokens, one a hit, that a transformer draws one by one.

showers -> hits in the cells of a box, brightest first -> autoencoder with a codebook -> one of K codes a hit
E, direction, kind -> transformer: p(k_1 | E) p(k_2 | k_1, E) ... p(end | all, E)
       (as published: of the training showers' particles together, none is asked for)
       | a code in two choices: its group, and which of it (published: in one)
       | the number of hits n first, p(n | E), then p(k_t | k_1 ... k_{t-1}, n, E) (published: n is where they end)
codes -> autoencoder, all hits of a shower at once -> places and energies -> rounded to cells, one hit a cell
       | decoded energies are mapped to be distributed as those of Geant4's hits, and of drawn hits the
         i-th brightest to have its mean (not as published)
     showers: one point in the middle of each cell with energy
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector, tilt
from calogen.methods.token_choice import Sharpening
from calogen.networks.token_drafts import TokenDrafts
from calogen.systems.box_view import BoxHits
from calogen.systems.code_groups import CodeGroups, GroupedTokenizer, GroupsStage
from calogen.systems.domain import TILT_SLACK, Domain
from calogen.systems.draft_stage import DraftStage
from calogen.systems.drawing import Precision, chosen_precision, require_precision, starts
from calogen.systems.hit_autoencoder import AutoencoderSizes
from calogen.systems.hit_counts import HitCounts, HitCountsStage
from calogen.systems.hit_energies import HitEnergies, HitEnergiesStage
from calogen.systems.hit_tokenizer import Decoded, HitTokenizer, TokenizerConfig
from calogen.systems.omnijet_plans import DESK_PLANS, PUBLISHED_PLANS
from calogen.systems.omnijet_stages import HitsStage, TakenTokenizerStage, share_left_out
from calogen.systems.particles import Particles
from calogen.systems.rank_energies import RankEnergies, RankEnergiesStage
from calogen.systems.system import Preset, System, Tune
from calogen.systems.token_generator import (
    AT_ONCE,
    PUBLISHED_SIZES,
    DrawnCodes,
    GeneratorSizes,
    TokenGenerator,
    TokenStage,
)
from calogen.train import Stage

Energies = NDArray[np.float32]


@dataclass(frozen=True)
class OmniJetConfig:
    """What the model is. The defaults are as published."""

    code: TokenizerConfig = field(default_factory=TokenizerConfig)  # hits to codes and back
    network: GeneratorSizes = PUBLISHED_SIZES  # of the transformer
    calibrated: bool = False  # decoded energies are mapped to be distributed as true ones, see `HitEnergies`
    ranked: bool = False  # and those of drawn hits scaled by their rank in the shower, see `RankEnergies`
    precision: Precision = "float32"  # of its large weights in `sample`, where scores were shown to hold

    def __post_init__(self) -> None:
        require_precision(self.precision)


@dataclass(frozen=True)
class DecodingDid:
    """What was done to hits to have one in a cell of the box, in the last call of `sample` or `reconstruct`."""

    hits: int = 0
    moved: int = 0  # another hit of the shower had their cell
    outside: int = 0  # decoded outside of the box, and put into its nearest cell

    def plus(self, decoded: Decoded) -> DecodingDid:
        """With those of further showers."""
        return DecodingDid(
            self.hits + len(decoded.hits.cell),
            self.moved + int(decoded.moved.sum()),
            self.outside + int(decoded.outside.sum()),
        )


class OmniJet(System):
    """Showers in a regular box of cells, hit by hit."""

    name: ClassVar[str] = "omnijet"
    Config: ClassVar[type] = OmniJetConfig
    events: ClassVar[Literal["points", "voxels"]] = "voxels"

    def __init__(self, config: OmniJetConfig, detector: Detector) -> None:
        super().__init__(config, detector)
        self.domain = Domain()
        self.tokenizer = HitTokenizer(config.code, detector)
        self.groups = CodeGroups(self.tokenizer.vocabulary)
        self.energies = HitEnergies()
        self.ranks = RankEnergies()
        self.counts = HitCounts() if config.network.counted else None
        self.generator = TokenGenerator(self.tokenizer.vocabulary, Particles(), config.network)
        self.drafts = TokenDrafts(config.network.width, config.network.drafts) if config.network.drafts else None
        self.tokens = GroupedTokenizer(self.tokenizer, self.groups)
        self.taken = False  # the tokenizer is another state's
        self.decoding_did = DecodingDid()

    @property
    def conditioned(self) -> bool:
        """Whether showers are drawn for a particle; else for those of the training showers."""
        return self.generator.network.condition > 0

    def parts(self) -> dict[str, nn.Module]:
        """See `System`."""
        optional = {"counts": self.counts, "drafts": self.drafts}
        return {
            "domain": self.domain,
            "tokenizer": self.tokenizer,
            "groups": self.groups,
            "energies": self.energies,
            "ranks": self.ranks,
            "generator": self.generator,
        } | {name: part for name, part in optional.items() if part is not None}

    def stages(self) -> list[Stage]:
        """The tokenizer, the order of its codes where they are drawn by groups, energies, counts, generator, drafts."""
        plans = DESK_PLANS
        tokenizer = TakenTokenizerStage if self.taken else HitsStage
        groups: list[Stage] = []
        if self.config.network.groups:
            number = 0 if self.taken else self.config.network.groups
            groups = [GroupsStage(self.groups, self.tokenizer, number, plans["groups"])]
        calibrate: list[Stage] = []
        if self.config.calibrated:
            calibrate = [HitEnergiesStage(self.energies, self.tokens, plans["calibrate"])]
        counts: list[Stage] = []
        if self.counts is not None:
            counts = [HitCountsStage(self.counts, self._hits_of, plans["counts"])]
        generator = TokenStage(self.generator, self.tokens, plans["generator"], afresh=not self.taken)
        drafts = [] if self.drafts is None else [DraftStage(self.drafts, generator, plans["drafts"])]
        ranks: list[Stage] = []
        if self.config.ranked:
            ranks = [RankEnergiesStage(self.ranks, self._unranked, self.tokenizer.hits, plans["ranks"])]
        return [tokenizer(self, plans["tokenizer"]), *groups, *calibrate, *counts, generator, *drafts, *ranks]

    @torch.inference_mode()
    def _unranked(self, incident: Incident, seed: int) -> BoxHits:
        """Drawn hits, before they are scaled by their rank; showers that do not end are cut."""
        for part in self.parts().values():
            part.eval()
        drawn = self.draw(incident, seed=seed, cut=True)
        hits = self.tokens.decode(drawn.codes, drawn.offsets, incident).hits
        return replace(hits, energy=self.energies(hits.energy))

    def _hits_of(self, showers: Showers) -> NDArray[np.int64]:
        """Hits of each shower [N]."""
        parts = [showers[np.arange(a, min(a + AT_ONCE, len(showers)))] for a in range(0, len(showers), AT_ONCE)]
        return np.concatenate([np.empty(0, np.int64), *(self.tokenizer.hits(part).counts for part in parts)])

    def start_from(self, other: System, *, tune: Tune = "all", label: str = "") -> tuple[int, int]:
        """See `System`. With the tokenizer of the same configuration comes what it scales by, and its tokens stay.

        Raises:
            ValueError: see `System`; or a state that has never been fitted.
        """
        counts = super().start_from(other, tune=tune, label=label)
        if isinstance(other, OmniJet) and other.config.code == self.config.code:
            if not other.domain.species:
                raise ValueError(f"{label or 'the state'} has not been trained: it has no tokens to start from")
            self.taken = True
            self.tokenizer.load_state_dict(other.tokenizer.state_dict())
            self.groups.load_state_dict(other.groups.state_dict())
        return counts

    def left_out(self, showers: Showers) -> float:
        """See `System`: outside of the box, or below the readout's thresholds."""
        return share_left_out(self.tokenizer, showers)

    def learn_range(self, showers: Showers) -> None:
        """Fit the range of particles.

        Raises:
            ValueError: several kinds, or inclined ones, where the networks are not told of it; no hit at all.
        """
        species, steepest = np.unique(showers.incident.pdg), np.abs(tilt(showers.incident.direction)).max(initial=0.0)
        if not self.conditioned and len(species) > 1:
            raise ValueError(f"showers of particles {species.tolist()}: {UNTOLD}")
        if not self.conditioned and steepest > TILT_SLACK:
            raise ValueError(
                f"inclined showers, p_x/p_z or p_y/p_z up to {steepest:.3g} (limit {TILT_SLACK}): {UNTOLD}"
            )
        self.domain.fit(showers.incident)

    def sample(
        self,
        incident: Incident,
        *,
        seed: int,
        batch_size: int = 64,
        progress: bool = False,
        first: int = 0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guess: bool | None = None,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> Showers:
        """One shower for each incident particle: a point in the middle of each cell with energy.

        Without a condition (as published) energies are those of the training showers, whatever is asked for, and a
        warning says so.

        Args:
            incident: particles within the trained range.
            seed: with the index of the shower it decides all random numbers; batches change only round-off.
            batch_size: showers drawn together.
            progress: show a bar.
            first: index of the first of these showers in a larger request.
            temperature: logits are divided by it; 1 is what was learned.
            top_k: keep so many of the likeliest options of each choice; None: all.
            top_p: keep the likeliest options that have this probability together; None: all.
            guess: drafts guess further tokens, which are kept where the network agrees: other showers of the same law,
                several times faster. None: where the state has drafts; False: each token by itself.
            precision: of the large weights; `auto`: the configuration's, on processors that compute in it. In bfloat16
                the odd shower differs with the batch it is drawn in.

        Raises:
            ValueError: particles outside the trained range, or an unknown or impossible option.
            TooLongError: a shower does not end, with twice the hits of the longest in training.
        """
        self.domain.check(incident)
        sharpening = Sharpening(temperature, top_k, top_p)
        if guess and self.drafts is None:
            raise ValueError("guess=True needs drafts, which this state was made without: network.drafts=0")
        chosen = chosen_precision(precision, self.config.precision, self.device)
        if not self.conditioned:
            warnings.warn(UNCONDITIONED, stacklevel=2)
        self.decoding_did = DecodingDid()
        if not len(incident):
            return Showers.empty(self.detector)
        for part in self.parts().values():
            part.eval()
        drawn = self.draw(
            incident,
            seed=seed,
            first=first,
            batch_size=batch_size,
            sharpening=sharpening,
            precision=chosen,
            guess=guess,
            progress=progress,
        )
        return self.showers_of(drawn, incident)

    def draw(
        self, incident: Incident, *, seed: int, first: int = 0, guess: bool | None = None, **options: Any
    ) -> DrawnCodes:
        """Codes of a shower for each particle; options of `TokenGenerator.sample`, and whether the drafts guess."""
        counts = None if self.counts is None else self.counts.draw(incident, seed=seed, first=first)
        drafts = None if guess is False else self.drafts
        return self.generator.sample(incident, seed=seed, first=first, counts=counts, drafts=drafts, **options)

    @torch.inference_mode()
    def showers_of(self, drawn: DrawnCodes, incident: Incident) -> Showers:
        """The showers of drawn codes, one for each particle; empty ones stay empty."""
        decoded = self.tokens.decode(drawn.codes, drawn.offsets, incident)
        return self._showers(decoded, lambda energy: self.ranks(energy, decoded.hits.offsets, incident))

    def reconstruct(
        self, showers: Showers, *, seed: int, batch_size: int = 64, progress: bool = False, first: int = 0
    ) -> Showers:
        """See `System`: showers to tokens and back; there is nothing random in it.

        Raises:
            ValueError: showers of another detector, or particles outside the trained range.
        """
        self.domain.check(showers.incident)
        self.decoding_did = DecodingDid()
        with torch.inference_mode():
            batches = [
                self._reconstruct_batch(showers[np.arange(start, min(start + batch_size, len(showers)))])
                for start in starts(len(showers), batch_size, progress)
            ]
        return Showers.concatenate(batches) if batches else Showers.empty(self.detector)

    def _reconstruct_batch(self, showers: Showers) -> Showers:
        codes, offsets = self.tokens.encode(showers)
        return self._showers(self.tokens.decode(codes, offsets, showers.incident))

    def _showers(self, decoded: Decoded, scaled: Callable[[Energies], Energies] = lambda energy: energy) -> Showers:
        """Hits -> showers, with the account of what was done to have one a cell."""
        self.decoding_did = self.decoding_did.plus(decoded)
        return replace(decoded.hits, energy=scaled(self.energies(decoded.hits.energy))).showers()


UNTOLD = "this configuration has no condition and cannot tell them; network.form=modern can"
UNCONDITIONED = (
    "this configuration has no condition: showers have the energies of the training showers, not those asked for"
)

DESK_TOKENIZER = TokenizerConfig(
    AutoencoderSizes(codes=8192, code_dim=8, width=64, heads=4, blocks=2, dropout=0.0, start="hits", turns=True),
    scaling="cells",
    conditioned=True,
    apart="nearest",
)
DESK_NETWORK = GeneratorSizes(
    width=128, blocks=4, heads=4, feedforward=352, groups=64, rank=32, drafts=16, counted=True, recalls=True
)

PRESETS: dict[str, Preset] = {
    "box-photons-desk": Preset(
        "photons in the box of 30 x 30 x 30 cells, by energy; small networks, for some thousand showers on a CPU",
        OmniJetConfig(DESK_TOKENIZER, DESK_NETWORK, calibrated=True, ranked=True),
        DESK_PLANS,
        "box-30",
    ),
    "published": Preset(
        "OmniJet-alpha_C as published: 65,536 codes, its networks and plans, without a condition; fits its weights",
        OmniJetConfig(),
        PUBLISHED_PLANS,
        "box-30",
    ),
}
"""Sizes of section 3 of the paper; each value where paper and code agree, else as said beside it."""
