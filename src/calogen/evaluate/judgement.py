"""The judgement of one or several models against one truth: every number of it, as JSON and as rows of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from calogen.evaluate.distributions import distributions
from calogen.evaluate.evaluation import Evaluation
from calogen.evaluate.findings import Findings
from calogen.evaluate.published import Standing

FORMAT = 2
"""Version of the JSON layout: 1 was one model and the point-cloud table only."""

_LIST_OF_NUMBERS = re.compile(r"\[\s+((?:-?[\d.e+-]+|null)(?:,\s+(?:-?[\d.e+-]+|null))*)\s+\]")


@dataclass(frozen=True, eq=False)
class Comparison:
    """One model against the truth.

    `findings` are the parts of the judgement; `evaluation` is the point-cloud table where there is one: its scores and
    histograms stand before `findings` in `sections`. `provenance` is what is known of the model's file, `warnings`
    what a reader of the scores must know of the samples beyond what the table says.
    """

    label: str
    n_showers: int
    findings: tuple[Findings, ...] = ()
    evaluation: Evaluation | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @cached_property
    def sections(self) -> tuple[Findings, ...]:
        """All findings, those of the point-cloud table first."""
        first = () if self.evaluation is None else (distributions(self.evaluation),)
        return (*first, *self.findings)

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about this comparison as a whole."""
        return (*self.warnings, *(() if self.evaluation is None else self.evaluation.warnings))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; means by energy and losses of the readout where the point-cloud table is there."""
        e = self.evaluation
        table: dict[str, Any] = {"warnings": list(self.notes)}
        if e is not None:
            table["same_incidents"] = e.same_incidents
            table["response"] = [asdict(b) for b in (*e.decades, *e.response)]
            table["losses"] = {"generated": asdict(e.generated_losses), "truth": asdict(e.truth_losses)}
        return (
            {"label": self.label, "n_showers": self.n_showers}
            | table
            | {"provenance": dict(self.provenance), "findings": [f.to_dict() for f in self.sections]}
        )


@dataclass(frozen=True, eq=False)
class Judgement:
    """Models against the same truth, in one detector. `truth` names the file, `provenance` says what is known of it.

    `standing` is where the models stand among published ones, where that was asked; `competition` what a classifier of
    all models found, with one score a model; `settings` says how it was judged.

    Raises:
        ValueError: no model, two models of one name, or a model whose parts share a name.
    """

    detector: str
    truth: str
    n_truth: int
    comparisons: tuple[Comparison, ...]
    seed: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    standing: Standing | None = None
    competition: Findings | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [c.label for c in self.comparisons]
        if not labels:
            raise ValueError("there is no model to judge; give at least one sample beside the truth")
        if twice := _repeated(labels):
            raise ValueError(f"two models are called {twice!r}; give each a name of its own")
        for c in self.comparisons:
            if twice := _repeated([f.name for f in c.sections]):
                raise ValueError(f"two parts of the judgement of {c.label} are called {twice!r}")

    def sections(self) -> list[str]:
        """Names of the parts, in the order of the first model that has them."""
        return list(dict.fromkeys(f.name for c in self.comparisons for f in c.sections))

    def rows(self) -> list[dict[str, Any]]:
        """One row a score and model: section, observable, metric, model, value, error, floor, verdict."""
        together = () if self.competition is None else self.competition.scores
        return [
            {"model": c.label, "section": f.name} | s.to_dict()
            for c in self.comparisons
            for f in c.sections
            for s in f.scores
        ] + [{"model": s.observable, "section": "log_posterior"} | s.to_dict() for s in together]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; every score has value, error, floor, floor_error and indistinguishable."""
        plain = {
            "format": FORMAT,
            "detector": self.detector,
            "seed": self.seed,
            "settings": dict(self.settings),
            "truth": {"label": self.truth, "n_showers": self.n_truth, "provenance": dict(self.provenance)},
            "models": [c.to_dict() for c in self.comparisons],
        }
        if self.competition is not None:
            plain["competition"] = self.competition.to_dict()
        return plain if self.standing is None else plain | {"published": self.standing.to_dict()}

    def to_json(self, *, indent: bool = True) -> str:
        """JSON text of all numbers, lists of numbers on one line each; a number that does not exist is null."""
        plain = _without_nan(self.to_dict())
        if not indent:
            return json.dumps(plain, separators=(",", ":"), allow_nan=False)
        text = json.dumps(plain, indent=1, allow_nan=False)
        return _LIST_OF_NUMBERS.sub(lambda m: f"[{' '.join(m[1].split())}]", text)


def _repeated(names: list[str]) -> str | None:
    return next((name for i, name in enumerate(names) if name in names[:i]), None)


def _without_nan(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(k): _without_nan(v) for k, v in value.items()}
        case list() | tuple():
            return [_without_nan(v) for v in value]
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case bool() | int() | float() | str() | None:
            return value
        case _ if hasattr(value, "item"):
            return _without_nan(value.item())
        case _:
            return str(value)
