"""Energies by rank: means of Geant4's ranks, an edge that stays, an order of hits that does not matter."""

from __future__ import annotations

import numpy as np
import pytest

from calogen.data.incident import Incident
from calogen.systems.rank_energies import RankedHits, RankEnergies

LEAST = 1e-4


def showers(n: int, seed: int, bright: float = 1.0) -> tuple[np.ndarray, np.ndarray, Incident]:
    """Hits that fall exponentially with their rank, down to a threshold; `bright`: a factor of the first ten."""
    rng = np.random.default_rng(seed)
    incident = Incident.gun(n, energy=(10.0, 100.0), seed=seed)
    counts = (4 * incident.energy).astype(int) + rng.integers(0, 5, n)
    rank = np.concatenate([np.arange(c) for c in counts])
    scale = np.repeat(incident.energy, counts) * 1e-3 * np.exp(-rank / 20) * np.where(rank < 10, bright, 1.0)
    energy = LEAST + scale * np.exp(0.2 * rng.standard_normal(len(rank)))
    return energy.astype(np.float32), np.concatenate([[0], np.cumsum(counts)]), incident


def test_sums_at_each_energy_are_those_of_the_truth() -> None:
    true, drawn = showers(1500, 1), showers(800, 2, bright=0.8)
    ranks = RankEnergies()
    np.testing.assert_array_equal(ranks(*drawn), drawn[0])
    ranks.fit(RankedHits.of(*drawn), RankedHits.of(*true))
    again = RankEnergies()
    again.load_state_dict(ranks.state_dict())
    new, fresh = showers(900, 3, bright=0.8), showers(900, 3)
    scaled = again(*new)
    for low, high in ((10, 30), (30, 60), (60, 100)):
        inside = (new[2].energy >= low) & (new[2].energy < high)
        some = np.repeat(inside, np.diff(new[1]))
        assert new[0][some].sum() < 0.95 * fresh[0][some].sum()
        assert scaled[some].sum() == pytest.approx(fresh[0][some].sum(), rel=0.01)
    assert scaled.min() == pytest.approx(new[0].min(), rel=1e-3)
    assert (scaled >= LEAST * 0.999).all()


def test_hits_may_come_in_any_order_and_showers_alone() -> None:
    drawn = showers(60, 5, bright=0.7)
    ranks = RankEnergies()
    ranks.fit(RankedHits.of(*drawn), RankedHits.of(*showers(300, 4)))
    energy, offsets, incident = drawn
    whole = ranks(*drawn)
    for i in (0, 7, 59):
        own = slice(offsets[i], offsets[i + 1])
        order = np.random.default_rng(i).permutation(offsets[i + 1] - offsets[i])
        alone = ranks(energy[own][order], np.array([0, len(order)]), incident[i : i + 1])
        np.testing.assert_allclose(alone, whole[own][order], rtol=1e-6)


def test_nothing_to_compare_changes_nothing() -> None:
    """No showers with hits, one energy alone, and empty showers among others."""
    drawn = showers(40, 5, bright=0.5)
    none = (np.empty(0, np.float32), np.zeros(4, int), drawn[2][:3])
    ranks = RankEnergies()
    ranks.fit(RankedHits.of(*none), RankedHits.of(*none))
    np.testing.assert_array_equal(ranks(*drawn), drawn[0])
    ranks.fit(RankedHits.of(*none), RankedHits.of(*drawn))
    np.testing.assert_array_equal(ranks(*drawn), drawn[0])
    ranks.fit(RankedHits.of(*drawn), RankedHits.of(*showers(40, 6)))
    assert len(ranks(*none)) == 0
    fixed = Incident.gun(40, energy=50.0)
    ranks.fit(RankedHits.of(drawn[0], drawn[1], fixed), RankedHits.of(drawn[0], drawn[1], fixed))
    np.testing.assert_allclose(ranks(drawn[0], drawn[1], fixed), drawn[0], rtol=1e-6)
