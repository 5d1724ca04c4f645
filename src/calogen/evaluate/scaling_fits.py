"""Neural scaling laws: power laws fitted to the losses of runs, with errors, and with what they do not tell left open.

    L(N, D) = E + A / N^alpha + B / D^beta          arXiv:2203.15556 (Hoffmann et al.), eq. 2 and sec. 3.3
    L(C) = E + (C0 / C)^gamma                       arXiv:2001.08361 (Kaplan et al.), eq. 1.3, with a loss that stays

Fitted by least squares of ln L with Huber's loss, from several starts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Floats = NDArray[np.float64]

HUBER = 1e-3
"""Of ln L: where squares become absolute values (arXiv:2203.15556, sec. 3.3)."""
LEVELS = 3
"""Values of a variable that a power of it beside a constant needs at least."""
STEEPEST = 4.0
"""The largest exponent that is looked at; one that ends here, or at 0, is not known."""
REPLICAS = 100
"""Fits to residuals drawn anew, behind the errors."""
AT_BOUND = 0.1
"""Share of such fits that may end at a bound before a parameter counts as not fixed."""
KNOWN = 0.5
"""A parameter is fixed if its error is at most this share of it."""
FAINTEST = 1e-4
"""Of the least loss: a term below it, or an E below it, is none."""
START_E, START_EXPONENT = (0.2, 0.7, 0.95), (0.15, 0.6)
"""Of the least loss, and exponents that fits are started from."""


@dataclass(frozen=True)
class Estimate:
    """A parameter, its error, and whether the runs fix it; if not the value is only where the fit ended."""

    value: float
    error: float
    fixed: bool


@dataclass(frozen=True)
class ScalingFit:
    """A fitted law, or why there is none.

    `estimates` by the symbols of the formula; `scatter` is the root mean square of ln L about the law.
    """

    formula: str
    runs: int = 0
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    scatter: float = math.nan
    problem: str = ""

    def value(self, symbol: str) -> float:
        """A parameter; NaN where there is none."""
        return self.estimates[symbol].value if symbol in self.estimates else math.nan

    @property
    def irreducible(self) -> Estimate | None:
        """E, where the runs fix it."""
        found = self.estimates.get("E")
        return found if found is not None and found.fixed else None

    @property
    def open(self) -> tuple[str, ...]:
        """Symbols that the runs do not fix."""
        return tuple(symbol for symbol, estimate in self.estimates.items() if not estimate.fixed)


@dataclass(frozen=True)
class _Law:
    """L = exp(p_0) + sum_k exp(p_{2k+1} - p_{2k+2} x_k) of K centred logarithms x [K, n]."""

    x: Floats

    def __call__(self, p: Floats) -> Floats:
        return np.exp(p[0]) + self._terms(p).sum(0)

    def slopes(self, p: Floats) -> Floats:
        """Derivatives of ln L by the parameters [n, 1 + 2 K]."""
        terms = self._terms(p)
        out = np.empty((len(p), self.x.shape[1]))
        out[0], out[1::2], out[2::2] = np.exp(p[0]), terms, -terms * self.x
        return (out / out[[0, *range(1, len(p), 2)]].sum(0)).T

    def _terms(self, p: Floats) -> Floats:
        return np.exp(p[1::2, None] - p[2::2, None] * self.x)


def fit_parameters_and_data(parameters: Sequence[float], tokens: Sequence[float], loss: Sequence[float]) -> ScalingFit:
    """L(N, D) of runs of N parameters, D training tokens and final loss.

    A variable of fewer than `LEVELS` values is held: only the runs of its largest value are used, and its term is part
    of E then, which the formula says. Errors are of `REPLICAS` fits to the law with residuals drawn anew.

    Raises:
        ValueError: not equally many of each, or numbers that are not above 0.
    """
    n, d, losses = (_checked(name, v) for name, v in (("parameters", parameters), ("tokens", tokens), ("loss", loss)))
    if not len(n) == len(d) == len(losses):
        raise ValueError(
            f"{len(n)} parameters, {len(d)} tokens and {len(losses)} losses: give one of each for every run"
        )
    levels = {"N": len(np.unique(n)), "D": len(np.unique(d))}
    used = [name for name, number in levels.items() if number >= LEVELS]
    values = {"N": n, "D": d}
    if not used:
        return ScalingFit(
            _formula(["N", "D"]),
            len(losses),
            problem=f"{levels['N']} sizes and {levels['D']} amounts of data: a power law "
            f"beside a constant needs at least {LEVELS} of one of them",
        )
    here = np.ones(len(losses), dtype=bool)
    for name in values.keys() - set(used):
        here &= values[name] == values[name].max()
    formula = _formula(used)
    unknowns = 1 + 2 * len(used)
    if here.sum() <= unknowns or any(len(np.unique(values[name][here])) < LEVELS for name in used):
        return ScalingFit(
            formula,
            int(here.sum()),
            problem=f"{here.sum()} runs do not fix {unknowns} parameters: give at least {unknowns + 1}",
        )
    logs = np.log([values[name][here] for name in used])
    centre = logs.mean(1)
    return _fitted(formula, _Law(logs - centre[:, None]), np.log(losses[here]), used, centre)


SYMBOLS = {"N": ("A", "alpha"), "D": ("B", "beta")}
"""Factor and exponent of a variable's term."""


def _formula(used: Sequence[str]) -> str:
    terms = " + ".join(f"{SYMBOLS[name][0]} / {name}^{SYMBOLS[name][1]}" for name in used)
    held = " at the largest " + {"N": "D", "D": "N"}[used[0]] if len(used) == 1 else ""
    return f"L({', '.join(used)}) = E + {terms}{held}"


def _fitted(formula: str, law: _Law, log_loss: Floats, used: Sequence[str], centre: Floats) -> ScalingFit:
    best = _solve(law, log_loss, _starts(law, log_loss))
    residuals = log_loss - np.log(law(best))
    m, k = len(log_loss), len(best)
    widened = (residuals - residuals.mean()) * math.sqrt(m / (m - k))
    rng = np.random.default_rng(0)
    replicas = np.array([_solve(law, np.log(law(best)) + rng.choice(widened, m), [best], 100) for _ in range(REPLICAS)])
    bounds = _bounds(log_loss, k)
    estimates = {"E": _estimate(np.exp(best[0]), np.exp(replicas[:, 0]), _stuck(replicas[:, 0], bounds[:, 0]))}
    for i, name in enumerate(used):
        factor, exponent = SYMBOLS[name]
        column = 2 + 2 * i
        stuck = _stuck(replicas[:, column], bounds[:, column]) or _stuck(replicas[:, column - 1], bounds[:, column - 1])
        logs = replicas[:, column - 1] + replicas[:, column] * centre[i]
        log_value = best[column - 1] + best[column] * centre[i]
        estimates[exponent] = _estimate(best[column], replicas[:, column], stuck)
        estimates[factor] = _in_logs(log_value, logs, stuck)
    return ScalingFit(formula, m, _separated(estimates), float(np.sqrt(np.mean(residuals**2))))


# ---- compute ----


@dataclass(frozen=True)
class TrainingCurve:
    """Compute spent [n] (ascending) and the validation loss then [n] of one run."""

    compute: Sequence[float]
    loss: Sequence[float]


def envelope(curves: Sequence[TrainingCurve]) -> tuple[Floats, Floats]:
    """Compute and loss of the points that are better than all with less compute, from where all curves have begun.

    >>> envelope([TrainingCurve([1, 2, 3], [5, 4, 3.5]), TrainingCurve([2, 4, 6], [4.5, 3.6, 2])])
    (array([2., 3., 6.]), array([4. , 3.5, 2. ]))
    """
    begun = max(curve.compute[0] for curve in curves)
    points = sorted(
        (float(c), float(nats)) for curve in curves for c, nats in zip(curve.compute, curve.loss, strict=True)
    )
    kept: list[tuple[float, float]] = []
    for c, nats in points:
        if not kept or nats < kept[-1][1]:
            kept.append((c, nats))
    kept = [point for point in kept if point[0] >= begun]
    return np.array([c for c, _ in kept]), np.array([nats for _, nats in kept])


def fit_compute(curves: Sequence[TrainingCurve]) -> ScalingFit:
    """L(C) along the lower envelope of training curves; errors are of the jackknife over runs."""
    formula = "L(C) = E + (C0 / C)^gamma"
    curves = [curve for curve in curves if len(curve.compute)]
    if len(curves) < LEVELS:
        return ScalingFit(formula, len(curves), problem=f"{len(curves)} training curves: give at least {LEVELS} runs")
    c, nats = envelope(curves)
    if len(c) < MIN_ENVELOPE:
        return ScalingFit(
            formula,
            len(curves),
            problem=f"the lower envelope of the curves has {len(c)} points, {MIN_ENVELOPE} are "
            "needed: give more steps, or sizes that are further apart",
        )
    centre = float(np.log(c).mean())
    best = _envelope_fit(c, nats, centre)
    left = [envelope([other for other in curves if other is not curve]) for curve in curves]
    replicas = np.array([_envelope_fit(*some, centre, [best]) for some in left if len(some[0]) >= MIN_ENVELOPE])
    m = len(replicas)
    if m < LEVELS:
        return ScalingFit(formula, len(curves), problem="the envelope is of one or two runs alone: give more sizes")
    widen = math.sqrt(m - 1)  # of the jackknife: (m - 1) / m · the sum of squares
    bounds = _bounds(np.log(nats), len(best))
    estimates = {"E": _estimate(np.exp(best[0]), np.exp(replicas[:, 0]), _stuck(replicas[:, 0], bounds[:, 0]), widen)}
    stuck = _stuck(replicas[:, 2], bounds[:, 2]) or _stuck(replicas[:, 1], bounds[:, 1])
    estimates["gamma"] = _estimate(best[2], replicas[:, 2], stuck, widen)
    estimates["C0"] = _in_logs(
        best[1] / max(best[2], FAINTEST) + centre,
        replicas[:, 1] / np.maximum(replicas[:, 2], FAINTEST) + centre,
        stuck,
        widen,
    )
    law = _Law(np.log(c)[None] - centre)
    scatter = float(np.sqrt(np.mean((np.log(nats) - np.log(law(best))) ** 2)))
    return ScalingFit(formula, len(curves), _separated(estimates), scatter)


MIN_ENVELOPE = 6
"""Points of an envelope: twice the parameters."""


def _envelope_fit(c: Floats, nats: Floats, centre: float, starts: Sequence[Floats] = ()) -> Floats:
    law = _Law(np.log(c)[None] - centre)
    return _solve(law, np.log(nats), starts or _starts(law, np.log(nats)))


# ---- solving ----


def _checked(name: str, values: Sequence[float]) -> Floats:
    out = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(out) & (out > 0)))
    if len(bad):
        raise ValueError(f"{name} of run {bad[0]} is {out[bad[0]]:g}; logarithms need finite numbers above 0")
    return out


def _bounds(log_loss: Floats, unknowns: int) -> Floats:
    """Lowest and highest value of each parameter [2, unknowns]."""
    low, high = float(log_loss.min()), float(log_loss.max())
    faint = low + math.log(FAINTEST)
    terms = (unknowns - 1) // 2
    return np.array([[faint, *(faint, 0.0) * terms], [low, *(high + 1.0, STEEPEST) * terms]])


def _starts(law: _Law, log_loss: Floats) -> list[Floats]:
    """Ways to share the least loss between E and the terms, with flat and steep ones."""
    least, terms = math.exp(log_loss.min()), len(law.x)
    starts = []
    for share, *exponents in itertools.product(START_E, *[START_EXPONENT] * terms):
        rest = (math.exp(log_loss.mean()) - share * least) / terms
        pairs = [(math.log(rest), exponent) for exponent in exponents]
        starts.append(np.array([math.log(share * least), *itertools.chain(*pairs)]))
    return starts


def _solve(law: _Law, log_loss: Floats, starts: Sequence[Floats], tries: int = 400) -> Floats:
    """The best of the fits from some starts."""
    bounds = _bounds(log_loss, len(starts[0]))
    inside = FAINTEST * (bounds[1] - bounds[0])
    solved = [
        least_squares(
            lambda p: np.log(law(p)) - log_loss,
            np.clip(start, bounds[0] + inside, bounds[1] - inside),
            jac=law.slopes,
            bounds=(bounds[0], bounds[1]),
            loss="huber",
            f_scale=HUBER,
            x_scale="jac",
            max_nfev=tries,
        )
        for start in starts
    ]
    best: Floats = min(solved, key=lambda one: one.cost).x
    return best


def _stuck(values: Floats, bounds: Floats) -> bool:
    """Whether fits end at a bound."""
    reach = 1e-2 * (bounds[1] - bounds[0])
    at = (values < bounds[0] + reach) | (values > bounds[1] - reach * 1e-4)
    return bool(at.mean() > AT_BOUND)


def _estimate(value: float, replicas: Floats, stuck: bool, widen: float = 1.0) -> Estimate:
    error = widen * float(replicas.std())
    return Estimate(float(value), error, bool(not stuck and error <= KNOWN * abs(value)))


def _separated(estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """E is known only beside terms that are: with an exponent that is not, any other E would do."""
    known = all(estimate.fixed for symbol, estimate in estimates.items() if symbol in EXPONENTS)
    return {s: replace(e, fixed=e.fixed and known) if s == "E" else e for s, e in estimates.items()}


EXPONENTS = ("alpha", "beta", "gamma")


def _in_logs(log_value: float, logs: Floats, stuck: bool, widen: float = 1.0) -> Estimate:
    """Of what is known by its logarithm: fixed where that is to a factor of e."""
    spread = widen * float(logs.std())
    value = math.exp(min(log_value, LARGEST_LOG))
    return Estimate(value, value * spread, not stuck and spread <= 1)


LARGEST_LOG = 700.0
"""exp of it is a number still."""
