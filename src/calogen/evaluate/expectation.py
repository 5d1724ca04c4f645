"""What Geant4 shows at a given incident energy: mean and spread of each observable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.observables import quantile_edges

ENERGY_BINS = 10
"""Bins of equal truth in incident energy, between whose means the expected observables are interpolated."""
COLUMNS = 16
"""Observables worked on at a time: 13 MB of 100,000 showers."""
CONSTANT = 1e-9
"""Standard deviations below this share of the mean are rounding."""


@dataclass(frozen=True, eq=False)
class Expectation:
    """Mean and standard deviation `[bins, k]` of the truth's observables, at incident energies `place [bins]` GeV."""

    place: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, truth: NDArray[Any], incident: NDArray[Any] | None) -> Expectation:
        """From the truth's observables `[m, k]` at incident energies `[m]` GeV; the same at all energies without."""
        if incident is None:
            truth = np.asarray(truth, dtype=np.float64)
            return cls(np.zeros(1), truth.mean(axis=0)[None], truth.std(axis=0)[None])
        place = np.asarray(incident, dtype=np.float64)
        edges = quantile_edges(place, ENERGY_BINS)
        inside = np.clip(np.searchsorted(edges, place, side="right") - 1, 0, max(edges.size - 2, 0))
        bins = np.unique(inside)
        middle = np.array([place[inside == b].mean() for b in bins])
        means, spreads = [], []
        for columns in column_blocks(truth.shape[1]):
            values = np.asarray(truth[:, columns], dtype=np.float64)
            mean = np.stack([values[inside == b].mean(axis=0) for b in bins])
            # Spread about the line through neighbouring means, not about the mean of a bin as wide as that of energies.
            residual = values - _interpolate(place, middle, mean)
            means.append(mean)
            spreads.append(np.stack([residual[inside == b].std(axis=0) for b in bins]))
        return cls(middle, np.concatenate(means, axis=1), np.concatenate(spreads, axis=1))

    def of_columns(self, columns: slice | list[int]) -> Expectation:
        """That of some of the observables."""
        return Expectation(self.place, self.mean[:, columns], self.spread[:, columns])

    def at(self, incident: NDArray[Any] | None, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and spread `[n, k]` for n showers; NaN spread of observables that are constant in the truth.

        Beyond the outer bins' mean energies the mean goes on as a line, the spread stays.
        """
        place = np.zeros(n) if incident is None else np.asarray(incident, dtype=np.float64)
        spread = _interpolate(np.clip(place, self.place[0], self.place[-1]), self.place, self.spread)
        return _interpolate(place, self.place, self.mean), np.where(self.constant, np.nan, spread)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Which observables `[k]` do not vary in some bin, so that no shift can be measured in its units."""
        return np.asarray((self.spread <= CONSTANT * np.abs(self.mean)).any(axis=0))


def column_blocks(k: int) -> Iterator[slice]:
    """0 to k in slices of at most `COLUMNS`."""
    return (slice(start, min(start + COLUMNS, k)) for start in range(0, k, COLUMNS))


def _interpolate(
    x: NDArray[np.float64], place: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Straight lines between rows `values [p, k]` at `place [p]`, continued beyond the ends."""
    if place.size == 1:
        return np.broadcast_to(values[0], (x.size, values.shape[1]))
    low = np.clip(np.searchsorted(place, x) - 1, 0, place.size - 2)
    share = ((x - place[low]) / (place[low + 1] - place[low]))[:, None]
    return np.asarray(values[low] * (1 - share) + values[low + 1] * share)
