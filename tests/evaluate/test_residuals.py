"""Widths of residuals: known shifts give known numbers, and errors come from showers, not from hits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calogen.evaluate.codebook_scores import QUANTITIES, CodedHits, Histogram, residuals, score
from calogen.evaluate.residuals import ONE_SIGMA, Redrawn


def test_a_bias_is_in_the_rms_and_not_in_sigma() -> None:
    residual = np.tile([1.0, 5.0], 30)
    found = Redrawn(6).resolution(residual, np.repeat(np.arange(6), 10))
    assert found.bias.value == pytest.approx(3.0)
    assert found.sigma.value == pytest.approx(2.0)
    assert found.rms.value == pytest.approx(math.sqrt((1 + 25) / 2))
    assert found.half_width.value == pytest.approx(2.0)


def test_widths_of_a_normal_distribution_agree() -> None:
    rng = np.random.default_rng(1)
    found = Redrawn(100).resolution(rng.normal(0.5, 2.0, 40_000), np.repeat(np.arange(100), 400))
    assert found.sigma.value == pytest.approx(2.0, rel=0.02)
    assert found.half_width.value == pytest.approx(2.0, rel=0.03)
    assert found.rms.value == pytest.approx(math.hypot(2.0, 0.5), rel=0.02)
    assert found.sigma.error == pytest.approx(2.0 / math.sqrt(2 * 40_000), rel=0.4)
    assert found.bias.error == pytest.approx(2.0 / math.sqrt(40_000), rel=0.4)
    p = math.exp(-0.5) / math.sqrt(2 * math.pi) / 2.0
    assert found.half_width.error == pytest.approx(math.sqrt((1 - ONE_SIGMA) * ONE_SIGMA / 40_000) / 2 / p, rel=0.4)


def test_tails_widen_sigma_and_leave_the_half_width() -> None:
    rng = np.random.default_rng(2)
    d = rng.normal(0, 1, 20_000)
    shower = np.repeat(np.arange(50), 400)
    d[::100] *= 50
    found = Redrawn(50).resolution(d, shower)
    assert found.sigma.value > 4
    assert found.half_width.value == pytest.approx(1.0, rel=0.05)


def test_hits_of_a_shower_that_go_wrong_together_count_once() -> None:
    rng = np.random.default_rng(3)
    shift = rng.normal(0, 1, 64)
    shower = np.repeat(np.arange(64), 500)
    found = Redrawn(64).resolution(shift[shower], shower)
    assert found.bias.error == pytest.approx(shift.std() / 8, rel=0.2)
    assert found.half_width.error > 0.03


@given(st.floats(-5, 5), st.floats(0.01, 100))
def test_shifted_and_scaled(shift: float, factor: float) -> None:
    rng = np.random.default_rng(4)
    d, shower, redrawn = rng.normal(0, 1, 300), np.repeat(np.arange(10), 30), Redrawn(10)
    plain, moved = redrawn.resolution(d, shower), redrawn.resolution(factor * d + shift, shower)
    for kind in ("sigma", "half_width"):
        assert getattr(moved, kind).value == pytest.approx(factor * getattr(plain, kind).value, rel=1e-6)
        assert getattr(moved, kind).error == pytest.approx(factor * getattr(plain, kind).error, rel=1e-3)
    assert plain.scaled(2.0).rms.error == 2 * plain.rms.error


def test_shares_and_means_are_of_hits() -> None:
    found = Redrawn(3).ratio(np.array([1, 0, 3]), np.array([10, 0, 30]))
    assert found.value == pytest.approx(0.1)
    assert found.error == pytest.approx(0.0, abs=1e-12)


def test_usage_of_codes() -> None:
    shower = np.repeat(np.arange(4), 2)
    share, perplexity = Redrawn(4).usage(np.array([0, 1, 0, 1, 0, 1, 0, 1]), shower, 8)
    assert share.value == pytest.approx(0.25)
    assert perplexity.value == pytest.approx(2.0)
    assert share.error == 0.0
    apart, words = Redrawn(4).usage(np.arange(8), shower, 8)
    assert apart.value == 1.0
    assert words.value == pytest.approx(8.0)
    assert apart.error > 0.05


@pytest.mark.parametrize(
    ("residual", "shower", "said"),
    [
        (np.array([0.0, np.nan]), np.array([0, 1]), "hit 1 is not finite"),
        (np.zeros(0), np.zeros(0, dtype=int), "at least 1"),
        (np.zeros(2), np.zeros(3, dtype=int), "one for each hit"),
    ],
)
def test_bad_residuals_are_refused(residual: np.ndarray, shower: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Redrawn(2).resolution(residual, shower)


def test_one_shower_has_no_error() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Redrawn(1)


def shifted_hits(n: int = 12, hits: int = 40) -> CodedHits:
    """Hits that come back (+-0.4, 0.2, +-1) beside where they were, a tenth too bright, and rounded."""
    p = n * hits
    place = np.stack([np.arange(p) % 30, np.arange(p) % 7, np.arange(p) % 11], axis=1).astype(float)
    sign = np.where(np.arange(p) % 2, 1.0, -1.0)
    decoded = place + np.stack([0.4 * sign, np.full(p, 0.2), sign], axis=1)
    return CodedHits(
        shower=np.repeat(np.arange(n), hits),
        place=place,
        decoded=decoded,
        settled=np.rint(decoded),
        energy=np.full(p, 1e-3),
        decoded_energy=np.full(p, 1.1e-3),
        moved=np.full(n, 4),
        outside=np.zeros(n, dtype=int),
        code=np.arange(p) % 16,
        loss=np.full(p, 0.5),
        squared_error=np.full(p, 0.25),
    )


def test_a_tokenizer_of_known_shifts() -> None:
    found = score(shifted_hits(), 32, 5.0, name="32", training_usage=(0.6, 18.0))
    assert found.before["x"].sigma.value == pytest.approx(0.4)
    assert found.before["x_mm"].sigma.value == pytest.approx(2.0)
    assert found.before["y"].sigma.value == pytest.approx(0.0, abs=1e-9)
    assert found.before["y"].rms.value == pytest.approx(0.2)
    assert found.before["layer"].sigma.value == pytest.approx(1.0)
    assert found.before["ln_energy"].bias.value == pytest.approx(math.log(1.1))
    assert found.before["relative_energy"].bias.value == pytest.approx(0.1)
    assert found.after["x"].rms.value == found.after["y"].rms.value == 0.0
    assert found.after["layer"].rms.value == pytest.approx(1.0)
    assert (found.moved.value, found.outside.value, found.used.value) == pytest.approx((0.1, 0.0, 0.5))
    assert (found.loss.value, found.used_training) == pytest.approx((0.5, 0.6))
    layer = found.histograms["layer"]
    assert sum(layer.counts) == found.hits == 480
    occupied = layer.edges[:-1][np.array(layer.counts) > 0]
    assert np.abs(occupied).tolist() == pytest.approx([1.0, 1.0], abs=0.06)


def test_parts_put_together_are_the_whole() -> None:
    whole = shifted_hits(6)
    both = CodedHits.concatenate([shifted_hits(3), shifted_hits(3)])
    assert np.array_equal(both.shower, whole.shower)
    assert np.array_equal(both.counts, whole.counts)
    assert all(len(d) == 240 for d in residuals(both)[0].values())


def test_what_a_histogram_does_not_hold_is_counted() -> None:
    quantity = QUANTITIES["ln_energy"]
    found = Histogram.of(np.array([-7.0, -6.0, 0.01, 6.0, 8.0, 9.0]), quantity)
    assert (found.below, found.above, sum(found.counts)) == (1, 2, 3)
    assert len(found.edges) == len(found.counts) + 1
    assert found.edges[1] - found.edges[0] == pytest.approx(quantity.step)
