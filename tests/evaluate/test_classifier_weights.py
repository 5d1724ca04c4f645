"""Weights of classifiers: likelihood ratios where these are known, and the observable that gives showers away."""

from dataclasses import replace

import numpy as np
import pytest

from calogen.evaluate.classifier import classify_repeats
from calogen.evaluate.classifier_settings import PRESETS
from calogen.evaluate.classifier_tails import Observables, classifier_tails
from calogen.evaluate.classifier_weights import Weights, weight_curve, weights_of
from calogen.evaluate.log_posterior import CONTROL, log_posteriors
from calogen.evaluate.observables import Binning, observe_all
from calogen.evaluate.shower_features import shower_features

QUICK = replace(PRESETS["fast"], hidden=(16,), dropout=0.0, learning_rate=1e-2, epochs=10, patience=3)
LAYERS = 12
NAMES = tuple(f"energy in layer {i}" for i in range(LAYERS))


def layers(n: int, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Energies `[n, LAYERS]` of a gamma profile and incident energies; layers 5 to 7 times `scale` in half of them."""
    rng = np.random.default_rng([seed, 6])
    incident = np.exp(rng.uniform(0, np.log(100), n))
    profile = np.exp(-0.5 * ((np.arange(LAYERS) - 5) / 2.5) ** 2)
    energy = incident[:, None] * profile * rng.gamma(20, 1 / 20, (n, LAYERS))
    energy[: n // 2, 5:8] *= scale
    return energy, incident


def test_weights_are_the_likelihood_ratio():
    """Of Gaussians half a standard deviation apart: ln w = shift²/2 - shift x."""
    rng = np.random.default_rng(1)
    generated, truth = rng.normal(0.5, size=(5000, 1)), rng.normal(size=(5000, 1))
    weights = weights_of(classify_repeats(generated, truth, QUICK, repeats=2, seed=1))
    known = np.isfinite(weights.generated)
    assert known.sum() == 2000
    expected = 0.125 - 0.5 * generated[known, 0]
    assert np.abs(weights.generated[known] - expected).mean() < 0.15
    assert np.corrcoef(weights.generated[known], expected)[0, 1] > 0.9
    w = np.exp(weights.generated[known])
    assert w.mean() == pytest.approx(1, abs=0.06)
    assert (w * generated[known, 0]).mean() / w.mean() == pytest.approx(0, abs=0.2)  # 0.5 before


def test_curve_of_weights_holds_all_showers():
    rng = np.random.default_rng(2)
    curve = weight_curve(Weights(rng.normal(-0.3, 0.5, 500), np.append(rng.normal(0.3, 0.5, 400), np.nan)))
    assert [s.y.sum() for s in curve.series] == pytest.approx([1, 1])
    assert curve.x[0] * curve.x[-1] == pytest.approx(1)


@pytest.fixture(scope="module")
def weakened():
    """Findings about a model that has a fifth less energy in layers 5 to 7 of half its showers."""
    (generated, e_generated), (truth, e_truth) = layers(2500, 3, scale=0.8), layers(2500, 4)
    shares = [np.hstack([x / e[:, None], np.log(e)[:, None]]) for x, e in ((generated, e_generated), (truth, e_truth))]
    weights = weights_of(classify_repeats(shares[0], shares[1], QUICK, repeats=2, seed=5))
    return classifier_tails(weights, Observables(generated, truth, NAMES, ("GeV",) * LAYERS, e_generated, e_truth))


def test_the_weakened_layers_are_named(weakened):
    first = weakened.notes[1]
    assert "% less energy in layers 5 to 7 than Geant4 at the same incident energy" in first
    percent = float(first.split(" have ")[1].split(" %")[0])
    assert 18 < percent < 45  # the recognised ones are the lowest of those that lost a fifth
    assert "incident energies of" in weakened.notes[0]
    assert set(weakened.matrices[0].row_labels[:3]) == {"energy in layer 5", "energy in layer 6", "energy in layer 7"}


def test_figures_show_the_weakened_layers(weakened):
    curves = {c.name: c for c in weakened.curves}
    profile = next(s for s in curves["classifier_tails_energy_in_layer"].series if "recognised" in s.label)
    assert (profile.y[5:8] < 0.88).all()
    assert np.abs(profile.y[:4] - 1).max() < 0.1
    assert {"Energy in layer 5", "Energy in layer 6", "Energy in layer 7"} <= {c.title for c in weakened.curves}
    assert weakened.to_dict()["curves"][0]["log_x"]


def test_nothing_is_said_about_equal_samples():
    (generated, e_generated), (truth, e_truth) = layers(1500, 6), layers(1500, 7)
    weights = weights_of(classify_repeats(generated, truth, QUICK, repeats=2, seed=5))
    notes = classifier_tails(weights, Observables(generated, truth, NAMES, None, e_generated, e_truth)).notes
    assert sum("no more than chance" in n for n in notes) == 2
    assert not any("layers" in n for n in notes)


def test_a_tail_of_low_energies_is_no_shift():
    """Weights that select incident energies alone: nothing is shifted at the same energy."""
    (generated, e_generated), (truth, e_truth) = layers(4000, 8), layers(4000, 9)
    weights = Weights(np.log(e_generated), np.log(e_truth) + 1)
    with_energy = classifier_tails(weights, Observables(generated, truth, NAMES, None, e_generated, e_truth))
    without = classifier_tails(weights, Observables(generated, truth, NAMES))
    assert np.abs(with_energy.matrices[0].values).max() < 0.3
    assert np.abs(without.matrices[0].values).max() > 0.5


def test_shapes_that_do_not_match_are_refused():
    weights = Weights(np.zeros(10), np.zeros(10))
    with pytest.raises(ValueError, match="generated: observables of shape"):
        classifier_tails(weights, Observables(np.zeros((9, 1)), np.zeros((10, 1)), ("a",)))
    with pytest.raises(ValueError, match="truth: 10 showers have observables that are NaN"):
        classifier_tails(weights, Observables(np.zeros((10, 1)), np.full((10, 1), np.nan), ("a",)))
    with pytest.raises(ValueError, match="for both or for none"):
        classifier_tails(weights, Observables(np.zeros((10, 1)), np.zeros((10, 1)), ("a",), None, np.ones(10)))


# ---- features of showers ----


def test_features_of_showers_are_the_published_ones(toy):
    observed = observe_all([toy], Binning.of(toy.detector), toy.detector)
    values, names = shower_features(observed)
    assert values.shape == (len(toy), 25)
    assert len(set(names)) == 25
    assert "energy in layers 0 to 7" in names
    layers_of = [i for i, n in enumerate(names) if "layer" in n]
    rings_of = [i for i, n in enumerate(names) if "ring" in n]
    assert len(layers_of) == len(rings_of) == 10
    assert values[:, layers_of].sum(axis=1) == pytest.approx(observed.visible_energy, rel=1e-4)
    assert values[:, rings_of].sum(axis=1) == pytest.approx(observed.visible_energy, rel=1e-4)
    five, names = shower_features(observed, "calohadronic")
    assert five.shape == (len(toy), 5)
    assert np.array_equal(five[:, 0], observed.hits)
    everything, names = shower_features(observed, "all")
    assert everything.shape[1] == len(names) == 8 + 60 + 2 * (observed.energy_per_radius.shape[1] - 2)
    with pytest.raises(ValueError, match="choose caloclouds2"):
        shower_features(observed, "caloclouds3")


# ---- several models ----


def test_the_closest_of_three_models_has_the_highest_posterior():
    rng = np.random.default_rng(10)
    truth = rng.normal(size=(2000, 2))
    models = {
        name: rng.normal([shift, 0], size=(1000, 2)) for name, shift in (("near", 0.3), ("far", 1.5), ("mid", 0.8))
    }
    findings = log_posteriors(models, truth, QUICK, repeats=1, seed=1)
    near, far, mid = (s.value for s in findings.scores)
    assert near > mid > far
    assert all(s.value < s.floor for s in findings.scores)
    assert findings.scores[1].significance > 5
    assert findings.matrices[0].values.sum(axis=1) == pytest.approx(1)
    assert findings.matrices[0].column_labels[-1] == CONTROL


def test_equal_models_share_the_posterior():
    rng = np.random.default_rng(11)
    models = {name: rng.normal(size=(600, 2)) for name in "ab"}
    findings = log_posteriors(models, rng.normal(size=(1200, 2)), QUICK, repeats=3, seed=2)
    assert [s.value for s in findings.scores] == pytest.approx([-np.log(3)] * 2, abs=0.1)
    assert all(s.indistinguishable for s in findings.scores)
    alone = log_posteriors(models, rng.normal(size=(400, 2)), replace(QUICK, epochs=2), control=False, repeats=1)
    assert [s.value for s in alone.scores] == pytest.approx([-np.log(2)] * 2, abs=0.1)
    assert not any(np.isfinite(s.floor) or s.indistinguishable for s in alone.scores)
