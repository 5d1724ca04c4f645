"""Copies are caught, honest models are not, however good they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calogen.evaluate.memorisation import memorisation
from calogen.evaluate.metrics import Score

D = 10
MIX = np.random.default_rng(5).normal(size=(D, D)) / np.sqrt(D)


def geant4(n: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng([seed, n]).normal(size=(n, D)) @ MIX


def judged(generated: NDArray[Any], training: NDArray[Any], seed: int = 0) -> dict[str, Score]:
    return {s.metric: s for s in memorisation(generated, training, geant4(300, 1000 + seed), seed=seed)}


@pytest.mark.parametrize("n_training", [300, 3000])
def test_a_copied_training_set_is_caught(n_training: int) -> None:
    training = geant4(n_training, 1)
    found = judged(training[:300], training)
    assert found["training_neighbours"].value == 1
    assert found["training_distance"].value == 1
    assert found["training_neighbours"].significance > 5
    assert found["training_distance"].significance > 10
    assert found["repeats"].indistinguishable


def test_a_few_copies_with_noise_are_caught() -> None:
    training, generated = geant4(2000, 1), geant4(400, 2)
    generated[:100] = training[:100] + 0.01 * geant4(100, 3)
    assert judged(generated, training)["training_distance"].significance > 3


def test_duplicates_are_repeats_and_nothing_else() -> None:
    generated = geant4(300, 2)
    generated[150:200] = generated[:50]
    found = judged(generated, geant4(1000, 1))
    assert found["repeats"].significance > 3
    assert found["repeats"].value > 0.3
    assert found["training_neighbours"].indistinguishable
    assert found["training_distance"].indistinguishable


def test_honest_models_are_not_accused() -> None:
    scores = [s for i in range(10) for s in judged(geant4(300, 2 * i), geant4(700, 2 * i + 1), i).values()]
    assert np.mean([s.indistinguishable for s in scores]) >= 0.9
    significance = np.array([s.significance for s in scores])
    assert abs(significance.mean()) < 0.6
    assert 0.4 < significance.std() < 1.6


@pytest.mark.parametrize("spoil", [lambda x: 1.5 * x, lambda x: 0.7 * x, lambda x: x + 1.0])
def test_a_bad_model_is_no_copy(spoil: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    accused = [
        not judged(spoil(geant4(300, 2 * i)), geant4(600, 2 * i + 1), i)["training_neighbours"].indistinguishable
        for i in range(6)
    ]
    assert sum(accused) <= 1


def test_units_do_not_matter_and_the_seed_does_only_beyond_the_limit() -> None:
    made, training, test = geant4(150, 1), geant4(200, 2), geant4(160, 3)
    units = np.logspace(-5, 5, D)
    first = memorisation(made, training, test)
    assert [s.value for s in memorisation(made * units, training * units, test * units)] == pytest.approx(
        [s.value for s in first]
    )
    assert memorisation(made, training, test, seed=3) == first
    assert memorisation(made, training, test, max_showers=120) != first


def test_constant_features_are_no_obstacle() -> None:
    made, training, test = (np.pad(geant4(120, i), ((0, 0), (0, 1))) for i in range(3))
    assert all(np.isfinite(s.value) for s in memorisation(made, training, test))


@pytest.mark.parametrize("which", range(3))
def test_bad_input_is_refused(which: int) -> None:
    samples = [geant4(120, i) for i in range(3)]
    few = [s[:50] if i == which else s for i, s in enumerate(samples)]
    with pytest.raises(ValueError, match="at least 100 showers"):
        memorisation(*few)
    broken = [np.where(s == s[3, 2], np.nan, s) if i == which else s for i, s in enumerate(samples)]
    with pytest.raises(ValueError, match="feature 2 of shower 3"):
        memorisation(*broken)
