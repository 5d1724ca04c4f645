"""Separation powers: parity with the challenge's code, its limits, errors and floors; histograms and the spectrum."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen import BOX_30, Incident, Voxels
from calogen.detector.catalog import CALOCHALLENGE_1_PHOTONS, CALOCHALLENGE_2, CALOCHALLENGE_3
from calogen.detector.geometry import Detector
from calogen.evaluate.challenge_histograms import (
    DATASETS,
    GROUPS,
    block_counts,
    dataset_of,
    feature_edges,
    feature_histograms,
)
from calogen.evaluate.high_level import high_level
from calogen.evaluate.metrics import Resampling
from calogen.evaluate.separation import separation, separation_power
from calogen.evaluate.spectrum import VoxelSpectrum, lowest_edge


def voxels_of(detector: Detector, n: int, seed: int, scale: float = 1.0) -> Voxels:
    rng = np.random.default_rng([seed, 6])
    energy = scale * rng.lognormal(np.log(3e-4), 2.0, (n, detector.n_cells))
    energy *= rng.random(energy.shape) < 0.1
    incident = Incident.gun(n, pdg=11, energy=(1, 100), seed=seed)
    return Voxels(energy * incident.energy[:, None] / 50, incident, detector)


def test_separation_power_is_that_of_the_challenge(shared):
    with np.load(shared / "parity" / "calochallenge_hlf_ds2.npz") as file:
        reference = dict(file)
    block = np.zeros(reference["sep_a"].size, dtype=np.int64)
    edges = reference["sep_bins"][None]
    counts = [block_counts(reference[name][:, None], edges, block, 1)[0, 0] for name in ("sep_a", "sep_b")]
    assert separation_power(*counts) == pytest.approx(float(reference["sep_power"]), rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=20), st.integers(1, 9))
def test_separation_power_is_a_symmetric_share(pairs, factor):
    p, q = np.array(pairs, dtype=float).T
    power = float(separation_power(p, q))
    assert 0 <= power <= 1 + 1e-9
    assert separation_power(q, p) == pytest.approx(power)
    assert separation_power(p * factor, q) == pytest.approx(power)
    assert separation_power(p, p * factor) == pytest.approx(0, abs=1e-12)


def test_nothing_in_common_is_one_and_nothing_at_all_is_zero():
    assert separation_power(np.array([3.0, 0.0]), np.array([0.0, 9.0])) == pytest.approx(1)
    assert separation_power(np.zeros(3), np.ones(3)) == 1
    assert separation_power(np.zeros(3), np.zeros(3)) == 0


def drawn(rng, n: int, shift: float = 0.0) -> np.ndarray:
    """Counts `[blocks, layers, bins]` of n normal numbers in each of three layers, in 100 blocks."""
    edges = np.tile(np.linspace(-4, 4, 101), (3, 1))
    return block_counts(rng.normal(shift, 1, (n, 3)), edges, np.arange(n) % 100, 100)


@pytest.mark.parametrize("blocks", [(100, 100), (100, 25)], ids=["equal", "unequal"])
def test_floor_and_error_are_those_of_repeated_samples(blocks):
    """Sparse bins, both samples equal in size or not: blocks of 20 and of 5 showers."""
    rng = np.random.default_rng(1)
    n, m = (20 * b for b in blocks)
    resampling = Resampling(n, m, False, 80, 0)
    found = [separation(drawn(rng, n), drawn(rng, m), resampling) for _ in range(60)]
    values = np.array([f.mean.value[0] for f in found])
    assert np.mean([f.mean.floor[0] for f in found]) == pytest.approx(values.mean(), rel=0.07)
    assert np.mean([f.mean.floor_error[0] for f in found]) == pytest.approx(values.std(), rel=0.4)
    significances = np.array([(f.layers.value - f.layers.floor) / f.layers.error for f in found])
    assert (significances <= 2).mean() >= 0.93


def test_samples_of_the_same_particles_have_a_lower_floor():
    rng = np.random.default_rng(4)
    hidden = np.sort(rng.normal(0, 1, (2000, 1)), axis=0)
    edges = np.linspace(-3, 3, 31)[None]
    block = np.arange(2000) % 100
    first, second = (block_counts(hidden + rng.normal(0, 0.02, (2000, 1)), edges, block, 100) for _ in range(2))
    paired, free = (separation(first, second, Resampling(2000, 2000, same, 100, 0)) for same in (True, False))
    assert paired.mean.floor[0] < 0.6 * free.mean.floor[0]
    assert abs(paired.mean.value[0] - paired.mean.floor[0]) < 3 * paired.mean.error[0]
    same = separation(first, first, Resampling(2000, 2000, True, 20, 0)).mean
    assert same.value[0] == same.floor[0] == 0


def test_a_shift_is_seen_in_the_mean_and_in_its_layer():
    rng = np.random.default_rng(2)
    moved = drawn(rng, 2000)
    moved[:, 1] = drawn(rng, 2000, shift=0.5)[:, 1]
    found = separation(moved, drawn(rng, 2000), Resampling(2000, 2000, False, 200, 0))
    significance = (found.layers.value - found.layers.floor) / found.layers.error
    assert significance[1] > 5
    assert np.abs(significance[[0, 2]]).max() < 3
    assert (found.mean.value - found.mean.floor) / found.mean.error > 4


def test_histograms_are_numpys_and_leave_out_what_is_outside():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, (500, 2)), [[0.0, -2.0], [2.0, 2.0], [np.nextafter(2, 3), 0.1]]])
    edges = np.tile(np.linspace(-2, 2, 21), (2, 1))
    counts = block_counts(values, edges, np.arange(503) % 7, 7)
    for layer in range(2):
        expected = np.histogram(values[:, layer], edges[layer])[0]
        np.testing.assert_array_equal(counts[:, layer].sum(axis=0), expected)
    assert counts.sum() < values.size


def test_bins_are_those_of_the_challenge():
    f = high_level(voxels_of(CALOCHALLENGE_2, 30, 1))
    expected = {
        "energy_ratio": np.linspace(0.5, 1.5, 101),
        "layer_energy": np.geomspace(0.5e-6 / 0.033, f.layer_energy[:, 0].max(), 40),
        "centre_x": np.linspace(-30, 30, 101),
        "centre_y": np.linspace(-30, 30, 101),
        "width_x": np.linspace(0, 30, 101),
        "width_y": np.linspace(0, 30, 101),
        "centre_r": np.linspace(0, 42, 101),
        "width_r": np.linspace(0, 20, 101),
        "sparsity": np.linspace(0, 1, 21),
    }
    assert {g.name for g in GROUPS} == set(expected)
    for name, edges in expected.items():
        np.testing.assert_allclose(feature_edges(name, f)[2][0], edges, rtol=1e-7)


def test_the_largest_layer_energy_of_the_truth_is_in_the_last_bin():
    f = high_level(voxels_of(CALOCHALLENGE_2, 40, 2))
    blocks = (np.arange(40) % 4,) * 2
    group = next(g for g in GROUPS if g.name == "layer_energy")
    h = feature_histograms(group, f, f, blocks, 4)
    assert h.truth.sum() == np.count_nonzero(f.layer_energy)
    assert h.dropped == (0, 0)


def test_other_detectors_get_bins_from_the_truth():
    deep = Detector("deep", tuple(dataclasses.replace(layer, threshold_gev=0.0) for layer in BOX_30.layers[:3]))
    f = high_level(voxels_of(deep, 50, 3))
    blocks = (np.arange(50) % 10,) * 2
    assert dataset_of(deep) is None
    for group in GROUPS:
        h = feature_histograms(group, f, f, blocks, 10)
        assert max(h.dropped) < 0.1, group.name
        assert (np.diff(h.edges, axis=1) > 0).all()


def test_layers_without_energy_are_left_out():
    voxels = voxels_of(CALOCHALLENGE_1_PHOTONS, 40, 4)
    energy = voxels.energy.copy()
    energy[:, CALOCHALLENGE_1_PHOTONS.first_cell[3] : CALOCHALLENGE_1_PHOTONS.first_cell[4]] = 0
    f = high_level(Voxels(energy, voxels.incident, voxels.detector))
    group = next(g for g in GROUPS if g.name == "centre_r")
    h = feature_histograms(group, f, f, (np.arange(40) % 4,) * 2, 4)
    assert h.layers == (0, 1, 2, 4)
    assert h.left_out == (3,)


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_are_known_by_their_cells(name):
    detector = DATASETS[name]
    assert dataset_of(dataclasses.replace(detector, name="mine")) == name
    assert dataset_of(Detector("cut", detector.layers[:-1])) is None


# ---- the spectrum of voxels ----


def spectrum_of(voxels: Voxels, step: int, **options) -> VoxelSpectrum:
    spectrum = VoxelSpectrum(voxels.detector, **options)
    for start in range(0, len(voxels), step):
        spectrum.add(voxels[start : start + step])
    return spectrum


@pytest.mark.parametrize("kept", [1 << 24, 2000], ids=["kept", "counted"])
def test_spectrum_is_numpys_histogram(kept):
    voxels = voxels_of(CALOCHALLENGE_2, 60, 5)
    spectrum = spectrum_of(voxels, 17, kept_values=kept)
    hit = voxels.energy[voxels.energy >= np.float32(spectrum.lowest_gev)].astype(np.float64)
    edges = np.geomspace(spectrum.lowest_gev, hit.max(), 50)
    expected = np.histogram(hit, edges)[0]
    counts = spectrum.counts(edges)
    assert spectrum.highest_gev == hit.max()
    assert spectrum.n_voxels == hit.size == counts.sum()
    # Counted, an energy within 8e-6 of an edge may fall on its other side.
    np.testing.assert_allclose(counts, expected, atol=0 if kept > hit.size else 2)


def test_spectrum_in_blocks_adds_up_and_follows_the_whole():
    voxels = voxels_of(CALOCHALLENGE_2, 60, 6)
    spectrum = spectrum_of(voxels, 60)
    edges = np.geomspace(spectrum.lowest_gev, spectrum.highest_gev, 50)
    blocks = spectrum.block_counts(edges, np.arange(60) % 6, 6)
    assert blocks.sum() == pytest.approx(spectrum.n_voxels)
    whole = spectrum.counts(edges)
    many = whole > 300
    np.testing.assert_allclose(blocks.sum(axis=0)[many], whole[many], rtol=0.05)
    hits = np.bincount(np.arange(60) % 6, high_level(voxels).hits)
    np.testing.assert_allclose(blocks.sum(axis=1), hits)


def test_spectrum_obeys_the_threshold_of_each_layer():
    layers = tuple(dataclasses.replace(part, threshold_gev=1e-3 * (i + 1)) for i, part in enumerate(BOX_30.layers[:2]))
    voxels = voxels_of(Detector("two", layers), 30, 7)
    spectrum = spectrum_of(voxels, 30)
    assert spectrum.lowest_gev == lowest_edge(1e-3)
    assert spectrum.n_voxels == high_level(voxels).hits.sum()


def test_a_voxel_beyond_any_shower_is_refused():
    voxels = voxels_of(CALOCHALLENGE_1_PHOTONS, 3, 8, scale=1e12)
    with pytest.raises(ValueError, match="check its energy unit"):
        VoxelSpectrum(voxels.detector).add(voxels)


def test_large_data_sets_count_into_small_rows():
    spectrum = spectrum_of(voxels_of(CALOCHALLENGE_3, 2, 9), 1)
    assert spectrum.rows.dtype == np.uint16
    assert spectrum.rows.sum() == spectrum.n_voxels
