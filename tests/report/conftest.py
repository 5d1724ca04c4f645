"""Showers, a judgement of two models with every kind of finding, and its page."""

import sys
from pathlib import Path

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers
from calogen.evaluate import evaluate
from calogen.evaluate.findings import Curve, Findings, Matrix, Series
from calogen.evaluate.judgement import Comparison, Judgement
from calogen.evaluate.metrics import Score
from calogen.report.events import matched
from calogen.report.page import write_report
from calogen.report.tables import Timing

sys.path.insert(0, str(Path(__file__).parent))  # the browser beside the tests

N = 40
MANY = 70
OBSERVABLES = ("energy", "hits", "x", "y")


@pytest.fixture(scope="session")
def samples() -> tuple[Showers, Showers]:
    """Two draws of simple showers for the same particles."""
    incident = Incident.gun(N, energy=(5, 50), angles="barrel", seed=1)

    def draw(seed: int) -> Showers:
        rng = np.random.default_rng(seed)
        counts = rng.poisson(60, N) + 1
        total = int(counts.sum())
        x, y = rng.normal(0, 15, (2, total))
        layer = rng.integers(0, 30, total)
        return Showers(
            x, y, layer, rng.exponential(2e-3, total), np.concatenate([[0], np.cumsum(counts)]), incident, ILD_ECAL
        )

    return draw(1), draw(2)


def findings(model: int) -> tuple[Findings, ...]:
    """Made-up findings of every kind: scores without a floor, curves with holes, matrices the models share."""
    rng = np.random.default_rng(model)
    x = np.geomspace(0.01, 100, 21)
    share = np.exp(-(np.linspace(-3, 3, 20) ** 2))
    weights = Curve(
        "weights",
        "Classifier weights",
        "weight",
        "showers",
        x,
        (Series("Geant4", share, 0.1 * share), Series("model", share * rng.uniform(0.8, 1.2, 20), 0.1 * share)),
        log_x=True,
        log_y=True,
    )
    roc = Curve("roc", "ROC", "false", "true", np.linspace(0, 1, 9), (Series("fast", x[:9], 0 * x[:9]),), ratio=False)
    hole = np.where(np.arange(20) == 5, np.nan, share)
    angle = Curve(
        "angle",
        "Angle",
        "angle [rad]",
        "showers",
        np.linspace(0, 0.005, 21),  # its last number stands at the very edge
        (Series("Geant4", hole, hole), Series("m", hole, hole)),
    )
    pair = [np.corrcoef(np.random.default_rng(seed).normal(size=(4, 9))) for seed in (0, 10 + model)]
    matrices = tuple(
        Matrix(name, title, OBSERVABLES, OBSERVABLES, values, -1.0, 1.0)
        for name, title, values in zip(("truth", "model"), ("Geant4", "Generated"), pair, strict=True)
    )
    scores = (
        Score("high_level", "auc", "", 0.6 + 0.1 * model, 0.01, 0.5, 0.01, title="High-level <classifier>"),
        Score("recall", "recall", "", 0.7, 0.01, 0.72, 0.01, sense="high"),
        Score("time", "time", "ms", 3.0, 0.1, float("nan"), float("nan")),
    )
    many = tuple(Score(f"layer_{i}", "pearson", "", 0.001 * i, 0.01, 0.0, 0.01) for i in range(MANY))
    return (
        Findings(
            "classifier", "Classifier", "A network's view.", scores, (weights, roc, angle), (), ("a remark",), 1.0
        ),
        Findings("correlations", "Correlations", "Pearson's.", many, (), matrices, (f"of model {model}",)),
    )


def competition() -> Findings:
    """A classifier of both models and half of Geant4, the second model closer to Geant4."""
    names = ("model-0", "model-1", "Geant4 (control)")
    scores = tuple(
        Score(name, "log_posterior", "nat", value, 0.05, -1.0, 0.05, sense="high", title=name)
        for name, value in zip(names[:2], (-1.6, -1.1), strict=True)
    )
    values = np.full((4, 3), 1 / 3)
    matrix = Matrix("posteriors", "Mean posterior", (*names, "Geant4"), names, values, 0.0, 1.0)
    return Findings("log_posterior", "Log-posterior of all models", "One classifier.", scores, (), (matrix,))


@pytest.fixture(scope="session")
def judgement(samples: tuple[Showers, Showers]) -> Judgement:
    """Two models, the second a copy of the first but for its made-up findings."""
    evaluation = evaluate(*samples, replicas=20)
    comparisons = tuple(
        Comparison(f"model-{i}", N, findings(i), evaluation, {"state": "<b>bold</b>", "versions": {"python": "3"}})
        for i in (0, 1)
    )
    return Judgement(ILD_ECAL.name, "truth.h5", N, comparisons, 0, {"seed": 1}, competition=competition())


@pytest.fixture(scope="session")
def page(judgement: Judgement, samples: tuple[Showers, Showers], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judgement as a page, with displays and times."""
    rows = matched(samples[1], [("model-0", samples[0]), ("model-1", samples[1])], 4)
    timing = [Timing("model-0", 0.002, "1 thread"), Timing("Geant4", 0.4)]
    out = tmp_path_factory.mktemp("out") / "report"
    return write_report(judgement, out, displays=rows, timing=timing, title="A & B")
