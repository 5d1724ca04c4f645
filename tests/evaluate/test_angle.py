"""The principal axis: exact on lines, turns with them, its errors zero where it should be."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen import ILD_ECAL, Incident, Showers
from calogen.evaluate.angle import Angle, angular_errors, principal_axes, principal_axis
from calogen.evaluate.points import judge_part


def _line(slope_x, slope_y, energy=None) -> Showers:
    z = ILD_ECAL.z_mm
    n = z.size
    e = np.full(n, 1e-3) if energy is None else energy
    return Showers(slope_x * z, slope_y * z, np.arange(n), e, [0, n], Incident.gun(1), ILD_ECAL)


@settings(deadline=None, max_examples=40)
@given(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))
def test_axis_of_a_line_is_the_line(a, b):
    expected = np.array([a, b, 1]) / np.linalg.norm([a, b, 1])
    assert principal_axis(_line(a, b))[0] == pytest.approx(expected, abs=1e-5)
    assert principal_axis(_line(a, b), 10)[0] == pytest.approx(expected, abs=1e-5)


def test_errors_of_an_exact_line_are_zero():
    gun = Incident.gun(50, angles="barrel", seed=2)
    z = np.tile(ILD_ECAL.z_mm, 50)
    slope = np.repeat(gun.direction[:, :2] / gun.direction[:, 2:], 30, axis=0)
    s = Showers(
        slope[:, 0] * z, slope[:, 1] * z, np.tile(np.arange(30), 50), z * 0 + 1e-3, np.arange(51) * 30, gun, ILD_ECAL
    )
    errors = angular_errors(principal_axis(s), gun.direction)
    for name in ("theta", "phi", "opening"):
        assert np.abs(errors[name]).max() < 1e-5


def test_axis_turns_with_the_shower(toy):
    turned = dataclasses.replace(toy, x=-toy.y, y=toy.x)
    a, b = principal_axis(toy, 20), principal_axis(turned, 20)
    assert b[:, 0] == pytest.approx(-a[:, 1], abs=1e-5)
    assert b[:, 1] == pytest.approx(a[:, 0], abs=1e-5)
    assert np.all(a[:, 2] >= 0)


def test_theta_is_from_the_beam_and_phi_about_it():
    theta, phi = np.radians(70), np.radians(10)
    axis = np.array([np.cos(theta), np.sin(theta) * np.sin(phi), np.sin(theta) * np.cos(phi)])
    errors = angular_errors(axis, np.array([0.0, 0.0, 1.0]))
    assert errors["theta"] == pytest.approx(theta - np.pi / 2)
    assert errors["phi"] == pytest.approx(phi)
    assert errors["opening"] == pytest.approx(np.arccos(axis[2]))


def test_bright_hits_alone_make_the_axis():
    """Faint hits far off change the axis of all hits, not that of the top ones; weights follow the energy."""
    line = _line(0.2, 0.0)
    x = np.append(line.x, [300.0] * 30)
    layer = np.append(line.layer, np.arange(30))
    energy = np.append(line.energy, [2e-4] * 30)
    s = Showers(x, x * 0, layer, energy, [0, 60], Incident.gun(1), ILD_ECAL)
    top, every = principal_axes(s, (50.0, 100.0))[0]
    assert top[0] / top[2] == pytest.approx(0.2, abs=1e-5)
    assert abs(every[0] / every[2] - 0.2) > 0.1


def test_showers_without_an_axis():
    gun = Incident.gun(3)
    s = Showers([0, 5, 5, 0, 10], [0] * 5, [3, 4, 4, 3, 9], [1e-3] * 5, [0, 1, 3, 5], gun, ILD_ECAL)
    axis = principal_axis(s)
    assert np.isnan(axis).all(axis=1).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="at most 100"):
        principal_axis(s, 101)


def test_a_turned_sample_is_seen_in_its_angle(make_toy):
    gun = Incident.gun(300, angles="barrel", seed=4)
    truth, same = make_toy(300, 61, incident=gun), make_toy(300, 62, incident=gun)
    part = Angle(percent=20, scan=(20.0, 100.0))
    found = judge_part(part, same, truth, replicas=40)
    assert np.mean([s.indistinguishable for s in found.scores]) >= 0.85
    scan = next(c for c in found.curves if c.name == "scan")
    assert scan.x.tolist() == [20, 100]
    z = ILD_ECAL.z_mm[same.layer]
    bent = judge_part(part, dataclasses.replace(same, x=same.x + 0.1 * z), truth, replicas=40)
    moved = {s.observable for s in bent.scores if s.metric == "jsd" and s.significance > 3}
    assert "theta_100" in moved
    bias = next(s for s in bent.scores if (s.observable, s.metric) == ("theta_100", "median_difference"))
    tilted = gun.direction + 0.1 * gun.direction[:, 2:] * [1, 0, 0]
    expected = 1e3 * np.median(angular_errors(tilted, gun.direction)["theta"])
    assert bias.value == pytest.approx(expected, rel=0.1)
    assert "phi_100" not in moved
