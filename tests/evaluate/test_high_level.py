"""High-level features: parity with the challenge's own code, every kind of detector, streams, and bad input."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen import Incident, Voxels
from calogen.detector.catalog import BOX_30, CALOCHALLENGE_1_PHOTONS, CALOCHALLENGE_1_PIONS, CALOCHALLENGE_2
from calogen.detector.geometry import Detector
from calogen.evaluate.high_level import (
    HighLevel,
    angular_layers,
    classifier_features,
    high_level,
    low_level_features,
    low_level_normalised,
    observe_features,
)

MIXED = Detector("mixed", (*CALOCHALLENGE_1_PHOTONS.layers[:2], dataclasses.replace(BOX_30.layers[3], z_mm=300.0)))


def random_voxels(detector: Detector, n: int = 7, seed: int = 0) -> Voxels:
    """Sparse cells with energies on both sides of the threshold."""
    rng = np.random.default_rng([seed, 5])
    energy = rng.lognormal(np.log(3e-4), 2.5, (n, detector.n_cells)) * (rng.random((n, detector.n_cells)) < 0.3)
    return Voxels(energy, Incident.gun(n, pdg=11, energy=(1, 100), seed=seed), detector)


def parity(shared) -> dict[str, np.ndarray]:
    with np.load(shared / "parity" / "calochallenge_hlf_ds2.npz") as file:
        return dict(file)


@pytest.fixture
def reference(shared):
    return parity(shared)


@pytest.fixture
def showers(reference) -> Voxels:
    mev = np.zeros(reference["shape"])
    mev[reference["idx0"], reference["idx1"]] = reference["val"]
    n = mev.shape[0]
    direction = np.tile([0.0, 0.0, 1.0], (n, 1))
    incident = Incident(reference["E_inc"][:, 0] * 1e-3, direction, np.full(n, 11))
    return Voxels(mev * 1e-3, incident, CALOCHALLENGE_2)


COLUMNS = {
    "centre_x": "EC_eta",
    "centre_y": "EC_phi",
    "centre_r": "EC_r",
    "width_x": "width_eta",
    "width_y": "width_phi",
    "width_r": "width_r",
}


@pytest.mark.parametrize("ours", COLUMNS)
def test_centres_and_widths_are_those_of_the_challenge(showers, reference, ours):
    np.testing.assert_allclose(getattr(high_level(showers), ours), reference[COLUMNS[ours]], rtol=1e-6, atol=2e-6)


def test_energies_and_sparsity_are_those_of_the_challenge(showers, reference):
    f = high_level(showers)
    np.testing.assert_allclose(f.layer_energy * 1e3, reference["E_layers"], rtol=1e-6)
    np.testing.assert_allclose(f.visible_energy * 1e3, reference["E_tot"], rtol=1e-6)
    np.testing.assert_array_equal(f.sparsity, reference["sparsity"])


def test_inputs_of_the_classifiers_are_those_of_the_challenge(showers, reference):
    high = classifier_features(showers)
    assert high.values.shape == (12, 362)
    assert len(set(high.names)) == 362
    np.testing.assert_allclose(high.values, reference["cls_high"][:, :-1], rtol=1e-6, atol=1e-6)
    normalised = low_level_normalised(showers)
    assert normalised.values.shape == (12, 1 + 6480 + 45)
    np.testing.assert_allclose(
        normalised.values[:, -49:], reference["cls_low_normed_tail"][:, :-1], rtol=1e-6, atol=1e-6
    )
    assert low_level_features(showers).values.shape == (12, 6481)


def direct(voxels: Voxels) -> dict[str, np.ndarray]:
    """The definitions, cell by cell."""
    detector = voxels.detector
    result = {name: np.zeros((len(voxels), detector.n_layers)) for name in (*COLUMNS, "layer_energy", "sparsity")}
    for i, layer in enumerate(detector.layers):
        e = voxels.energy[:, detector.first_cell[i] : detector.first_cell[i + 1]].astype(np.float64)
        e[e < np.float32(layer.threshold_gev)] = 0
        result["layer_energy"][:, i] = e.sum(1)
        result["sparsity"][:, i] = 1 - (e > 0).mean(1)
        x, y = layer.cells.centre(np.arange(layer.cells.n_cells))
        for axis, v in {"x": x, "y": y, "r": np.hypot(x, y)}.items():
            if axis == "r" or i in angular_layers(detector):
                centre = (v * e).sum(1) / (e.sum(1) + 1e-19)
                result[f"centre_{axis}"][:, i] = centre
                square = (v * v * e).sum(1) / (e.sum(1) + 1e-19)
                result[f"width_{axis}"][:, i] = np.sqrt(np.maximum(square - centre**2, 0))
    return result


@pytest.mark.parametrize("detector", [CALOCHALLENGE_1_PHOTONS, CALOCHALLENGE_1_PIONS, MIXED], ids=lambda d: d.name)
def test_any_detector_follows_the_definitions(detector):
    voxels = random_voxels(detector)
    f = high_level(voxels)
    for name, expected in direct(voxels).items():
        np.testing.assert_allclose(getattr(f, name), expected, rtol=1e-9, atol=1e-4 if "width" in name else 1e-9)


def test_whole_rings_have_no_centre_in_x_and_y():
    assert angular_layers(CALOCHALLENGE_1_PHOTONS).tolist() == [1, 2]
    f = classifier_features(random_voxels(CALOCHALLENGE_1_PHOTONS))
    assert f.values.shape == (7, 1 + 5 + 4 * 2 + 1 + 3 * 5)
    assert "centre_x_0" not in f.names
    assert "centre_r_0" in f.names


def test_cells_below_threshold_do_not_count():
    voxels = random_voxels(CALOCHALLENGE_2, 3)
    low = np.where(voxels.energy < np.float32(CALOCHALLENGE_2.threshold_gev[0]), 0, voxels.energy)
    assert (low != voxels.energy).any()
    cut = Voxels(low, voxels.incident, voxels.detector)
    np.testing.assert_array_equal(high_level(voxels).layer_hits, high_level(cut).layer_hits)
    np.testing.assert_array_equal(high_level(voxels).layer_energy, high_level(cut).layer_energy)
    np.testing.assert_array_equal(low_level_features(voxels).values, low_level_features(cut).values)


def test_a_detector_without_threshold_counts_every_cell_with_energy():
    layers = tuple(dataclasses.replace(layer, threshold_gev=0.0) for layer in MIXED.layers)
    voxels = random_voxels(Detector("bare", layers))
    assert high_level(voxels).layer_hits.sum() == np.count_nonzero(voxels.energy)


def test_an_empty_shower_is_all_zero_and_fully_sparse():
    nothing = Voxels(np.zeros((2, 6480)), Incident.gun(2, pdg=11), CALOCHALLENGE_2)
    f = high_level(nothing)
    assert f.visible_energy.sum() == f.width_r.sum() == f.centre_x.sum() == 0
    assert (f.sparsity == 1).all()
    assert np.isfinite(classifier_features(f).values).all()
    assert np.isfinite(low_level_normalised(nothing).values).all()


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=4), scale=st.floats(1e-2, 1e2))
def test_batches_do_not_matter_and_energies_scale(cuts, scale):
    voxels = random_voxels(dataclasses.replace(MIXED, layers=MIXED.layers[:2]), 40)
    edges = sorted({0, 40, *cuts})
    whole = high_level(voxels)
    parts = observe_features(voxels[a:b] for a, b in pairwise(edges))
    np.testing.assert_array_equal(whole.layer_hits, parts.layer_hits)
    for name in ("layer_energy", "centre_r"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12, atol=1e-12)
    bare = Detector("bare", tuple(dataclasses.replace(layer, threshold_gev=0.0) for layer in MIXED.layers[:2]))
    one = high_level(Voxels(voxels.energy, voxels.incident, bare))
    other = high_level(Voxels(voxels.energy * np.float32(scale), voxels.incident, bare))
    np.testing.assert_allclose(other.layer_energy, one.layer_energy * scale, rtol=1e-5)
    np.testing.assert_allclose(other.centre_r, one.centre_r, rtol=1e-5)


def test_empty_streams_and_mixed_detectors_are_refused():
    with pytest.raises(ValueError, match="empty"):
        observe_features([])
    with pytest.raises(ValueError, match="cannot be joined"):
        observe_features([random_voxels(CALOCHALLENGE_1_PHOTONS), random_voxels(CALOCHALLENGE_1_PIONS)])


def test_rows_can_be_chosen():
    f = high_level(random_voxels(MIXED))
    chosen = f[[4, 1]]
    assert isinstance(chosen, HighLevel)
    assert len(chosen) == 2
    np.testing.assert_array_equal(chosen.layer_hits, f.layer_hits[[4, 1]])
    np.testing.assert_array_equal(chosen.incident.energy, f.incident.energy[[4, 1]])
