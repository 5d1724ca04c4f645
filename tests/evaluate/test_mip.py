"""The MIP peak: found where it was put, moved when energies are scaled, not invented where there is none."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import moyal

from calogen import ILD_ECAL, Incident, Showers
from calogen.evaluate.mip import peak, window
from calogen.evaluate.points import judge_part

MIP_GEV = 0.2e-3
EDGES = window(ILD_ECAL, "ecal")


def _mips(seed, at=MIP_GEV, spread=0.2) -> Showers:
    """100 cells a shower, each hit once: lognormal with the mode at `at`."""
    rng = np.random.default_rng(seed)
    n = 300
    cells = np.arange(100)
    x, y = (np.tile((v + 0.5) * ILD_ECAL.layers[0].cells.pitch_mm, n) for v in np.divmod(cells, 10))
    energy = rng.lognormal(np.log(at) + spread**2, spread, n * 100)
    return Showers(x, y, np.tile(cells % 30, n), energy, np.arange(n + 1) * 100, Incident.gun(n, seed=1), ILD_ECAL)


def test_peak_of_a_known_spectrum():
    values = np.random.default_rng(1).lognormal(np.log(MIP_GEV) + 0.04, 0.2, 200_000)
    assert peak(np.histogram(values, EDGES)[0], EDGES) == pytest.approx(MIP_GEV, rel=0.02)


def test_no_peak_in_a_falling_spectrum():
    values = np.random.default_rng(2).exponential(3e-4, 200_000)
    assert np.isnan(peak(np.histogram(values, EDGES)[0], EDGES))


def test_shift_is_the_scale_of_the_energies():
    same = judge_part("mip", _mips(3), _mips(4), replicas=80)
    assert abs(same.scores[0].significance) < 3
    assert same.scores[0].error < 0.02
    assert "0.2" in same.notes[0]
    moved = judge_part("mip", _mips(5, at=1.1 * MIP_GEV), _mips(4), replicas=80)
    assert moved.scores[0].value == pytest.approx(0.1, abs=0.03)
    assert not moved.scores[0].indistinguishable


def test_without_threshold_or_cells_there_is_a_note():
    bare = dataclasses.replace(ILD_ECAL, layers=tuple(dataclasses.replace(v, threshold_gev=0) for v in ILD_ECAL.layers))
    pair = [dataclasses.replace(_mips(k), detector=bare) for k in (6, 7)]
    found = judge_part("mip", *pair, replicas=20)
    assert found.scores == ()
    assert "no readout threshold" in found.notes[0]


def test_the_bootstrap_knows_how_the_peak_of_a_skewed_spectrum_scatters():
    """A Landau-like peak on a falling background, few cells: fits about the highest bin would jump with it."""
    rng = np.random.default_rng(3)
    middle = np.sqrt(EDGES[1:] * EDGES[:-1])
    landau = moyal.pdf(middle, MIP_GEV, 0.2 * MIP_GEV) * MIP_GEV
    expected = np.diff(EDGES) / MIP_GEV * (3000 * landau + 3000 * np.exp(-middle / MIP_GEV))
    spectra = rng.poisson(expected, (400, expected.size))
    places = peak(spectra, EDGES)
    assert np.isfinite(places).mean() > 0.98
    assert np.nanstd(places) < 0.04 * MIP_GEV
    bootstrap = np.mean([np.nanstd(peak(rng.poisson(s, (100, s.size)), EDGES)) for s in spectra[:60]])
    assert bootstrap == pytest.approx(np.nanstd(places), rel=0.15)
