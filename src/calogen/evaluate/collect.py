"""One pass over a stream of showers: project, observe, keep the rows of every part and some showers as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.detector.geometry import Detector
from calogen.evaluate.incidents import Sample, aligned_order, batches_of, check_sizes
from calogen.evaluate.observables import BATCH_SHOWERS, Binning, Observed, observe
from calogen.evaluate.parts import Batch, Collected, Part, Rows, SamplePair
from calogen.evaluate.sections import observe_sections

KEPT_SHOWERS = 2000
"""Showers of which the points are kept, for the parts that need them: enough for shares to 1 %, below 100 MB."""
BATCH_POINTS = 1 << 21
"""At most so many points are projected at once (a shower is never cut)."""


def collect(
    sample: Sample, parts: Sequence[Part], *, what: str = "sample", seed: int = 0, keep: int = KEPT_SHOWERS
) -> Collected:
    """Read a sample once and keep of each shower what the parts need; memory grows by a kilobyte or two a shower.

    `keep` showers, drawn at random by `seed`, are kept as points: the same places of two files of equal length.

    Raises:
        ValueError: no showers, or batches of different detectors.
    """
    detector, batches = batches_of(sample, what)
    binning = Binning.of(detector)
    observed: list[Observed] = []
    sections: list[Rows] = []
    rows: dict[str, list[Rows]] = {part.name: [] for part in parts}
    kept = _Kept(keep, seed)
    for showers in _portions(batches, detector):
        batch = Batch(showers, project(showers))
        observed.append(observe(batch.hits, binning))
        sections.append(observe_sections(batch))
        for part in parts:
            rows[part.name].append(part.rows(batch))
        kept.add(showers)
    if not observed:
        raise ValueError(f"the {what} is empty: no showers to judge")
    points, index = kept.result()
    joined = {name: _joined(r) for name, r in rows.items()}
    return Collected(detector, binning, Observed.concatenate(observed), _joined(sections), joined, points, index)


def align(generated: Collected, truth: Collected, *, seed: int, replicas: int) -> SamplePair:
    """Both samples in the order in which blocks are dealt.

    Raises:
        ValueError: samples that cannot be scored (too few showers, no hits, other particles).
    """
    check_sizes(generated.observed, truth.observed)
    first, second, paired = aligned_order(generated.observed, truth.observed, seed)
    return SamplePair(generated.ordered(first), truth.ordered(second), paired, seed, replicas)


def _portions(batches: Iterable[Showers], detector: Detector) -> Iterable[Showers]:
    for batch in batches:
        if batch.detector != detector:
            raise ValueError(f"showers of {batch.detector.name!r} cannot be judged as {detector.name!r}")
        start = 0
        while start < len(batch):
            stop = int(np.searchsorted(batch.offsets, batch.offsets[start] + BATCH_POINTS, side="right")) - 1
            stop = min(max(stop, start + 1), start + BATCH_SHOWERS, len(batch))
            yield batch[start:stop]
            start = stop


def _joined(parts: list[Rows]) -> Rows:
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


class _Kept:
    """A random sample of a stream of unknown length: the showers of the smallest of independent random keys."""

    def __init__(self, limit: int, seed: int) -> None:
        self.limit = limit
        self.rng = np.random.default_rng([seed, 13])
        self.seen = 0
        self.key = np.zeros(0)
        self.index = np.zeros(0, dtype=np.int64)
        self.parts: list[Showers] = []
        self.highest = np.inf

    def add(self, showers: Showers) -> None:
        key = self.rng.random(len(showers))
        chosen = np.flatnonzero(key < self.highest)
        if chosen.size or not self.parts:
            self.parts.append(showers[chosen])
            self.key = np.concatenate([self.key, key[chosen]])
            self.index = np.concatenate([self.index, self.seen + chosen])
        self.seen += len(showers)
        if self.key.size > 2 * self.limit:
            self._shrink()

    def _shrink(self) -> None:
        best = np.sort(np.argsort(self.key)[: self.limit])
        self.parts = [Showers.concatenate(self.parts)[best]]
        self.key, self.index = self.key[best], self.index[best]
        self.highest = float(self.key.max(initial=0.0)) if self.key.size >= self.limit else np.inf

    def result(self) -> tuple[Showers, NDArray[np.int64]]:
        self._shrink()
        return self.parts[0], self.index
