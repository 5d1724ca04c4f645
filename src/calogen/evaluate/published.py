"""The published results of the CaloChallenge (arXiv:2410.21611), and where a model of ours stands among them.

The numbers are those of `final_results` in the challenge's repository: FPD and KPD not multiplied, separation powers
per layer and their means, and the mean absolute difference of each submission's Pearson matrix from that of Geant4.
They were computed with 100,000 showers (121,000 and 120,800 for data set 1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

from calogen.evaluate.challenge_histograms import DATASETS, GROUPS, VOXELS
from calogen.evaluate.findings import Findings
from calogen.evaluate.metrics import Score

GEANT4 = "Geant4"
RANK_SIGMA = 2.0
"""Errors that the range of ranks covers: 95 %."""
METRIC = "separation"
"""Scores that cannot be negative."""
OURS = "model"
Better = Literal["low", "high", "geant4"]
"""Which values are good: low ones, high ones, or those near that of Geant4 against itself."""


@dataclass(frozen=True)
class Column:
    """One column of the results; `observable` and `metric` name our score of it, empty where another part makes it."""

    key: str
    title: str
    better: Better = "low"
    observable: str = ""
    metric: str = ""


COLUMNS: tuple[Column, ...] = (
    *(
        Column(name, f"separation: {title.lower()}", observable=name, metric="separation")
        for name, title in (*((g.name, g.title) for g in GROUPS), VOXELS[:2])
    ),
    Column("pearson", "layer correlations", observable="layer_energy", metric="pearson"),
    Column("fpd", "FPD", observable="high-level features", metric="fpd"),
    Column("kpd", "KPD", observable="high-level features", metric="kpd"),
    *(Column(m, m, "geant4", "voxels", m) for m in ("precision", "recall", "density", "coverage")),
    *(
        Column(f"auc_{what}", f"AUC, {title}", observable=f"classifier_{what}", metric="auc")
        for what, title in (("low", "low-level DNN"), ("high", "high-level DNN"), ("resnet", "ResNet"))
    ),
    Column("log_posterior", "log-posterior, DNN", "high"),
    Column("log_posterior_resnet", "log-posterior, ResNet", "high"),
    *(
        Column(f"{unit}_ms_{batch}", f"{unit.upper()} ms a shower, batch {batch:,}")
        for unit in ("cpu", "gpu")
        for batch in (1, 100, 10_000)
    ),
    Column("parameters", "parameters to generate"),
    Column("parameters_training", "parameters to train"),
)
"""All columns, in the order in which they are shown."""


@dataclass(frozen=True)
class Submission:
    """One published model; the one called Geant4 is Geant4 against itself.

    `values` and `errors` by the key of a column (times in ms, numbers that were not published are missing); `layers`
    the separation powers of each layer, by the name of the observable (NaN in one layer of one submission).
    """

    name: str
    values: Mapping[str, float]
    errors: Mapping[str, float]
    layers: Mapping[str, tuple[float, ...]]


@lru_cache(maxsize=4)
def submissions(dataset: str) -> tuple[Submission, ...]:
    """All published results on one data set, Geant4 against itself first.

    >>> [s.name for s in submissions("ds2") if s.values["fpd"] < 0.1]
    ['Geant4', 'CaloDREAM']

    Raises:
        ValueError: an unknown data set.
    """
    if dataset not in DATASETS:
        raise ValueError(f"nothing is published on {dataset!r}; known data sets: {', '.join(DATASETS)}")
    text = files("calogen.evaluate").joinpath("published", f"{dataset}.json").read_text(encoding="utf-8")
    return tuple(_submission(d) for d in json.loads(text)["submissions"])


def _submission(d: dict[str, Any]) -> Submission:
    layers = {name: tuple(math.nan if v is None else v for v in values) for name, values in d["layers"].items()}
    return Submission(d["name"], d["values"], d["errors"], layers)


# ---- a model among them ----


@dataclass(frozen=True)
class Entry:
    """One number of the table: as measured, its error, and the number that is ranked.

    `carried` is `value` for published numbers. For a score of ours with a floor it is what the score would be with as
    many showers as the challenge had. `rank` counts from 1; None for Geant4. `rank_range` are the ranks with `carried`
    `RANK_SIGMA` errors better and worse.
    """

    value: float
    error: float | None
    carried: float
    rank: int | None = None
    rank_range: tuple[int, int] | None = None


@dataclass(frozen=True)
class Line:
    """One model: its numbers by the key of a column."""

    name: str
    entries: Mapping[str, Entry]
    ours: bool = False


@dataclass(frozen=True)
class Standing:
    """The published table with models of ours in it: Geant4 first, then ours, then the submissions."""

    dataset: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a number that does not exist is missing."""
        return {
            "dataset": self.dataset,
            "columns": [{"key": c.key, "title": c.title, "better": c.better} for c in self.columns],
            "lines": [
                {"name": line.name, "ours": line.ours} | {"entries": {k: vars(e) for k, e in line.entries.items()}}
                for line in self.lines
            ],
        }


Ours = Iterable[Findings] | Iterable[Score] | Mapping[str, float]
"""Scores of a model, or numbers by the key of a column."""


def compare(
    dataset: str,
    models: Mapping[str, Ours] | Ours,
    *,
    extra: Mapping[str, Mapping[str, float]] | None = None,
) -> Standing:
    """Put models of ours among the published ones, with the rank of each in every column.

    Separation powers, FPD and KPD grow when showers are few, so what a score of ours has above its floor is added to
    the published value of Geant4 against itself before it is ranked. Distances of correlations are subtracted in
    quadrature; precision, recall, density and coverage are taken in proportion. AUCs, which few showers to train on
    make better, and numbers without a floor are ranked as they are. Geant4 is not ranked.

    Args:
        dataset: `ds1-photons`, `ds1-pions`, `ds2` or `ds3`; see `challenge_histograms.dataset_of`.
        models: the findings or scores of one model, or of several by their names.
        extra: numbers of the same models by the key of a column: AUCs, ms a shower, parameters.

    >>> standing = compare("ds2", {"mine": {"fpd": 0.05, "cpu_ms_1": 20.0}})
    >>> {key: entry.rank for key, entry in standing.lines[1].entries.items()}
    {'fpd': 2, 'cpu_ms_1': 2}

    Raises:
        ValueError: an unknown data set or column.
    """
    published = submissions(dataset)
    named = models if isinstance(models, Mapping) and not _is_numbers(models) else {OURS: models}
    geant4 = published[0]
    lines = [_published_line(geant4)]
    for name, ours in named.items():
        more = (extra or {}).get(name, {})
        lines.append(Line(name, _entries(ours, geant4) | _entries(more, geant4), ours=True))
    lines += [_published_line(s) for s in published[1:]]
    return Standing(dataset, COLUMNS, tuple(_ranked(lines)))


def _is_numbers(models: Mapping[str, Any]) -> bool:
    return all(isinstance(v, int | float) for v in models.values())


def _published_line(s: Submission) -> Line:
    return Line(s.name, {key: Entry(value, s.errors.get(key), value) for key, value in s.values.items()})


def _entries(ours: Any, geant4: Submission) -> dict[str, Entry]:
    if isinstance(ours, Mapping):
        known = {c.key for c in COLUMNS}
        if unknown := [key for key in ours if key not in known]:
            raise ValueError(f"no published column {unknown[0]!r}; known: {', '.join(sorted(known))}")
        return {key: Entry(float(value), None, float(value)) for key, value in ours.items()}
    scores = [s for item in ours for s in (item.scores if isinstance(item, Findings) else (item,))]
    by_name = {(s.observable, s.metric): s for s in scores}
    found = {c: by_name[c.observable, c.metric] for c in COLUMNS if (c.observable, c.metric) in by_name}
    return {c.key: Entry(s.value, s.error, _carried(c, s, geant4)) for c, s in found.items()}


def _carried(column: Column, score: Score, geant4: Submission) -> float:
    """The score with as many showers as the challenge had: above the published value of Geant4, as it is above ours."""
    if score.metric == "auc":
        return score.value
    if column.key == "pearson":
        return max(score.value**2 - score.floor**2, 0.0) ** 0.5
    if column.better == "geant4":
        return geant4.values[column.key] * (score.value / score.floor if score.floor else 1.0)
    carried = geant4.values[column.key] + score.value - score.floor
    return max(carried, 0.0) if score.metric == METRIC else carried


def _ranked(lines: list[Line]) -> list[Line]:
    ranked = [dict(line.entries) for line in lines]
    for column in COLUMNS:
        key = column.key
        centre = ranked[0][key].value if key in ranked[0] else 0.0
        models = [i for i, entries in enumerate(ranked) if i and key in entries]
        bad = {i: _badness(column, ranked[i][key], centre) for i in models}
        for i in models:
            others = [bad[k] for k in models if k != i]
            margin = RANK_SIGMA * (ranked[i][key].error or 0.0)
            best, rank, worst = (1 + sum(o < bad[i] + shift for o in others) for shift in (-margin, 0.0, margin))
            ranked[i][key] = replace(ranked[i][key], rank=rank, rank_range=(best, worst))
    return [Line(line.name, entries, line.ours) for line, entries in zip(lines, ranked, strict=True)]


def _badness(column: Column, entry: Entry, centre: float) -> float:
    match column.better:
        case "low":
            return entry.carried
        case "high":
            return -entry.carried
        case "geant4":
            return abs(entry.carried - centre)
