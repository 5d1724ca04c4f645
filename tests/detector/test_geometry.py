"""Cells, layers, catalog, and detectors from files."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calogen import CATALOG, ILD, ILD_ECAL
from calogen.detector.catalog import (
    BOX_30,
    CALOCHALLENGE_1_PHOTONS,
    CALOCHALLENGE_1_PIONS,
    CALOCHALLENGE_2,
    CALOCHALLENGE_3,
    detector,
    from_calochallenge_xml,
)
from calogen.detector.geometry import OUTSIDE, CartesianCells, Detector, PolarCells

CELLS = st.one_of(
    st.builds(
        CartesianCells,
        st.floats(0.5, 50),
        st.floats(-300, 0),
        st.floats(-300, 0),
        st.integers(1, 40),
        st.integers(1, 40),
    ),
    st.builds(
        lambda edges, n: PolarCells(tuple(float(e) for e in sorted(edges)), n),
        st.sets(st.integers(0, 400), min_size=2, max_size=12),
        st.integers(1, 50),
    ),
)


@given(CELLS, st.integers(0, 2**31))
def test_places_of_a_cell_lie_in_it(cells: CartesianCells | PolarCells, seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = rng.integers(0, cells.n_cells, 50)
    np.testing.assert_array_equal(cells.index(*cells.centre(index)), index)
    inside = cells.spread(index, rng.uniform(0.01, 0.99, 50), rng.uniform(0.01, 0.99, 50))
    np.testing.assert_array_equal(cells.index(*inside), index)


def test_points_beyond_the_cells_are_outside() -> None:
    far = np.array([1e4, -1e4])
    assert (CartesianCells.centred(5.0, 20.0).index(far, far * 0) == OUTSIDE).all()
    assert (PolarCells((5.0, 10.0), 4).index(np.array([20.0, 1.0]), np.zeros(2)) == OUTSIDE).all()


def test_catalog_has_the_published_sizes() -> None:
    assert ILD.n_layers == 78
    assert ILD.sections == ("ecal", "hcal")
    assert len(ILD.layers_of("hcal")) == 48
    assert ILD_ECAL.n_layers == 30
    assert BOX_30.n_cells == 30**3
    assert [CALOCHALLENGE_1_PHOTONS.n_cells, CALOCHALLENGE_1_PIONS.n_cells] == [368, 533]
    assert [CALOCHALLENGE_2.n_cells, CALOCHALLENGE_3.n_cells] == [6480, 40500]
    # The sensors of the published geometry begin at 1811.34 mm, 7.3 mm behind the front face.
    assert ILD_ECAL.z_mm[0] == pytest.approx(1811.340 + 0.2625 - 1804.0, abs=1e-3)


@pytest.mark.parametrize("name", list(CATALOG))
def test_descriptions_round_trip(name: str) -> None:
    assert Detector.from_dict(CATALOG[name].to_dict()) == CATALOG[name]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("binning_dataset_1_photons.xml", CALOCHALLENGE_1_PHOTONS),
        ("binning_dataset_1_pions.xml", CALOCHALLENGE_1_PIONS),
        ("binning_dataset_2.xml", CALOCHALLENGE_2),
        ("binning_dataset_3.xml", CALOCHALLENGE_3),
    ],
)
def test_the_challenges_own_binning_is_the_catalogs(shared: Path, file: str, expected: Detector) -> None:
    assert from_calochallenge_xml(shared / "calochallenge" / file) == expected


TOML = """
name = "mine"
[[cells]]
kind = "cartesian"
pitch_mm = 10.0
half_width_mm = 100.0
[[layers]]
z_mm = 5.0
thickness_mm = 1.0
section = "ecal"
cells = 0
threshold_gev = 1e-4
[[layers]]
z_mm = 15.0
thickness_mm = 1.0
cells = 0
"""


def test_a_users_detector_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    mine = detector(path)
    assert mine.n_layers == 2
    assert mine.n_cells == 2 * 20 * 20
    assert mine == Detector.from_dict(tomllib.loads(TOML))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml [", "not TOML"),
        ("name = 'x'", "layers"),
        (TOML.replace("z_mm = 15.0", "z_mm = 1.0"), "increase"),
        (TOML.replace("cells = 0", "cells = 7"), "description"),
        (TOML.replace("pitch_mm = 10.0", "pitch_mm = -1.0"), "positive"),
        (TOML.replace('"cartesian"', '"hexagonal"'), "unknown"),
    ],
)
def test_bad_descriptions_are_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        detector(path)
    assert "\n" not in str(error.value)


def test_unknown_detectors_and_hostile_xml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown detector 'atlas'"):
        detector("atlas")
    with pytest.raises(ValueError, match="does not exist"):
        detector(tmp_path / "none.toml")
    bomb = tmp_path / "bomb.xml"
    bomb.write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]><Bins><Bin><Layer id="0">&a;</Layer></Bin></Bins>')
    with pytest.raises(ValueError, match="not accepted"):
        detector(bomb)
