"""Classifiers against distributions whose best classifier is known on paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from calogen.evaluate.calibration import calibrate
from calogen.evaluate.classifier import auc, classify, classify_repeats, jsd
from calogen.evaluate.classifier_scores import classifier_score, score_repeats
from calogen.evaluate.classifier_settings import PRESETS, ClassifierSettings
from calogen.evaluate.classifier_training import split

QUICK = replace(PRESETS["fast"], hidden=(16,), dropout=0.0, learning_rate=1e-2, epochs=10, patience=3)
LOGITS = arrays(np.float64, st.integers(1, 30), elements=st.integers(-5, 5).map(float))


def gaussians(n: int, m: int, shift: float, seed: int = 0, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Generated (mean `shift` along the first axis) and true rows."""
    rng = np.random.default_rng([seed, 5])
    generated, truth = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    generated[:, 0] += shift
    return generated.astype(np.float32), truth.astype(np.float32)


def test_a_small_difference_of_inputs_that_vary_together_is_seen_after_whitening():
    """Two inputs of deviation 1 whose difference, of deviation 0.01, is shifted by as much: AUC 0.76 on paper."""
    rng = np.random.default_rng(4)
    common = rng.normal(size=(2000, 1)) + np.zeros((1, 20))
    x = (common + 0.01 / np.sqrt(2) * rng.normal(size=common.shape)).astype(np.float32)
    x[:1000, 0] += 0.01
    x = np.hstack([x, np.ones((2000, 1), np.float32)])  # an input without variance must do no harm
    plain, whitened = (classify(x[:1000], x[1000:], replace(QUICK, standardize=s), seed=0) for s in ("all", "whiten"))
    assert whitened.auc > 0.68
    assert whitened.auc > plain.auc + 0.05


def gaussian_jsd(shift: float) -> float:
    x = np.linspace(-10, 10 + shift, 20_001)
    p, q = norm.pdf(x, loc=shift), norm.pdf(x)
    return float(np.trapezoid(p * np.log2(2 * p / (p + q)) + q * np.log2(2 * q / (p + q)), x) / 2)


class Streamed:
    """Rows that are counted as they are read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.most = values, values.shape, 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        assert (np.diff(rows) > 0).all(), "HDF5 reads ascending rows only"
        self.most = max(self.most, len(rows))
        return self.values[rows]


@pytest.fixture(scope="module")
def apart():
    """Trainings on two Gaussians one standard deviation apart, 4,000 against 2,000 showers."""
    return classify_repeats(*gaussians(4000, 2000, 1.0), QUICK, repeats=2, seed=1)


def test_scores_of_two_gaussians_are_the_analytic_ones(apart):
    findings = score_repeats(apart, QUICK)
    area, divergence = findings.scores
    assert area.value == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=4 * area.error)
    assert divergence.value == pytest.approx(gaussian_jsd(1.0), abs=4 * divergence.error)
    assert area.error < 0.02
    assert not area.indistinguishable
    assert not divergence.indistinguishable


def test_calibrated_output_is_a_probability(apart):
    """Among showers of output C the truth has the share C when both classes are equally frequent."""
    p = np.concatenate([c.p_generated for c in apart]), np.concatenate([c.p_truth for c in apart])
    for low, high in ((0.0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.0)):
        generated, truth = (v[(v > low) & (v <= high)] for v in p)
        a, b = generated.size / p[0].size, truth.size / p[1].size
        said = (generated.mean() * a + truth.mean() * b) / (a + b)
        assert b / (a + b) == pytest.approx(said, abs=0.07)


def test_logits_of_unequal_classes_count_them_equally(apart):
    """Before calibration too: the logit of two Gaussians is shift²/2 - shift x, whatever their numbers."""
    generated, truth = gaussians(4000, 2000, 1.0)
    x = np.concatenate([generated[apart[0].generated_rows, 0], truth[apart[0].truth_rows, 0]])
    logits = np.concatenate([apart[0].logits_generated, apart[0].logits_truth])
    central = np.abs(x - 0.5) < 1
    assert np.median((logits - (0.5 - x))[central]) == pytest.approx(0, abs=0.15)


def test_same_distribution_is_indistinguishable():
    findings = classifier_score(*gaussians(1500, 1500, 0.0), QUICK, repeats=3, seed=2, floor="permuted")
    area, divergence = findings.scores
    assert area.floor == 0.5
    assert area.indistinguishable
    assert divergence.indistinguishable
    assert divergence.value == pytest.approx(0, abs=0.03)


def test_halves_of_the_truth_give_a_floor_near_nothing():
    findings = classifier_score(*gaussians(800, 800, 1.0), replace(QUICK, epochs=4), repeats=2, seed=3, floor="halves")
    area, divergence = findings.scores
    assert area.floor == pytest.approx(0.5, abs=4 * area.floor_error)
    assert abs(divergence.floor) < 0.05
    assert not area.indistinguishable
    assert area.error > area.floor_error


def test_same_seed_same_result_and_global_generators_untouched():
    samples = gaussians(300, 300, 0.5)
    settings = replace(PRESETS["fast"], hidden=(8,), epochs=2)  # with dropout
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, again, other = (classify(*samples, settings, seed=s) for s in (4, 4, 5))
    assert torch.equal(torch.rand(1), expected)
    assert np.array_equal(first.logits_truth, again.logits_truth)
    assert first.epochs == again.epochs
    assert not np.array_equal(first.logits_truth, other.logits_truth)


def test_rows_are_read_batch_by_batch_with_the_same_result():
    samples = gaussians(400, 300, 0.5)
    settings = replace(QUICK, epochs=2, batch=50)
    whole = classify(*samples, settings, seed=6)
    streams = [Streamed(s) for s in samples]
    streamed = classify(*streams, settings, seed=6)
    assert np.array_equal(whole.logits_generated, streamed.logits_generated)


def test_wide_rows_are_never_read_all_at_once(monkeypatch):
    monkeypatch.setattr("calogen.evaluate.classifier_training.CHUNK_VALUES", 50 * 20)
    streams = [Streamed(s) for s in gaussians(400, 300, 0.5, d=20)]
    classify(*streams, replace(QUICK, epochs=1, batch=50), seed=6)
    assert max(s.most for s in streams) <= 50


def test_best_epoch_is_restored():
    """Few showers and a large network: the last epoch is overtrained, the result is that of the best."""
    settings = ClassifierSettings(hidden=(128, 128), learning_rate=3e-3, batch=50, epochs=40, patience=10)
    c = classify(*gaussians(300, 300, 0.5, d=10), settings, seed=7)
    losses = [e.validation_loss for e in c.epochs]
    assert c.best_epoch == 1 + int(np.argmin(losses)) < len(losses) <= c.best_epoch + 10
    generated, truth = c.validation
    loss = (np.logaddexp(0, generated).mean() + np.logaddexp(0, -truth).mean()) / 2
    assert loss == pytest.approx(min(losses), rel=1e-5)


@trials(deadline=None)
@given(st.integers(200, 3000), st.integers(0, 100))
def test_folds_hold_every_shower_once_and_parts_share_none(n, seed):
    settings = PRESETS["fast"]
    parts = [split(n, settings, seed, r) for r in range(settings.folds)]
    assert np.array_equal(np.sort(np.concatenate([p.test for p in parts])), np.arange(n))
    for p in parts:
        together = np.concatenate([p.train, p.validation, p.test])
        assert np.array_equal(np.sort(together), np.arange(n))
        assert p.train.size == pytest.approx(0.6 * n, abs=2)


def test_showers_of_the_same_incident_particle_do_not_betray_each_other():
    """Both samples hold the same rows: a network that learns them by heart must not be misled about their twins."""
    rows, _ = gaussians(600, 1, 0.0, d=6)
    settings = ClassifierSettings(hidden=(256, 256), learning_rate=1e-2, batch=50, epochs=15, patience=15)
    c = classify(rows, rows.copy(), settings, seed=8)
    assert c.auc == pytest.approx(0.5, abs=1e-12)


def test_resnet_recognises_a_shifted_layer():
    rng = np.random.default_rng(9)
    grid = (6, 4, 3)
    rows = [np.hstack([rng.normal(size=(200, 1)), rng.exponential(size=(200, 72))]).astype(np.float32) for _ in "ab"]
    rows[0][:, 1:13] *= 3
    settings = replace(PRESETS["fast-resnet"], grid=grid, planes=(4, 4, 8, 8), epochs=6, batch=17)
    assert classify(*rows, settings, seed=0).auc > 0.7  # four standard errors above chance


# ---- numbers of a classifier ----


@trials(deadline=None)
@given(LOGITS, LOGITS)
def test_area_is_the_share_of_pairs_in_order(a, b):
    pairs = np.sign(b[:, None] - a[None, :])
    assert auc(a, b)[0] == pytest.approx((1 + pairs.mean()) / 2, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_error_of_the_area_is_its_scatter(shift):
    rng = np.random.default_rng(10)
    draws = [auc(rng.normal(size=100), rng.normal(shift, size=300)) for _ in range(400)]
    values, errors = np.array(draws).T
    assert values.std() == pytest.approx(errors.mean(), rel=0.15)


def test_divergence_is_the_published_formula_where_classes_are_equal():
    rng = np.random.default_rng(11)
    g, t = rng.uniform(0.1, 0.9, (2, 50))
    p, y = np.concatenate([g, t]), np.repeat([0, 1], 50)
    published = np.mean(y * np.log2(p)) + np.mean((1 - y) * np.log2(1 - p)) + 1
    assert jsd(g, t)[0] == pytest.approx(published, rel=1e-12)
    assert jsd(np.full(7, 1e-12), np.full(3, 1 - 1e-12))[0] == pytest.approx(1)


@trials(deadline=None)
@given(LOGITS, LOGITS)
def test_calibration_is_monotone_and_never_certain(a, b):
    calibration = calibrate(a, b)
    c = calibration(np.linspace(-6, 6, 200))
    assert (np.diff(c) >= -1e-12).all()
    assert 0 < c.min() <= c.max() < 1


def test_calibration_finds_the_probability_of_a_wrong_scale():
    rng = np.random.default_rng(12)
    g, t = rng.normal(1, size=20_000), rng.normal(0, size=40_000)
    calibration = calibrate(5 * (0.5 - g) + 3, 5 * (0.5 - t) + 3)
    x = np.linspace(-1, 2, 20)
    assert calibration(5 * (0.5 - x) + 3) == pytest.approx(1 / (1 + np.exp(x - 0.5)), abs=0.05)


# ---- refusals ----


@pytest.mark.parametrize(
    ("generated", "truth", "message"),
    [
        (np.zeros((199, 3)), np.zeros((500, 3)), "generated: 199 showers; a classifier needs at least 200"),
        (np.zeros((500, 3)), np.zeros((500, 4)), r"truth: features of shape \(500, 4\) instead of \[showers, 3\]"),
        (np.zeros((500, 3)), np.full((500, 3), np.nan), "truth: 500 of 500 showers have features that are NaN"),
        (np.zeros((500, 3)), np.zeros(500), "features of shape"),
    ],
)
def test_samples_that_cannot_be_judged_are_refused(generated, truth, message):
    with pytest.raises(ValueError, match=message):
        classify(generated, truth, QUICK, seed=0)


def test_truth_too_small_to_be_halved_is_refused():
    with pytest.raises(ValueError, match="at least 400; use floor='permuted'"):
        classifier_score(*gaussians(300, 300, 0.0), replace(QUICK, epochs=1), repeats=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_share": 0.5, "test_share": 0.5}, "for training"),
        ({"batch": 0}, "batch=0"),
        ({"network": "resnet3d"}, "needs grid"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ClassifierSettings(), **changes)


@pytest.mark.parametrize(
    ("preset", "inputs", "expected"),
    [
        ("published-low", 6481, 21_669_889),
        ("published-low", 40_501, 91_342_849),
        ("published-high", 362, 9_138_177),
        ("published-resnet", 6481, 2_516_644),
        ("caloclouds2", 25, 1377),
        ("calohadronic", 5, 129),
    ],
)
def test_presets_have_the_published_sizes(preset, inputs, expected):
    with torch.device("meta"):
        network = PRESETS[preset].build(inputs, 1)
    assert sum(p.numel() for p in network.parameters()) == expected
