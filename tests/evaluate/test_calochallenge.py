"""The CaloChallenge protocol on voxels: what it must see, what it must not see, streams, and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

import calogen
from calogen import Incident, Voxels
from calogen.detector.catalog import CALOCHALLENGE_1_PHOTONS as DS1
from calogen.detector.catalog import CALOCHALLENGE_2
from calogen.evaluate import voxel_sample
from calogen.evaluate.calochallenge import judge_observed, judge_voxels, observe_voxels, separation_findings
from calogen.evaluate.challenge_distances import correlation_findings
from calogen.evaluate.published import compare
from calogen.evaluate.voxel_hits import cut
from calogen.evaluate.voxel_sample import VoxelPair

N = 600
LAYER_SHARES = np.array([0.03, 0.2, 0.7, 0.06, 0.01])


def toy(n: int, seed: int, incident: Incident | None = None) -> Voxels:
    """Photons in data set 1: layers that share the energy, cells that fall off with the radius."""
    rng = np.random.default_rng([seed, 7])
    incident = incident or Incident.gun(n, pdg=22, energy=(1, 100), spectrum="log", seed=seed)
    depth = rng.normal(0, 0.3, n)
    layers = LAYER_SHARES * np.exp(np.outer(depth, [-1, -0.7, 0, 0.7, 1]) + rng.normal(0, 0.1, (n, 5)))
    layers *= (incident.energy * rng.normal(0.97, 0.03, n) / layers.sum(axis=1))[:, None]
    energy = np.zeros((n, DS1.n_cells))
    for i, layer in enumerate(DS1.layers):
        radius = np.hypot(*layer.cells.centre(np.arange(layer.cells.n_cells)))
        cells = np.exp(-radius / 30) * rng.lognormal(0, 1, (n, radius.size))
        energy[:, DS1.first_cell[i] : DS1.first_cell[i + 1]] = layers[:, [i]] * cells / cells.sum(axis=1)[:, None]
    return Voxels(energy, incident, DS1)


def changed(voxels: Voxels, energy: np.ndarray) -> Voxels:
    return Voxels(energy, voxels.incident, voxels.detector)


def scores(generated: Voxels, truth: Voxels, seed: int = 0, replicas: int = 100):
    """Separation powers and correlations by name: what takes a second."""
    pair = VoxelPair.of(observe_voxels(generated), observe_voxels(truth), seed=seed, replicas=replicas)
    found = (separation_findings(pair), correlation_findings(pair))
    return {(s.observable, s.metric): s for f in found for s in f.scores}, found


@pytest.fixture(scope="module")
def truth() -> Voxels:
    return toy(N, 1)


@pytest.fixture(scope="module")
def other() -> Voxels:
    return toy(N, 2)


@pytest.fixture(scope="module")
def judged(truth, other):
    return scores(other, truth)


def test_every_published_group_has_a_score(judged):
    names = {name for name, metric in judged[0] if metric == "separation"}
    centres = {f"{kind}_{axis}" for kind in ("centre", "width") for axis in "xyr"}
    assert names == {"energy_ratio", "layer_energy", "voxel_energy", "sparsity"} | centres
    assert ("layer_energy", "pearson") in judged[0]


def test_figures_hold_the_worst_histogram_every_layer_and_the_means(judged):
    curves = {c.name: c for c in judged[1][0].curves}
    assert curves["centre_x_separation"].x.tolist() == [1, 2]
    assert curves["layer_energy_separation"].x.size == 5
    worst = curves["layer_energy_histogram"]
    assert worst.binned
    assert worst.series[0].label == "Geant4"
    assert worst.series[0].y.sum() == pytest.approx(1)
    means = curves["layer_energy_mean"].series
    assert means[0].y == pytest.approx(means[1].y, rel=0.3)
    assert {m.name for m in judged[1][1].matrices} == {
        f"layer_energy_{k}" for k in ("truth", "generated", "difference")
    }
    json.dumps([f.to_dict() for f in judged[1]], allow_nan=False)


def test_samples_of_one_distribution_are_indistinguishable():
    told = []
    for seed in range(3):
        first, second = toy(300, 20 + seed), toy(300, 40 + seed)
        told += [s.indistinguishable for s in scores(first, second, seed, 80)[0].values()]
    assert np.mean(told) >= 0.93


def test_showers_of_the_same_particles_are_indistinguishable(truth):
    found, _ = scores(toy(N, 3, truth.incident), truth)
    assert np.mean([s.indistinguishable for s in found.values()]) >= 0.9
    assert max(s.significance for s in found.values()) < 3.5


def test_a_scaled_layer_moves_energies_not_shapes(truth, other):
    energy = other.energy.copy()
    energy[:, DS1.first_cell[1] : DS1.first_cell[2]] *= 2
    found, _ = scores(changed(other, energy), truth)
    assert not found["layer_energy", "separation"].indistinguishable
    assert not found["energy_ratio", "separation"].indistinguishable
    for name in ("centre_x", "centre_y", "width_r"):
        assert found[name, "separation"].significance < 3


def test_a_wider_shower_moves_widths_not_energies(truth, other):
    """The middle of one layer exchanged with its rim, its energy kept."""
    energy = other.energy.copy()
    strip = slice(DS1.first_cell[1], DS1.first_cell[2])
    energy[:, strip] = energy[:, strip].reshape(N, 10, 16)[..., ::-1].reshape(N, -1)
    found, _ = scores(changed(other, energy), truth)
    assert not found["centre_r", "separation"].indistinguishable
    assert found["energy_ratio", "separation"].significance < 3
    assert found["layer_energy", "separation"].significance < 3


def test_layers_of_different_showers_move_the_correlations(truth, other):
    rng = np.random.default_rng(3)
    first = DS1.first_cell
    parts = [other.energy[rng.permutation(N), first[i] : first[i + 1]] for i in range(5)]
    found, _ = scores(changed(other, np.concatenate(parts, axis=1)), truth)
    assert found["layer_energy", "pearson"].significance > 5
    for name in ("layer_energy", "centre_x", "centre_r", "width_x", "sparsity", "voxel_energy"):
        assert found[name, "separation"].significance < 3, name


def test_a_stream_gives_the_numbers_of_the_whole(truth, other):
    whole = observe_voxels(truth)
    stream = observe_voxels(truth[i : i + 70] for i in range(0, N, 70))
    np.testing.assert_array_equal(whole.features.layer_hits, stream.features.layer_hits)
    np.testing.assert_array_equal(whole.spectrum.rows, stream.spectrum.rows)
    assert whole.spectrum.highest_gev == stream.spectrum.highest_gev
    pairs = [VoxelPair.of(observe_voxels(other), s, seed=0, replicas=30) for s in (whole, stream)]
    a, b = (separation_findings(p).scores for p in pairs)
    for first, second in zip(a, b, strict=True):
        assert first.value == pytest.approx(second.value, rel=1e-9)


def test_kept_showers_are_a_uniform_choice(monkeypatch):
    monkeypatch.setattr(voxel_sample, "KEPT_SHOWERS", 40)
    many = toy(400, 5)
    found = observe_voxels((many[i : i + 60] for i in range(0, 400, 60)), seed=1, keep=0)
    assert found.kept.shape == (40, DS1.n_cells)
    assert (np.diff(found.kept_index) > 0).all()
    np.testing.assert_array_equal(found.kept, cut(many.energy, DS1)[found.kept_index])
    assert 120 < found.kept_index.mean() < 280


def test_more_kept_showers_are_other_batches_and_the_same_dense_ones(monkeypatch):
    monkeypatch.setattr(voxel_sample, "KEPT_SHOWERS", 10)
    many = toy(300, 5)
    few, more = (observe_voxels(many, seed=2, keep=n) for n in (30, None))
    assert few.kept_index.size == 30
    assert set(few.kept_index) < set(more.kept_index)
    np.testing.assert_array_equal(more.showers[:], cut(many.energy, DS1))
    np.testing.assert_array_equal(few.kept, more.kept)
    again = observe_voxels((toy(300, 6)[i : i + 7] for i in range(0, 300, 7)), seed=2, keep=30)
    np.testing.assert_array_equal(few.kept_index, again.kept_index)
    with pytest.raises(ValueError, match="keep=-1"):
        observe_voxels(many, keep=-1)


def test_a_large_batch_is_handled_in_portions(monkeypatch, truth):
    whole = observe_voxels(truth)
    monkeypatch.setattr(voxel_sample, "PORTION_VOXELS", 50 * DS1.n_cells + 1)
    parts = observe_voxels(truth)
    np.testing.assert_array_equal(whole.features.layer_hits, parts.features.layer_hits)
    np.testing.assert_array_equal(whole.spectrum.rows, parts.spectrum.rows)


def test_the_whole_judgement_has_distances_and_a_place_in_the_table(truth, other):
    small = [observe_voxels(v[:120]) for v in (other, truth)]
    found = judge_observed(*small, replicas=30)
    assert [f.name for f in found] == ["calochallenge", "layer_correlations", "challenge_distances"]
    assert {s.metric for s in found[2].scores} == {"fpd", "kpd", "precision", "recall", "density", "coverage"}
    line = compare("ds1-photons", found).lines[1]
    assert {"layer_energy", "fpd", "kpd", "coverage", "pearson"} <= set(line.entries)
    assert all(e.rank >= 1 for e in line.entries.values())
    again = judge_observed(*small, replicas=30)
    assert [s for f in again for s in f.scores] == [s for f in found for s in f.scores]


def test_few_showers_have_no_distances(truth, other):
    found = judge_observed(observe_voxels(other[:60]), observe_voxels(truth[:60]), replicas=30)
    assert found[2].scores == ()
    assert "at least 100 showers" in found[2].notes[0]


def test_entries_outside_the_bins_are_reported(truth, other):
    findings = scores(changed(other, other.energy * 3), truth)[1]
    assert any("lie outside the bins" in note for note in findings[0].notes)


def test_geant4_halves_of_data_set_2_are_indistinguishable(shared):
    file = shared / "data" / "electron-par04.h5"
    showers = calogen.read(file, stop=500)
    assert showers.detector == CALOCHALLENGE_2
    found, _ = scores(showers[:250], showers[250:], replicas=80)
    assert np.mean([s.indistinguishable for s in found.values()]) >= 0.9
    assert max(s.significance for s in found.values()) < 3.5


def test_bad_samples_are_refused(truth):
    with pytest.raises(ValueError, match="generated sample is empty"):
        judge_voxels([], truth)
    with pytest.raises(ValueError, match="need at least 20"):
        judge_voxels(truth[:10], truth)
    with pytest.raises(ValueError, match="the truth has no cell above threshold"):
        judge_voxels(truth, changed(truth, truth.energy * 1e-6))
    with pytest.raises(ValueError, match="draw showers for the particles"):
        judge_voxels(Voxels(truth.energy, dataclasses.replace(truth.incident, pdg=np.full(N, 11)), DS1), truth)
    empty = Voxels(np.zeros((30, 6480)), Incident.gun(30, pdg=22), CALOCHALLENGE_2)
    with pytest.raises(ValueError, match="same detector"):
        judge_voxels(empty, truth)
    with pytest.raises(ValueError, match="mixes voxels"):
        observe_voxels([truth, empty], "truth")
