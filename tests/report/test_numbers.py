"""Numbers as readers see them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calogen.evaluate.findings import Findings
from calogen.evaluate.metrics import Score
from calogen.report.numbers import duration, exponent, power_of_ten, signed, significant, with_error
from calogen.report.tables import counted_once, flat, in_short, tally, tone
from calogen.report.words import metric_name, sentence, title_of


@given(st.floats(1e-12, 1e12))
def test_power_of_ten_leaves_a_readable_number(value):
    e = exponent([value, value / 7])
    assert e % 3 == 0
    assert 0.09 <= value / 10.0**e < 1e5


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e3))
def test_rounding_is_within_two_digits_of_the_error(value, error):
    text = with_error(value, error).replace("\u2212", "-").replace(",", "")
    first, second = (float(part) for part in text.split("±"))
    assert abs(first - value) <= 0.06 * error + 1e-9 * abs(value)
    assert second == pytest.approx(error, rel=0.06)


def test_what_is_not_finite_has_a_sign_of_its_own():
    assert significant(math.nan) == with_error(math.nan, 1.0) == signed(math.nan) == "–"
    assert signed(math.inf) == "∞"
    assert exponent([math.nan, 0.0]) == 0
    assert (power_of_ten(-6), power_of_ten(0)) == ("10⁻⁶", "")
    assert (duration(2.0), duration(0.0021)) == ("2.00 s", "2.10 ms")


@pytest.mark.parametrize(
    ("value", "sense", "expected"),
    [(1.1, "low", "good"), (4.0, "low", "fair"), (9.0, "low", "bad"), (-9.0, "low", "good"), (-9.0, "both", "bad")],
)
def test_colour_follows_the_distance_from_the_floor(value, sense, expected):
    score = Score("x", "m", "", value, 1.0, 0.0, 1.0, sense)
    assert tone(score) == expected
    assert tally([score])["all"] == 1


def test_a_score_without_floor_has_no_verdict():
    score = Score("time", "ms", "", 3.0, 1.0, math.nan, math.nan)
    assert tone(score) == "none"
    assert tally([score]) == {"good": 0, "fair": 0, "bad": 0, "none": 1, "all": 0}


def test_a_number_that_stands_in_two_sections_is_counted_once():
    def one(observable, metric, value, error=0.1, floor=0.5):
        return Score(observable, metric, "", value, error, floor, 0.1)

    first = (one("hits", "wasserstein", 1.0), one("x", "wasserstein", 2.0), one("auc", "auc", 1.0, 0.0))
    second = (one("n_hits", "wasserstein", 1.0), one("n_hits", "jsd", 1.0), one("x", "wasserstein", 2.0, floor=0.4))
    third = (one("auc 2", "auc", 1.0, 0.0), one("hits", "jsd", 1.0))  # AUCs of 1 without an error agree by chance
    kept = counted_once([Findings("f", "F", "", scores) for scores in (first, second, third)])
    assert [len(part) for part in kept] == [3, 2, 1]
    assert kept[1] == list(second[1:])
    assert kept[2] == [third[0]]


def test_keys_are_put_into_words():
    assert metric_name("wasserstein_slices") == "Wasserstein, mean of slices"
    assert metric_name("quantile_68_ratio") == "68 % quantile, ratio"
    assert title_of("ecal: visible energy") == "ECal: visible energy"
    assert title_of("MIP peak, Hcal") == "MIP peak, HCal"
    assert title_of("recall") == "Recall"
    assert sentence("of ecal-2.h5, ecal.h5 and hcal.") == "of ecal-2.h5, ecal.h5 and HCal."


def test_settings_are_written_as_words():
    settings = {"seed": 3, "protocol": "points", "match": False, "parts": ["mip", "angle"], "training": {"n": 5}}
    assert in_short(settings) == "protocol points, match no, parts mip, angle, training given"
    assert ("training.n", "5") in flat(settings)
