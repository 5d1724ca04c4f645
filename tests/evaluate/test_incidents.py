"""Same particles, other spectra, the same showers twice: what is said of them, and what matching keeps."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calogen import ILD_ECAL, Incident
from calogen.evaluate import evaluate
from calogen.evaluate.incidents import MATCH_WIDTH, cautions, match_incident
from calogen.evaluate.observables import Binning, observe_all

ENERGIES = arrays(np.float64, st.integers(1, 60), elements=st.floats(1.0, 4.0))


@settings(deadline=None, max_examples=40)
@given(ENERGIES, ENERGIES, st.integers(0, 5))
def test_matched_spectra_are_equal_bin_by_bin(a, b, seed):
    bins = [np.floor(np.log(v) / MATCH_WIDTH).astype(int) for v in (a, b)]
    if not np.isin(*bins).any():
        with pytest.raises(ValueError, match="no incident energy is common"):
            match_incident(a, b, seed)
        return
    m = match_incident(a, b, seed)
    assert sorted(bins[0][m.generated]) == sorted(bins[1][m.truth])
    assert m.generated.size + m.dropped_generated == a.size
    assert np.unique(m.truth).size == m.truth.size
    assert np.array_equal(match_incident(a, b, seed).generated, m.generated)


def test_matching_takes_a_soft_spectrum_out_of_the_comparison():
    a, b = Incident.gun(4000, energy=(10, 60), seed=1).energy, Incident.gun(4000, energy=(10, 90), seed=2).energy
    m = match_incident(a, b, seed=3)
    assert a[m.generated].mean() == pytest.approx(b[m.truth].mean(), rel=0.002)
    assert b[m.truth].max() < 61
    assert str(m.dropped_truth) in m.text


def test_a_sample_against_itself_is_noticed(make_toy):
    showers = make_toy(300, 5)
    warnings = evaluate(showers, showers, replicas=20).warnings
    assert any("300 of 300 generated showers have exactly the visible energy" in w for w in warnings)
    assert any("below the floor" in w for w in warnings)
    half = dataclasses.replace(showers[:200])
    assert any("200 of 200" in w for w in evaluate(half, showers, replicas=20).warnings)


def test_few_showers_are_noticed(make_toy):
    gun = Incident.gun(100, seed=7)
    e = evaluate(make_toy(100, 6, incident=gun), make_toy(100, 7, incident=gun), replicas=20)
    assert [w for w in e.warnings if "only 100 generated, 100 truth showers: below 250" in w]


def test_other_mixtures_and_units_are_said(make_toy):
    binning = Binning.of(ILD_ECAL)
    base = make_toy(300, 5)
    seen = [observe_all([s], binning, ILD_ECAL) for s in (base, make_toy(300, 6))]
    assert not any("mixed" in w or "units" in w for w in cautions(*seen))
    kinds = [np.where(np.arange(300) % k == 0, 11, 22) for k in (2, 7)]
    half = [dataclasses.replace(o, pdg=k) for o, k in zip(seen, kinds, strict=True)]
    assert any("mixed differently" in w and "11: 50%" in w for w in cautions(*half))
    mev = dataclasses.replace(seen[0], visible_energy=seen[0].visible_energy * 1000)
    assert any("check the energy units" in w for w in cautions(mev, seen[1]))
    assert any("check the energy units" in w for w in cautions(seen[1], mev))
