"""Scores of tokenizers by the size of their codebook: what hits lose on the way to codes and back.

Figure 1 of OmniJet-alpha_C (arXiv:2501.05534), with errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.residuals import Floats, Integers, Number, Redrawn, Resolution


class Quantity(NamedTuple):
    """What is decoded of a hit: words, unit, and how far and in which steps its residuals are counted."""

    title: str
    unit: str
    reach: float
    step: float


QUANTITIES: dict[str, Quantity] = {
    "x": Quantity("x", "cells", 15.0, 0.05),
    "y": Quantity("y", "cells", 15.0, 0.05),
    "layer": Quantity("z", "layers", 15.0, 0.05),
    "ln_energy": Quantity("ln E", "", 6.0, 0.02),
}
"""The panels of the figure."""

PLACES = ("x", "y", "layer")


@dataclass(frozen=True)
class CodedHits:
    """P hits of N showers, their codes, and what these say; the floats of `decoded` are not rounded to cells.

    `place` and `decoded` [P, 3] are i_x, i_y, layer, and `settled` [P, 3] where hits are after they were rounded
    to cells and moved apart. Energies [P] in GeV. `moved` and `outside` [N] are hits whose cell another had, and hits
    decoded outside of the box. `loss` and `squared_error` [P] are the training's, without dropout.
    """

    shower: Integers
    place: Floats
    decoded: Floats
    settled: Floats
    energy: Floats
    decoded_energy: Floats
    moved: Integers
    outside: Integers
    code: Integers
    loss: Floats
    squared_error: Floats

    @property
    def counts(self) -> Integers:
        """Hits of each shower [N]."""
        return np.bincount(self.shower, minlength=len(self.moved))

    @classmethod
    def concatenate(cls, parts: list[CodedHits]) -> CodedHits:
        """Hits of all showers."""
        first = np.cumsum([0, *(len(p.moved) for p in parts[:-1])])
        joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in (f.name for f in fields(cls)[1:])}
        return cls(np.concatenate([p.shower + k for p, k in zip(parts, first, strict=True)]), **joined)


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of one width, from -reach to reach, and below and above."""

    reach: float
    counts: tuple[int, ...]
    below: int
    above: int

    @classmethod
    def of(cls, residual: NDArray[Any], quantity: Quantity) -> Histogram:
        """Of residuals [P]."""
        bins = round(2 * quantity.reach / quantity.step)
        counts = np.histogram(residual, bins, (-quantity.reach, quantity.reach))[0]
        outside = (int((residual < -quantity.reach).sum()), int((residual > quantity.reach).sum()))
        return cls(quantity.reach, tuple(counts.tolist()), *outside)

    @property
    def edges(self) -> Floats:
        """Of the bins."""
        return np.linspace(-self.reach, self.reach, len(self.counts) + 1)


@dataclass(frozen=True)
class CodebookScore:
    """One tokenizer. Residuals are decoded - true.

    `before` they are rounded to cells: x, y (cells), x_mm, y_mm, layer, ln_energy, relative_energy; `after` they were
    rounded and moved apart: places. Shares are of hits, or (`used`) of codes; the training's are of as many showers.
    """

    name: str
    codes: int
    hits: int
    before: Mapping[str, Resolution]
    after: Mapping[str, Resolution]
    histograms: Mapping[str, Histogram]
    moved: Number
    outside: Number
    used: Number
    perplexity: Number
    loss: Number
    squared_error: Number
    used_training: float | None = None
    perplexity_training: float | None = None
    training: Mapping[str, Any] | None = None  # how the fit went; None for a state that was given

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CodebookScore:
        """What `to_dict` gave, after JSON."""
        made = dict(values)
        for part in ("before", "after"):
            made[part] = {
                name: Resolution(**{k: Number(*n) for k, n in one.items()}) for name, one in made[part].items()
            }
        made["histograms"] = {
            name: Histogram(**{**one, "counts": tuple(one["counts"])}) for name, one in made["histograms"].items()
        }
        for name in ("moved", "outside", "used", "perplexity", "loss", "squared_error"):
            made[name] = Number(*made[name])
        return cls(**made)


@dataclass(frozen=True)
class CodebookStudy:
    """All tokenizers against one truth. `targets` are standard deviations that are aimed at, by quantity."""

    system: str
    detector: str
    truth: str
    showers: int
    scores: tuple[CodebookScore, ...]
    targets: Mapping[str, float]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]

    @property
    def trained(self) -> list[CodebookScore]:
        """Those that the study trained, all in one way, small codebooks first."""
        return sorted((s for s in self.scores if s.training is not None), key=lambda s: s.codes)

    @property
    def given(self) -> list[CodebookScore]:
        """States that were measured as they are."""
        return [s for s in self.scores if s.training is None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def residuals(hits: CodedHits) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Decoded - true, by quantity [P]: before and after hits were put into cells."""
    before = dict(zip(PLACES, (hits.decoded - hits.place).T, strict=True))
    ratio = hits.decoded_energy / hits.energy
    before |= {"ln_energy": np.log(ratio), "relative_energy": ratio - 1}
    return before, dict(zip(PLACES, (hits.settled - hits.place).T, strict=True))


def score(
    hits: CodedHits,
    codes: int,
    pitch_mm: float,
    *,
    name: str,
    seed: int = 0,
    training_usage: tuple[float, float] | None = None,
    training: Mapping[str, Any] | None = None,
) -> CodebookScore:
    """Score a tokenizer by hits that it has coded.

    Args:
        hits: of showers it has not learned from.
        codes: K of its codebook.
        pitch_mm: side of a cell.
        name: of the tokenizer.
        seed: of drawing showers again.
        training_usage: share of used codes and perplexity on training showers.
        training: how the fit went.

    Raises:
        ValueError: no hits, or fewer than two showers.
    """
    redrawn, counts = Redrawn(len(hits.moved), seed), hits.counts
    before, after = residuals(hits)
    used, perplexity = redrawn.usage(hits.code, hits.shower, codes)
    share, words = (None, None) if training_usage is None else training_usage

    def mean(each: Floats) -> Number:
        return redrawn.ratio(np.bincount(hits.shower, weights=each, minlength=len(counts)), counts)

    def resolved(parts: Mapping[str, Floats]) -> dict[str, Resolution]:
        made = {key: redrawn.resolution(d, hits.shower) for key, d in parts.items()}
        return made | {f"{axis}_mm": made[axis].scaled(pitch_mm) for axis in ("x", "y")}

    return CodebookScore(
        name=name,
        codes=codes,
        hits=len(hits.shower),
        before=resolved(before),
        after=resolved(after),
        histograms={key: Histogram.of(before[key], quantity) for key, quantity in QUANTITIES.items()},
        moved=redrawn.ratio(hits.moved, counts),
        outside=redrawn.ratio(hits.outside, counts),
        used=used,
        perplexity=perplexity,
        loss=mean(hits.loss),
        squared_error=mean(hits.squared_error),
        used_training=share,
        perplexity_training=words,
        training=training,
    )
