"""Incident particles and ragged showers: what they refuse, how they are cut, joined and sheared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from calogen import ILD, ILD_ECAL, Incident, Showers


def random_showers(seed: int, n: int = 6, most: int = 40, *, timed: bool = False) -> Showers:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most, n)
    p = int(counts.sum())
    return Showers(
        rng.normal(0, 60, p),
        rng.normal(0, 60, p),
        rng.integers(0, 30, p),
        rng.exponential(1e-3, p),
        np.concatenate([[0], np.cumsum(counts)]),
        Incident.gun(n, energy=(1.0, 100.0), angles="barrel", seed=seed),
        ILD_ECAL,
        rng.random(p) if timed else None,
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_cut_and_join_give_the_same_back(seed: int, timed: bool) -> None:
    showers = random_showers(seed, timed=timed)
    parts = [showers[:2], showers[[2]], showers[np.array([3, 4])], showers[5:]]
    back = Showers.concatenate(parts)
    for name in ("x", "y", "layer", "energy", "offsets", "time"):
        np.testing.assert_array_equal(getattr(back, name), getattr(showers, name))
    assert (back.incident.energy == showers.incident.energy).all()
    mask = np.array([True, False, True, False, False, True])
    np.testing.assert_array_equal(showers[mask].counts, showers.counts[mask])
    np.testing.assert_allclose(showers[::-1].visible_energy, showers.visible_energy[::-1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_sums_agree(seed: int) -> None:
    showers = random_showers(seed)
    np.testing.assert_allclose(showers.energy_per_layer.sum(1), showers.visible_energy)
    np.testing.assert_array_equal(showers.counts_per_layer.sum(1), showers.counts)
    padded = showers.padded()
    np.testing.assert_array_equal(padded.mask.sum(1), showers.counts)
    np.testing.assert_allclose(padded.points[..., 3].sum(1), showers.visible_energy, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_tilt_removed_and_restored(seed: int) -> None:
    showers = random_showers(seed)
    back = showers.upright().tilted()
    np.testing.assert_allclose(back.x, showers.x, atol=1e-3)
    np.testing.assert_allclose(back.y, showers.y, atol=1e-3)


def test_upright_puts_points_on_the_particles_line_at_zero() -> None:
    incident = Incident.gun(1, energy=10.0, angles="fixed:40,25")
    z = ILD_ECAL.z_mm
    p = incident.direction[0].astype(float)
    line = Showers(z * p[0] / p[2], z * p[1] / p[2], np.arange(30), np.ones(30), [0, 30], incident, ILD_ECAL)
    upright = line.upright()
    assert np.abs(upright.x).max() < 1e-3
    assert np.abs(upright.y).max() < 1e-3


GOOD: dict[str, Any] = {
    "x": [0.0, 1.0],
    "y": [0.0, 1.0],
    "layer": [0, 1],
    "energy": [0.1, 0.2],
    "offsets": [0, 2],
    "incident": Incident.gun(1, energy=10.0),
    "detector": ILD_ECAL,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": [0.0, np.nan]}, "x of point 1 is nan"),
        ({"y": [np.inf, 0.0]}, "y of point 0 is inf"),
        ({"energy": [0.1, -0.2]}, "must not be negative"),
        ({"energy": [0.1, -np.inf]}, "must be finite"),
        ({"layer": [0, 30]}, "layers 0 to 29"),
        ({"layer": [0, -1]}, "layers go from -1"),
        ({"layer": [0.0, 1.5]}, "whole numbers"),
        ({"layer": [0, 70000]}, "do not fit"),
        ({"x": [0.0]}, "x is"),
        ({"offsets": [0, 1]}, "offsets must rise"),
        ({"offsets": [1, 2]}, "offsets must rise"),
        ({"offsets": [0, 1, 2]}, "need 2 offsets"),
        ({"time": [0.0, np.nan]}, "time of point 1"),
    ],
)
def test_bad_points_are_refused(change: dict[str, Any], words: str) -> None:
    Showers(**GOOD)
    with pytest.raises(ValueError, match=words) as error:
        Showers(**{**GOOD, **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [{"x": [1e30, -1e30]}, {"energy": [-0.0, 3e38]}, {"layer": [29, 0]}])
def test_odd_but_good_points_are_taken(change: dict[str, Any]) -> None:
    Showers(**{**GOOD, **change})


def test_showers_of_two_detectors_are_not_joined() -> None:
    with pytest.raises(ValueError, match="cannot join"):
        Showers.concatenate([Showers(**GOOD), Showers(**{**GOOD, "detector": ILD})])


def test_times_are_not_lost_in_a_join() -> None:
    timed, untimed = random_showers(1, timed=True), random_showers(2)
    with pytest.raises(ValueError, match=r"part 1 of 3 has none.*untimed"):
        Showers.concatenate([timed, untimed, timed])
    assert Showers.concatenate([timed.untimed(), untimed]).time is None
    joined = Showers.concatenate([Showers.empty(ILD_ECAL), timed])
    np.testing.assert_array_equal(joined.time, timed.time)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (([np.nan], [[0, 0, 1]], [22]), "must be positive and finite"),
        (([-1.0], [[0, 0, 1]], [22]), "must be positive"),
        (([5e6], [[0, 0, 1]], [22]), "looks like MeV"),
        (([1.0], [[0, 0, 2]], [22]), "length 2"),
        (([1.0], [[0, 0, -1]], [22]), "out of the calorimeter"),
        (([1.0], [[0, 0, np.nan]], [22]), "length nan"),
        (([1.0], [[0, 0, 1]], [123456789]), "not a known particle"),
        (([1.0, 2.0], [[0, 0, 1]], [22]), "need energy"),
    ],
)
def test_bad_particles_are_refused(parts: tuple[Any, Any, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Incident(*(np.array(v) for v in parts))


def test_gun_spectra_and_angles() -> None:
    log = Incident.gun(20_000, energy=(1.0, 100.0), spectrum="log", seed=1)
    assert np.log(log.energy).mean() == pytest.approx(np.log(100) / 2, abs=0.05)
    cone = Incident.gun(20_000, angles="cone:60", seed=2)
    assert cone.direction[:, 2].min() >= 0.5 - 1e-6
    assert cone.direction[:, 2].mean() == pytest.approx(0.75, abs=0.01)  # uniform in the cosine
    barrel = Incident.gun(20_000, angles="barrel", seed=3).direction
    theta = np.degrees(np.arccos(barrel[:, 0]))
    phi = np.degrees(np.arctan2(barrel[:, 2], barrel[:, 1]))
    assert 30 <= theta.min() < theta.max() <= 150
    assert 80 <= phi.min() < phi.max() <= 110
    cots = 1 / np.tan(np.radians([theta, phi]))
    for cot, span in zip(cots, 1 / np.tan(np.radians([[150, 30], [110, 80]])), strict=True):
        assert kstest(cot, "uniform", (span[0], np.ptp(span))).pvalue > 1e-3
    assert abs(np.corrcoef(cots)[0, 1]) < 4 / np.sqrt(20_000)
    again = Incident.gun(20_000, angles="barrel", seed=3).direction
    np.testing.assert_array_equal(barrel, again)
    assert set(Incident.gun(7, pdg=[22, 11, 211]).pdg.tolist()) == {22, 11, 211}


@pytest.mark.parametrize(
    "options",
    [
        {"energy": (90.0, 10.0)},
        {"energy": 0.0},
        {"spectrum": "cubic"},
        {"angles": "sideways"},
        {"angles": "fixed:95,0"},
        {"angles": "cone:"},
        {"angles": "fixed:1,2,3"},
        {"pdg": 99999999},
    ],
)
def test_bad_gun_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Incident.gun(1, **options)
