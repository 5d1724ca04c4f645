"""A judgement as JSON and rows: complete, without NaN, and refused where names are not unique."""

import json
import math

import numpy as np
import pytest

from calogen.evaluate.findings import Curve, Findings, Series
from calogen.evaluate.judgement import FORMAT, Comparison, Judgement
from calogen.evaluate.metrics import Score

CLOSE = Score("hits", "jsd", "nat", 1.0, 0.5, 0.9, 0.3)
FAR = Score("hits", "wasserstein", "sigma", 9.0, 0.5, 0.9, 0.3)
UNKNOWN = Score("time", "ms", "ms", 3.0, math.nan, math.nan, math.nan)
CURVE = Curve("c", "C", "x", "y", np.arange(3.0), (Series("Geant4", np.array([1.0, np.nan]), np.zeros(2)),))


def part(*scores: Score, name: str = "part") -> Findings:
    return Findings(name, "Part", "text", scores, (CURVE,))


def judgement(*labels: str) -> Judgement:
    models = tuple(
        Comparison(label, 10, (part(CLOSE, FAR, UNKNOWN),), provenance={"n": np.int64(3)}) for label in labels
    )
    return Judgement("box", "g4.h5", 20, models, 7, {"when": float("nan")})


def test_json_has_every_number_and_no_nan():
    text = judgement("a", "b").to_json()
    assert "NaN" not in text
    plain = json.loads(text)
    assert plain == json.loads(judgement("a", "b").to_json(indent=False))
    assert (plain["format"], plain["detector"], plain["seed"]) == (FORMAT, "box", 7)
    assert [m["label"] for m in plain["models"]] == ["a", "b"]
    close, far, unknown = plain["models"][0]["findings"][0]["scores"]
    for score in (close, far, unknown):
        assert {"value", "error", "floor", "floor_error", "indistinguishable"} <= set(score)
    assert (close["indistinguishable"], far["indistinguishable"], unknown["indistinguishable"]) == (True, False, False)
    assert (unknown["value"], unknown["floor"]) == (3.0, None)
    assert plain["models"][0]["findings"][0]["curves"][0]["series"][0]["y"] == [1.0, None]
    assert plain["models"][0]["provenance"]["n"] == 3


def test_lists_of_numbers_stand_on_one_line():
    assert '"x": [0.0, 1.0, 2.0]' in judgement("a").to_json()


def test_rows_are_one_a_score_and_model():
    rows = judgement("a", "b").rows()
    assert [(r["model"], r["metric"]) for r in rows] == [(m, s.metric) for m in "ab" for s in (CLOSE, FAR, UNKNOWN)]
    assert rows[0]["section"] == "part"


def test_names_must_be_unique():
    with pytest.raises(ValueError, match="no model"):
        judgement()
    with pytest.raises(ValueError, match="two models are called 'a'"):
        judgement("a", "a")
    with pytest.raises(ValueError, match="two parts"):
        Judgement("box", "g4", 1, (Comparison("a", 1, (part(), part())),))
