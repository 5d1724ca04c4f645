"""What is studied: which solvers, with how many evaluations, on how many showers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from calogen.evaluate.classifier_training import MIN_SHOWERS
from calogen.methods.adaptive import NAME as ADAPTIVE
from calogen.methods.adaptive import AdaptiveSolver
from calogen.methods.solvers import STEPS
from calogen.overrides import nearest
from calogen.systems.bespoke_stage import ERRORS

BESPOKE = "bespoke"
STORED = "stored"
"""The bespoke solvers that the state has."""
SOLVERS = (*STEPS, ADAPTIVE, BESPOKE, STORED)

Error = Literal["local", "global"]


@dataclass(frozen=True)
class Request:
    """What is studied. Raises ValueError for solvers that are none, and numbers that cannot be meant."""

    showers: int = 1000  # of each solver, at most as many as the truth has
    flows: tuple[str, ...] = ()  # stages of bespoke solvers; none: all
    solvers: tuple[str, ...] = SOLVERS
    evaluations: tuple[int, ...] = (4, 8, 16, 32, 64)  # of solvers in equal steps, where these allow them
    tolerances: tuple[float, ...] = (1e-1, 1e-2, 1e-3)  # of the adaptive solver
    bespoke: tuple[int, ...] = (4, 8, 16)  # evaluations of the solvers that are fitted
    errors: tuple[Error, ...] = ("local", "global")  # that they are fitted by
    plan: Mapping[str, object] = field(default_factory=dict)  # changes to the stage's plan
    fit_showers: int | None = None  # whose fine paths they learn from; None: as many as the stage takes
    repeats: int = 3  # trainings of each classifier
    batch_size: int = 32
    rounds: int = 3  # of the first batch, of which the least processor time counts
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)  # further ones of `sample`

    def __post_init__(self) -> None:
        for name, known in (("solvers", SOLVERS), ("errors", tuple(ERRORS))):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f"{name}: unknown {value!r}; {nearest(value, known)}")
            if not getattr(self, name):
                raise ValueError(f"{name}: none given; choose of {', '.join(known)}")
        for name in ("evaluations", "bespoke"):
            if min(getattr(self, name), default=1) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: give numbers of at least 1")
        for name in ("repeats", "batch_size", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a number of at least 1")
        if self.showers < MIN_SHOWERS:
            raise ValueError(f"{self.showers} showers: the classifier needs at least {MIN_SHOWERS}")
        if self.fit_showers is not None and self.fit_showers < 1:
            raise ValueError(f"fit_showers={self.fit_showers}: give a number of at least 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: give 0 or a positive number")
        for tolerance in self.tolerances:
            AdaptiveSolver(tolerance)
