"""What the parts of the point-cloud judgement share: one batch, what is kept of a sample, two samples side by side.

A stream is read once. Every part says what it keeps of each shower (`rows`, some hundred bytes a shower) and later,
from the rows of two samples, what it found (`findings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calogen.data.projection import Hits
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector
from calogen.evaluate.blocks import of_values
from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.metrics import Resampling, Score
from calogen.evaluate.observables import Binning, Observed, quantile_edges

REFERENCE, MODEL = "Geant4", "model"
"""Labels of the two samples in every figure, the reference first."""
EQUAL_BINS = 30
"""Bins of equal content (of the truth) in which divergences of one number a shower are computed."""
DRAWN_BINS = 40
"""Equal bins of a drawn histogram."""
DRAWN_TAIL = 2e-3
"""Share of the truth's showers left outside a drawn histogram at each end; scores leave out nothing."""

Rows = Mapping[str, NDArray[Any]]
"""Named arrays whose first axis is the shower."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some showers as points and as what the readout sees of them."""

    points: Showers
    hits: Hits

    @cached_property
    def upright(self) -> Showers:
        """The hits with the tilt removed: x and y are distances from the shower axis in mm."""
        return self.hits.showers.upright()

    @cached_property
    def shower(self) -> NDArray[np.int64]:
        """Shower of each hit, `[P]`."""
        return self.hits.showers.shower_index


class Part(Protocol):
    """One part of the judgement; its options are the fields of a frozen dataclass."""

    @property
    def name(self) -> str:
        """Short key, unique among the parts."""
        ...

    def rows(self, batch: Batch) -> Rows:
        """What is kept of each shower of a batch; empty where `Observed`, the sections or whole showers suffice."""
        ...

    def findings(self, pair: SamplePair) -> Findings:
        """What two samples show."""
        ...


@dataclass(frozen=True, eq=False)
class Collected:
    """All that is kept of a sample: one row a shower, and the points of some `kept` showers at `kept_index`.

    `sections` are the numbers of `sections.observe_sections`, `rows` those of each part by its name.
    """

    detector: Detector
    binning: Binning
    observed: Observed
    sections: Rows
    rows: Mapping[str, Rows]
    kept: Showers
    kept_index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.observed)

    def ordered(self, order: NDArray[np.int64]) -> Collected:
        """The rows in another order, or some of them; kept showers stay where their rows do."""
        place = np.full(len(self), -1, dtype=np.int64)
        place[order] = np.arange(order.size)
        still = place[self.kept_index]
        return replace(
            self,
            observed=self.observed[order],
            sections={k: v[order] for k, v in self.sections.items()},
            rows={name: {k: v[order] for k, v in rows.items()} for name, rows in self.rows.items()},
            kept=self.kept if (still >= 0).all() else self.kept[np.flatnonzero(still >= 0)],
            kept_index=still[still >= 0],
        )


@dataclass(frozen=True, eq=False)
class SamplePair:
    """Two samples in the order of `incidents.aligned_order`: by energy where `paired`, otherwise random."""

    generated: Collected
    truth: Collected
    paired: bool
    seed: int
    replicas: int

    @property
    def detector(self) -> Detector:
        """The detector of both."""
        return self.truth.detector

    @cached_property
    def resampling(self) -> Resampling:
        """How blocks of showers are drawn behind errors and floors."""
        return Resampling(len(self.generated), len(self.truth), self.paired, self.replicas, self.seed)

    def scores(self, name: str, title: str, generated: NDArray[Any], truth: NDArray[Any]) -> tuple[Score, ...]:
        """Divergence (bins of equal content) and Wasserstein distance of one number a shower, in this pair's order.

        None where a sample has no such number at all (no hits in a section).
        """
        if not (np.isfinite(generated).any() and np.isfinite(truth).any()):
            return ()
        blocked = of_values(name, (generated, truth), quantile_edges(truth.astype(np.float64), EQUAL_BINS))
        both = blocked.divergence(self.resampling), blocked.wasserstein(self.resampling)
        return tuple(replace(s, title=title) for s in both)


def spectrum(
    name: str, title: str, axis: str, generated: NDArray[Any], truth: NDArray[Any], *, whole: bool = False
) -> Curve | None:
    """Shares of showers per bin of one number a shower, with binomial errors; None where there is nothing to draw.

    `whole` numbers (layers) get bins of width one.
    """
    known = truth[np.isfinite(truth)].astype(np.float64)
    if not known.size:
        return None
    low, high = np.quantile(known, [DRAWN_TAIL, 1 - DRAWN_TAIL])
    if whole:
        edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1.0)
    else:
        edges = np.linspace(low, high if high > low else low + max(abs(low), 1.0) * 1e-6, DRAWN_BINS + 1)
    return Curve(
        name,
        title,
        axis,
        "share of showers",
        edges,
        (shares(REFERENCE, truth, edges), shares(MODEL, generated, edges)),
    )


def shares(label: str, values: NDArray[Any], edges: NDArray[np.float64]) -> Series:
    """Share of all showers in each bin and its binomial error."""
    p = np.histogram(values[np.isfinite(values)], edges)[0] / max(values.size, 1)
    return Series(label, p, np.sqrt(p * (1 - p) / max(values.size, 1)))


def present(curves: Sequence[Curve | None]) -> tuple[Curve, ...]:
    """The curves that there are."""
    return tuple(c for c in curves if c is not None)
