"""Scaling laws: known ones are found within their errors, and grids that are too small say so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calogen.evaluate.scaling_fits import ScalingFit, TrainingCurve, envelope, fit_compute, fit_parameters_and_data
from calogen.evaluate.scaling_scores import unigram_entropy

TRUE = {"E": 3.0, "A": 400.0, "alpha": 0.5, "B": 30.0, "beta": 0.3}
SIGMAS = 4.0


def grid(sizes: int, amounts: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(5e4, 2e6, sizes), np.geomspace(2e5, 4e6, amounts)))
    return n, d, TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / d ** TRUE["beta"]


def fitted(sizes: int, amounts: int, noise: float = 0.0, seed: int = 0) -> ScalingFit:
    n, d, loss = grid(sizes, amounts)
    return fit_parameters_and_data(n, d, loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(n))))


def test_without_noise_the_law_is_found() -> None:
    fit = fitted(4, 3)
    for symbol, true in TRUE.items():
        assert fit.value(symbol) == pytest.approx(true, rel=1e-4)
    assert not fit.open
    assert not fit.problem
    assert fit.irreducible is not None


@pytest.mark.parametrize("seed", range(3))
def test_with_noise_within_errors(seed: int) -> None:
    fit = fitted(6, 5, noise=3e-4, seed=seed)
    for symbol in ("E", "alpha", "beta"):
        estimate = fit.estimates[symbol]
        assert 0 < estimate.error < 0.2 * TRUE[symbol]
        assert abs(estimate.value - TRUE[symbol]) < SIGMAS * estimate.error


def test_an_outlier_moves_little() -> None:
    n, d, loss = grid(5, 4)
    loss[7] *= 1.05
    fit = fit_parameters_and_data(n, d, loss)
    assert fit.value("alpha") == pytest.approx(TRUE["alpha"], rel=0.05)


@pytest.mark.parametrize(
    ("sizes", "amounts", "reason"), [(2, 2, "at least 3"), (1, 1, "at least 3"), (3, 1, "at least 4")]
)
def test_too_small_grids_are_not_fitted(sizes: int, amounts: int, reason: str) -> None:
    fit = fitted(sizes, amounts)
    assert reason in fit.problem
    assert not fit.estimates
    assert fit.irreducible is None


def test_with_two_amounts_of_data_the_larger_is_fitted_alone() -> None:
    fit = fitted(5, 2)
    assert fit.runs == 5
    assert "largest D" in fit.formula
    assert fit.value("E") == pytest.approx(TRUE["E"] + TRUE["B"] / 4e6 ** TRUE["beta"], rel=1e-4)
    assert "beta" not in fit.estimates


def test_a_loss_that_depends_on_nothing_fixes_no_exponent() -> None:
    n, d, _ = grid(4, 3)
    fit = fit_parameters_and_data(n, d, 4 * np.exp(1e-2 * np.random.default_rng(1).normal(size=len(n))))
    assert {"E", "alpha", "beta"} <= set(fit.open)
    assert fit.irreducible is None


def test_a_power_without_a_constant_has_no_irreducible_loss() -> None:
    """A noisy straight line in logarithms over a factor of ten: what E is cannot be told."""
    n = np.geomspace(1e5, 1e6, 6)
    loss = 8 * (n / 1e5) ** -0.05 * np.exp(5e-3 * np.random.default_rng(2).normal(size=6))
    assert fit_parameters_and_data(n, np.full(6, 1e6), loss).irreducible is None


def test_refuses_what_has_no_logarithm() -> None:
    with pytest.raises(ValueError, match="loss of run 1 is 0"):
        fit_parameters_and_data([1, 2], [1, 2], [3, 0])
    with pytest.raises(ValueError, match="one of each"):
        fit_parameters_and_data([1, 2], [1, 2], [3])


def curves(number: int) -> list[TrainingCurve]:
    """Curves that touch L(C) = 2 + (50 / C)^0.4 where each is best, at C = 10 c for the one that begins at c."""
    grown = np.geomspace(1, 12, 25)
    made = []
    for c in np.geomspace(1, 64, number):
        off = np.log(grown / 10) ** 2
        made.append(TrainingCurve(c * grown, 2 + (50 / (c * grown)) ** 0.4 * (1 + 0.3 * off)))
    return made


def test_compute_along_the_envelope() -> None:
    fit = fit_compute(curves(24))
    assert fit.value("gamma") == pytest.approx(0.4, abs=0.06)
    assert fit.value("E") == pytest.approx(2.0, abs=0.15)
    assert "at least 3" in fit_compute(curves(2)).problem
    flat = [TrainingCurve([1, 2, 3], [5, 6, 7]), TrainingCurve([1, 2], [6, 6]), TrainingCurve([1, 2], [7, 7])]
    assert "1 points" in fit_compute(flat).problem


def test_the_envelope_falls_and_begins_with_the_last_curve() -> None:
    made = curves(5)
    c, loss = envelope(made)
    assert c[0] >= 64
    assert (np.diff(c) >= 0).all()
    assert (np.diff(loss) < 0).all()


def test_unigram_entropy() -> None:
    assert unigram_entropy(np.array([0, 0, 0, 0]), 4) == pytest.approx(np.log(2))
