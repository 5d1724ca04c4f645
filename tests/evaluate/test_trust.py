"""Can the judge tell? Geant4 photons with known damages: the right scores move, and no wrong one does.

A damaged sample is judged twice. Against the very showers it was made of, nothing but the damage differs: a score that
it cannot touch is exactly zero. Against other Geant4 showers, as a model is, what it moves must stand out of chance.
"""

import dataclasses

import numpy as np
import pytest

from calogen import Showers
from calogen.data.formats import read
from calogen.data.projection import project
from calogen.evaluate.metrics import Score
from calogen.evaluate.points import judge_points

N = 700
LAYER = 12
SHOWERS_SHUFFLED = 25
"""Showers of neighbouring incident energies, 3 GeV apart at most, that exchange layers."""

Key = tuple[str, str]


@pytest.fixture(scope="module")
def samples(shared) -> tuple[Showers, Showers]:
    """Truth and model: cells above threshold of Geant4 photons of 10 to 100 GeV, not of the same particles."""
    hits = project(read(shared / "data" / "photon-perp.h5", stop=2 * N)).showers
    order = np.random.default_rng(1).permutation(2 * N)
    return hits[np.sort(order[:N])], hits[np.sort(order[N:])]


def judged(generated: Showers, truth: Showers, parts: tuple[str, ...] = ()) -> dict[Key, Score]:
    """Scores of the table, and of parts, by observable and metric."""
    evaluation, findings = judge_points(generated, truth, parts=parts, replicas=40, keep=0, seed=1)
    rows = [s for r in evaluation.scores for s in (r.jsd, r.wasserstein)]
    return {(s.observable, s.metric): s for s in (*rows, *(s for f in findings for s in f.scores))}


def regrouped(s: Showers, shower: np.ndarray, kept: np.ndarray | None = None) -> Showers:
    """The same cells, or those kept, in other showers."""
    order = np.argsort(shower, kind="stable")
    order = order if kept is None else order[kept[order]]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(shower[order], minlength=len(s)))])
    return Showers(s.x[order], s.y[order], s.layer[order], s.energy[order], offsets, s.incident, s.detector)


def layer_scaled(s: Showers) -> Showers:
    return dataclasses.replace(s, energy=np.where(s.layer == LAYER, 1.02 * s.energy, s.energy).astype(np.float32))


def energies_scaled(s: Showers) -> Showers:
    return dataclasses.replace(s, energy=1.01 * s.energy)


def hits_dropped(s: Showers) -> Showers:
    return regrouped(s, s.shower_index, np.random.default_rng(2).random(s.n_points) > 0.05)


def layers_shuffled(s: Showers) -> Showers:
    """Every layer from another shower of nearly the same energy."""
    rng = np.random.default_rng(3)
    order = np.argsort(s.incident.energy)
    groups = [order[i : i + SHOWERS_SHUFFLED] for i in range(0, len(s), SHOWERS_SHUFFLED)]
    goes_to = np.empty((s.detector.n_layers, len(s)), dtype=np.int64)
    for of_layer in goes_to:
        for group in groups:
            of_layer[group] = rng.permutation(group)
    return regrouped(s, goes_to[s.layer, s.shower_index])


def duplicated(s: Showers) -> Showers:
    return s[np.repeat(np.arange(0, len(s), 2), 2)]


@pytest.fixture(scope="module")
def undamaged(samples) -> dict[Key, Score]:
    truth, model = samples
    return judged(model, truth, ("response", "correlations", "distances", "copies"))


def moves(damaged: dict[Key, Score], undamaged: dict[Key, Score]) -> dict[Key, float]:
    """How far each score moved, in units of its error."""
    return {k: (s.value - undamaged[k].value) / s.error for k, s in damaged.items() if s.error > 0}


HITS = ("hits", "hits_per_layer", "hits_per_radius")


def test_a_layer_scaled_by_two_percent(samples):
    """Energies per layer and of cells move, hits and the layer's correlations do not.

    The profile's divergence moves by 0.05 x 0.02^2 / 8 = 3e-6, its chance scatter between 700 and 700 independent
    showers is 4e-5: against other showers than its own it takes some 40,000 for 3 sigma.
    """
    truth, _ = samples
    found = judged(layer_scaled(truth), truth, ("correlations",))
    for key in (("energy_per_layer", "jsd"), ("energy_per_layer", "wasserstein"), ("cell_energy", "wasserstein")):
        assert found[key].significance > 3, key
    share = float(truth.energy[truth.layer == LAYER].sum() / truth.energy.sum())
    assert found["energy_per_layer", "jsd"].value == pytest.approx(share * (1 - share) * 0.02**2 / 8, rel=0.03)
    for name in HITS:
        assert found[name, "jsd"].value == found[name, "wasserstein"].value == 0
    assert found["layers", "pearson"].value < 1e-6
    for name in ("cog_x", "cog_y"):
        assert found[name, "wasserstein"].significance < 3


def test_energies_scaled_by_one_percent(samples, undamaged):
    """Energies and the response move; no direction, profile or correlation does."""
    truth, model = samples
    same = judged(energies_scaled(truth), truth, ("response", "correlations"))
    assert same["visible_energy", "wasserstein"].significance > 3
    for name in (*HITS, "cog_x", "cog_y", "cog_z", "energy_per_layer", "energy_per_radius"):
        assert same[name, "wasserstein"].value < 1e-5, name
    assert max(same[k, "pearson"].value for k in ("layers", "observables")) < 1e-6
    found = judged(energies_scaled(model), truth, ("response", "correlations"))
    moved = moves(found, undamaged)
    assert moved["cell_energy", "jsd"] > 3
    ratios = [k for k in found if k[0].startswith("mean_")]
    # Each of the seven bins of energy moves by one to two errors, all of them together by over three.
    assert np.sum([moved[k] for k in ratios]) / np.sqrt(len(ratios)) > 3
    for key in ratios:
        assert found[key].value == pytest.approx(1.01 * undamaged[key].value, rel=1e-4)
    for key in (k for k in found if k[0] in (*HITS, "cog_x", "cog_y", "cog_z") or k[1] == "pearson"):
        assert abs(moved[key]) < 0.05, key
    for key in (k for k in found if k[0].startswith("resolution_")):
        assert abs(moved[key]) < 0.05, key


def test_five_percent_of_hits_dropped(samples, undamaged):
    """Hits and energies move; shares per layer and radius and centres of gravity only by chance."""
    truth, model = samples
    same = judged(hits_dropped(truth), truth)
    for name in ("hits", "visible_energy"):
        assert same[name, "wasserstein"].significance > 3
    for name in ("cog_x", "cog_y", "cog_z", "hits_per_layer", "energy_per_layer"):
        assert same[name, "jsd"].significance < 3, name
    found = judged(hits_dropped(model), truth, ("response",))
    moved = moves(found, undamaged)
    ratios = [k for k in found if k[0].startswith("mean_")]
    assert np.sum([moved[k] for k in ratios]) / np.sqrt(len(ratios)) < -3
    assert np.mean([found[k].value / undamaged[k].value for k in ratios]) == pytest.approx(0.95, abs=0.003)
    for name in ("cog_x", "cog_y", "cog_z", "hits_per_layer", "hits_per_radius", "energy_per_layer"):
        assert abs(moved[name, "wasserstein"]) < 1, name


def test_layers_shuffled_between_showers(samples, undamaged):
    """Correlations, and whatever sees them, move; no distribution of a layer, a ring or a cell does."""
    truth, model = samples
    found = judged(layers_shuffled(model), truth, ("correlations", "distances"))
    for name in ("cell_energy", "energy_per_layer", "energy_per_radius", "hits_per_layer", "hits_per_radius"):
        for metric in ("jsd", "wasserstein"):
            assert found[name, metric].value == pytest.approx(undamaged[name, metric].value, rel=1e-5), name
    assert found["layers", "pearson"].significance > 3
    assert found["observables", "pearson"].significance > 3
    for metric in ("fpd", "precision", "density"):
        assert found["observables", metric].significance > 3, metric
    # Grouped layers hide most of it from single directions: the sliced distance needs some 1,500 showers for 3 sigma.
    sliced = found["observables", "sliced_wasserstein"]
    assert sliced.value > 1.2 * undamaged["observables", "sliced_wasserstein"].value
    assert found["cog_z", "wasserstein"].significance > 3  # its fluctuations are the layers' together


def test_every_other_shower_twice(samples, undamaged):
    """Repeats and coverage move. The rest is a sample of half the size: within its doubled chance, and its error."""
    truth, model = samples
    found = judged(duplicated(model), truth, ("response", "correlations", "distances", "copies"))
    assert found["copies", "repeats"].value == 1
    assert found["copies", "repeats"].significance > 10
    assert undamaged["copies", "repeats"].indistinguishable
    neighbours = ("precision", "recall", "density", "coverage")
    assert found["observables", "coverage"].significance > 5
    assert undamaged["observables", "coverage"].indistinguishable
    rest = [k for k in found if k[0] != "copies" and k[1] not in neighbours]
    assert np.mean([found[k].significance < 3 for k in rest]) > 0.95
    assert max(found[k].significance for k in rest) < 5
