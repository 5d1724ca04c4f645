"""The challenge's classifiers on samples of voxels: what they see, whom they tell apart, what is said otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from calogen import Incident, Voxels
from calogen.detector.catalog import CALOCHALLENGE_1_PHOTONS as DS1
from calogen.detector.geometry import CartesianCells, Detector, PolarCells
from calogen.evaluate import voxel_classifiers
from calogen.evaluate.classifier_settings import PRESETS
from calogen.evaluate.high_level import high_level, low_level_features, low_level_normalised
from calogen.evaluate.published import compare
from calogen.evaluate.voxel_classifiers import VoxelClassifiers, competition
from calogen.evaluate.voxel_features import low_level, tail_observables
from calogen.evaluate.voxel_features import low_level_normalised as low_level_normalised_rows
from calogen.evaluate.voxel_hits import cut
from calogen.evaluate.voxel_sample import VoxelPair, VoxelSample, observe_voxels

POLAR = Detector("rings", tuple(replace(layer, cells=PolarCells((0.0, 10.0, 30.0, 80.0), 6)) for layer in DS1.layers))
CARTESIAN = Detector(
    "square", tuple(replace(layer, cells=CartesianCells(10.0, -25.0, -25.0, 5, 5)) for layer in DS1.layers)
)


def toy(detector: Detector, n: int, seed: int, *, incident: Incident | None = None, scale: float = 1.0) -> Voxels:
    """Showers whose energy falls off with the radius; `scale` of layer 2."""
    rng = np.random.default_rng([seed, 3])
    incident = incident or Incident.gun(n, pdg=22, energy=(10, 100), spectrum="log", seed=seed)
    energy = np.zeros((n, detector.n_cells))
    for i, layer in enumerate(detector.layers):
        radius = np.hypot(*layer.cells.centre(np.arange(layer.cells.n_cells)))
        cells = np.exp(-radius / 20) * rng.lognormal(0, 1, (n, radius.size)) * (rng.random((n, radius.size)) < 0.5)
        part = rng.normal(0.2, 0.02, n) * incident.energy / (cells.sum(axis=1) + 1e-9)
        energy[:, detector.first_cell[i] : detector.first_cell[i + 1]] = cells * part[:, None]
    energy[:, detector.first_cell[2] : detector.first_cell[3]] *= scale
    return Voxels(energy, incident, detector)


def pair_of(generated: Voxels, truth: Voxels, *, keep: int | None = None) -> VoxelPair:
    samples = [observe_voxels(v, seed=5, keep=keep) for v in (generated, truth)]
    return VoxelPair.of(samples[0], samples[1], seed=5, replicas=10)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Networks of a few hundred numbers."""
    quick = replace(PRESETS["fast-low"], hidden=(16,), epochs=15, patience=3, learning_rate=5e-3)
    high = replace(PRESETS["fast-high"], hidden=(16,), epochs=40, patience=5, learning_rate=3e-3)
    tiny = replace(PRESETS["fast-resnet"], planes=(4, 4, 4, 4), epochs=2)
    monkeypatch.setattr("calogen.evaluate.classifier_scores.PERMUTATIONS", 30)
    monkeypatch.setattr(
        voxel_classifiers, "PRESETS", PRESETS | {"fast-low": quick, "fast-high": high, "fast-resnet": tiny}
    )


def test_low_level_rows_are_those_of_dense_voxels():
    voxels = toy(DS1, 40, 1)
    sample = observe_voxels(voxels, keep=None)
    expected = low_level_features(voxels).values
    rows = low_level(sample)
    assert rows.shape == expected.shape
    np.testing.assert_array_equal(rows[:], expected)
    np.testing.assert_array_equal(rows[np.array([3, 7, 8])], expected[[3, 7, 8]])
    hits = Voxels(cut(voxels.energy, DS1), voxels.incident, DS1)
    normalised = low_level_normalised(hits).values
    np.testing.assert_allclose(low_level_normalised_rows(sample)[5:20], normalised[5:20], rtol=1e-6)


def test_low_level_rows_are_of_the_kept_showers(monkeypatch):
    monkeypatch.setattr("calogen.evaluate.voxel_sample.KEPT_SHOWERS", 10)
    voxels = toy(DS1, 60, 1)
    sample = observe_voxels(voxels, seed=3, keep=20)
    np.testing.assert_array_equal(low_level(sample)[:], low_level_features(voxels[sample.kept_index]).values)


def energies(sample: VoxelSample, places: np.ndarray) -> np.ndarray:
    return sample.features.incident_energy[places]


@pytest.mark.parametrize("which", ["low", "high"])
@pytest.mark.parametrize("keep", [50, None])
def test_rows_of_one_incident_particle_stay_together(which, keep, monkeypatch):
    monkeypatch.setattr("calogen.evaluate.voxel_sample.KEPT_SHOWERS", 10)
    monkeypatch.setattr(voxel_classifiers, "FAST_SHOWERS", 40)
    truth = toy(DS1, 300, 1)
    pair = pair_of(toy(DS1, 300, 2, incident=truth.incident), truth, keep=keep)
    rows = VoxelClassifiers(size="fast" if keep else "published")._rows(which, pair)
    a, b = (energies(s, p) for s, p in zip((pair.generated, pair.truth), rows.places, strict=True))
    np.testing.assert_array_equal(a, b)
    assert a.size == {(50, "low"): 50, (50, "high"): 40}.get((keep, which), 300)


def test_pairs_in_another_order_come_first_and_the_rest_have_no_partner(monkeypatch):
    monkeypatch.setattr("calogen.evaluate.voxel_sample.KEPT_SHOWERS", 10)
    truth = toy(DS1, 300, 1)
    pair = pair_of(toy(DS1, 300, 2, incident=truth.incident[np.arange(300)[::-1]]), truth, keep=100)
    places = VoxelClassifiers()._rows("low", pair).places
    a, b = (energies(s, p) for s, p in zip((pair.generated, pair.truth), places, strict=True))
    common = int((a == b).sum())
    assert 10 < common < 80
    np.testing.assert_array_equal(a[:common], b[:common])
    assert not np.isin(a[common:], b).any()


def test_a_scaled_layer_is_recognised_named_and_ranked():
    truth, made = toy(DS1, 400, 1), toy(DS1, 400, 2, scale=1.25)
    parts = VoxelClassifiers(which=("low", "low_normalised", "high"), repeats=1)
    found = parts.findings(pair_of(made, truth, keep=parts.keep))
    names = ["classifier_low", "classifier_low_normalised", "classifier_high"]
    assert [f.name for f in found] == names
    assert [s.observable for f in found for s in f.scores if s.metric == "auc"] == names
    high = found[2]
    assert high.scores[0].value > 0.75
    assert not high.scores[0].indistinguishable
    assert {"classifier_high_weights", "classifier_high_hits_in_layer"} <= {c.name for c in high.curves}
    shifts = high.matrices[0]
    assert "layer 2" in shifts.row_labels[0]
    assert "Sized for a CPU" in high.text
    entries = compare("ds1-photons", found).lines[1].entries
    assert {"auc_low", "auc_high"} <= set(entries)
    assert entries["auc_high"].rank >= 1
    (again,) = replace(parts, which=("high",)).findings(pair_of(made, truth, keep=parts.keep))
    assert again.scores == high.scores


def test_showers_of_one_distribution_are_indistinguishable():
    found = VoxelClassifiers(which=("low", "high"), repeats=1).findings(pair_of(toy(DS1, 300, 2), toy(DS1, 300, 1)))
    assert all(s.significance < 3 for f in found for s in f.scores)


def test_the_resnet_needs_equal_rings():
    found = VoxelClassifiers(which=("resnet",)).findings(pair_of(toy(POLAR, 220, 2), toy(POLAR, 220, 1)))
    assert [s.metric for s in found[0].scores] == ["auc", "jsd"]
    assert "ResNet" in found[0].text
    for detector in (DS1, CARTESIAN):
        samples = toy(detector, 30, 2), toy(detector, 30, 1)
        (left_out,) = VoxelClassifiers(which=("resnet",)).findings(pair_of(*samples))
        assert left_out.scores == ()
        assert "equal polar cells" in left_out.notes[0]


def test_cartesian_voxels_are_judged_against_halves():
    parts = VoxelClassifiers(which=("low",), repeats=1, floor="halves")
    (found,) = parts.findings(pair_of(toy(CARTESIAN, 420, 2, scale=2.0), toy(CARTESIAN, 420, 1)))
    assert found.scores[0].value > 0.8
    assert "halves" in found.text
    (small,) = parts.findings(pair_of(toy(CARTESIAN, 220, 2), toy(CARTESIAN, 220, 1)))
    assert any("too few to be halved" in note for note in small.notes)


def test_too_few_showers_are_a_note():
    (found,) = VoxelClassifiers(which=("high",)).findings(pair_of(toy(DS1, 150, 2), toy(DS1, 250, 1)))
    assert found.scores == ()
    assert "at least 200 showers of each sample; there are 150 generated and 250 true" in found.notes[0]


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="'medium' of the classifiers"):
        VoxelClassifiers("medium")
    with pytest.raises(ValueError, match="choose of low, low_normalised, high, resnet"):
        VoxelClassifiers(which=("cnn",))
    assert VoxelClassifiers("published").keep is None
    assert VoxelClassifiers("fast").keep == voxel_classifiers.FAST_SHOWERS


def test_models_compete_by_their_features():
    truth = observe_voxels(toy(DS1, 420, 1), keep=0)
    models = {"good": toy(DS1, 250, 2), "bad": toy(DS1, 250, 3, scale=1.5)}
    found = competition({k: observe_voxels(v, keep=0) for k, v in models.items()}, truth, repeats=2)
    values = {s.observable: s.value for s in found.scores}
    assert values["good"] > values["bad"]
    few = competition({"good": observe_voxels(toy(DS1, 120, 2))}, truth)
    assert few.scores == ()
    assert "there are 120 and 420" in few.notes[0]
    with pytest.raises(ValueError, match="same detector"):
        competition({"other": observe_voxels(toy(POLAR, 250, 2))}, truth)


def test_observables_of_tails_are_named_with_units():
    f = high_level(toy(DS1, 9, 1))
    values, names, units = tail_observables(f)
    assert values.shape == (9, len(names)) == (9, len(units))
    assert len(set(names)) == len(names) == 2 + 4 * 5 + 4 * 2
    np.testing.assert_allclose(values[:, names.index("energy in layer 3")], f.layer_energy[:, 3], rtol=1e-6)
    np.testing.assert_allclose(values[:, names.index("width in y in layer 2")], f.width_y[:, 2], rtol=1e-6)
