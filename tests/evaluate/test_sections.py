"""Sections: sums, start layers and moments of showers whose numbers are known; a brighter section moves only itself."""

import dataclasses

import numpy as np
import pytest

from calogen import ILD, ILD_ECAL, Incident, Showers
from calogen.data.projection import project
from calogen.evaluate.parts import Batch
from calogen.evaluate.points import judge_part
from calogen.evaluate.sections import labels, observe_sections

HCAL = int(ILD.layers_of("hcal")[0])


def _observed(x, y, layer, energy, detector=ILD, offsets=None, **gun):
    offsets = offsets or [0, len(x)]
    s = Showers(x, y, layer, energy, offsets, Incident.gun(len(offsets) - 1, **gun), detector)
    return observe_sections(Batch(s, project(s)))


def test_sections_of_a_detector():
    assert labels(ILD_ECAL) == ("total",)
    assert labels(ILD) == ("total", "ecal", "hcal")


def test_sections_add_up_and_start_where_the_highest_cell_is():
    """One bright cell in ECal layer 4, more energy in layer 7 in two cells, one tile in the HCal."""
    layer = [4, 7, 7, HCAL + 2]
    rows = _observed([2.5, 2.5, 40.0, 15.0], [2.5, 2.5, 2.5, 15.0], layer, [3e-3, 2e-3, 2e-3, 1e-3])
    assert rows["ecal/energy"][0] == pytest.approx(7e-3)
    assert rows["total/energy"][0] == pytest.approx(8e-3)
    assert [int(rows[f"{k}/hits"][0]) for k in ("total", "ecal", "hcal")] == [4, 3, 1]
    assert rows["total/start_layer"][0] == 4
    assert rows["total/start_layer_sum"][0] == 7
    assert rows["hcal/start_layer"][0] == HCAL + 2
    assert rows["hcal/width_x"][0] == pytest.approx(0, abs=1e-4)
    assert rows["ecal/cog_z"][0] == pytest.approx((3 * 4.5 + 4 * 7.5) / 7)


def test_widths_are_weighted_standard_deviations():
    pitch = ILD_ECAL.layers[0].cells.pitch_mm
    rows = _observed([0.5, 0.5 + 4 * pitch], [0.5, 0.5], [3, 3], [1e-3, 1e-3], ILD_ECAL)
    assert rows["total/width_x"][0] == pytest.approx(2 * pitch, rel=1e-5)
    assert rows["total/width_y"][0] == pytest.approx(0, abs=1e-3)


def test_a_section_without_hits_has_no_moments():
    rows = _observed([0.5, 0.5], [0.5, 0.5], [3, HCAL], [1e-3, 1e-3], offsets=[0, 1, 2])
    assert rows["hcal/hits"].tolist() == [0, 1]
    assert np.isnan(rows["hcal/start_layer"]).tolist() == [True, False]
    assert np.isnan(rows["ecal/cog_x"]).tolist() == [False, True]


@pytest.fixture(scope="module")
def pions(make_toy):
    """Toys with half their layers in each section of ILD."""

    def make(seed, incident=None):
        s = make_toy(200, seed, incident=incident)
        deep = np.where(np.arange(s.n_points) % 2, s.layer, HCAL + s.layer)
        return Showers(s.x, s.y, deep, s.energy * 2, s.offsets, s.incident, ILD)

    truth = make(51)
    return make(52, truth.incident), truth


def test_brighter_hcal_moves_only_the_hcal(pions):
    generated, truth = pions
    brighter = dataclasses.replace(generated, energy=generated.energy * np.where(generated.layer >= HCAL, 1.1, 1))
    found = judge_part("sections", brighter, truth, replicas=40)
    moved = {s.observable for s in found.scores if s.significance > 4}
    assert "hcal/energy" in moved
    assert not any(name.startswith("ecal") for name in moved)
    same = judge_part("sections", generated, truth, replicas=40)
    assert np.mean([s.indistinguishable for s in same.scores]) >= 0.9
