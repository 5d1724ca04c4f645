"""Parts of a page: what stands together, what stands by model, and words said once."""

import dataclasses

import numpy as np

from calogen.evaluate.findings import Curve, Findings, Matrix, Series
from calogen.evaluate.judgement import Comparison, Judgement
from calogen.evaluate.metrics import Score
from calogen.report.sections import LEAST_REST, SHORT_TEXT, competition, section
from calogen.report.tables import posteriors, score_groups

X = np.arange(4.0)
Y = np.ones(3)


def curve(name: str, title: str, *labels: str) -> Curve:
    return Curve(name, title, "x", "share of showers", X, tuple(Series(label, Y, 0 * Y) for label in labels))


def matrix(name: str, value: float) -> Matrix:
    return Matrix(name, name, ("a", "b"), ("a", "b"), np.array([[1.0, value], [value, 1.0]]), -1.0, 1.0)


def judged(*findings: Findings) -> Judgement:
    comparisons = tuple(Comparison(f"model-{i}", 10, (f,)) for i, f in enumerate(findings))
    return Judgement("box", "truth.h5", 10, comparisons)


def test_figures_of_one_name_that_show_different_things_are_not_drawn_as_one() -> None:
    both = curve("hits", "Hits", "Geant4", "model")
    first, second = (curve("worst", f"Layer {n} (the worst)", "Geant4", "model") for n in (3, 7))
    made = section(judged(Findings("a", "A", "", (), (both, first)), Findings("a", "A", "", (), (both, second))), "a")
    assert [f.title for f in made.shared.figures] == ["Hits"]
    assert [(b.label, b.model, [f.title for f in b.figures]) for b in made.own] == [
        ("model-0", 0, ["Layer 3 (the worst)"]),
        ("model-1", 1, ["Layer 7 (the worst)"]),
    ]


def test_a_figure_of_several_lines_a_model_is_drawn_by_model() -> None:
    tails = curve("x", "X", "Geant4", "model", "model: recognised", "Geant4: missing in the model")
    one = Findings("a", "A", "", (), (tails,))
    assert [len(b.figures) for b in section(judged(one, one), "a").own] == [1, 1]
    alone = section(judged(one), "a")
    assert alone.own == ()
    assert [f.model for f in alone.shared.figures] == [-1]


def test_all_of_a_classifier_stands_by_model() -> None:
    one = Findings(
        "classifier_high", "C", "", (), (curve("weights", "Weights", "Geant4", "model"),), (matrix("shifts", 0.1),)
    )
    noted = [dataclasses.replace(one, notes=(f"of {i}", "of both")) for i in (0, 1)]
    made = section(judged(*noted), "classifier_high")
    assert made.notes_title
    assert made.shared.figures == ()
    assert [n.text for n in made.shared.notes] == ["of both"]
    assert [[n.text for n in b.notes] for b in made.own] == [["of 0"], ["of 1"]]
    assert [[(m.model, m.whose) for m in b.matrices] for b in made.own] == [[(0, "")], [(1, "")]]


def test_a_matrix_that_models_share_stands_once() -> None:
    def of(truth: float, own: float) -> Findings:
        return Findings("m", "M", "", (), (), (matrix("truth", truth), matrix("model", own)))

    made = section(judged(of(0.2, 0.1), of(0.2 + 1e-9, 0.3), of(0.5, 0.4)), "m").shared.matrices
    assert [(m.name, m.model, m.whose) for m in made] == [
        ("truth", 0, "model-0, model-1"),
        ("truth", 2, "model-2"),
        ("model", 0, "model-0"),
        ("model", 1, "model-1"),
        ("model", 2, "model-2"),
    ]
    assert not any(m.first for m in section(judged(of(0.2, 0.1)), "m").shared.matrices)


def test_words_that_notes_share_are_said_once() -> None:
    lead = "The generated showers that the classifier recognises have "
    notes = (lead + "474 % more hits.", lead + "12 % less energy.", "Short one.", "Short two.")
    (first, *others) = section(judged(Findings("a", "A", "", notes=notes)), "a").shared.notes
    assert first.text == lead.rstrip()
    assert first.items == ("474 % more hits.", "12 % less energy.")
    assert [(n.text, n.items) for n in others] == [("Short one.", ()), ("Short two.", ())]


def test_long_definitions_are_folded_between_sentences() -> None:
    sentence = "It is measured in e.g. bins of " + 60 * "x" + ". "
    long = (sentence * 8).strip()
    made = section(judged(Findings("a", "A", long)), "a")
    assert 0 < len(made.text) <= SHORT_TEXT
    assert made.text.endswith(".")
    assert f"{made.text} {made.rest}" == long
    short = "y" * (SHORT_TEXT + LEAST_REST)
    assert section(judged(Findings("a", "A", short)), "a").rest == ""


def test_the_competition_ranks_all_models() -> None:
    scores = tuple(
        Score(name, "log_posterior", "nat", value, 0.1, -1.1, 0.05, sense="high")
        for name, value in (("far", -3.0), ("near", -1.2))
    )
    found = Findings("log_posterior", "Log-posterior", "Text.", scores, (), (matrix("posteriors", 0.3),))
    assert [(p["name"], p["tone"]) for p in posteriors(found)] == [("near", "good"), ("far", "bad")]
    assert [m.model for m in competition(found).shared.matrices] == [-1]


def test_floors_are_repeated_only_where_they_differ_and_the_best_is_above_its_own_floor() -> None:
    def one(value: float, floor: float) -> Findings:
        return Findings("a", "A", "", (Score("x", "jsd", "nat", value, 0.1, floor, 0.1),))

    (group,) = score_groups(judged(one(5.0, 1.0), one(3.0, 1.02), one(3.6, 3.5)))
    cells = group["rows"][0]["cells"]
    assert [bool(c["floor"]) for c in cells] == [False, False, True]
    assert [c["best"] for c in cells] == [False, False, True]
