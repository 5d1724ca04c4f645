"""Where in the space of observables the extreme weights sit: which showers the classifier recognises, and by what."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.evaluate.classifier_weights import Weights, weight_curve
from calogen.evaluate.expectation import Expectation, column_blocks
from calogen.evaluate.findings import Curve, Findings, Matrix, Series
from calogen.evaluate.parts import MODEL, REFERENCE

TAIL = 0.05
"""Share of a sample that is called its tail."""
SIGNIFICANT = 3.0
"""Standard deviations from which a tail or a shift is spoken of."""
SPOKEN, DRAWN, LISTED = 5, 6, 20
"""How many shifts are put into words, drawn as histograms, and listed in the matrix."""
ALIKE = 0.5
"""Neighbouring layers with at least this share of the strongest one's shift are named with it."""
BINS = 30
OUTSIDE = 2e-3
"""Share of the truth and of the tails left outside a drawn histogram at each end."""
ADDED_UP = ("energy", "hits")
"""Observables that begin so are amounts: there is more or less of them."""
FAMILY = 5
"""Numbered observables (layers, rings) from this many on are drawn as a profile."""
LABELS = {
    "all": f"{MODEL}: all",
    "low": f"{MODEL}: recognised",
    "high": f"{MODEL}: most like {REFERENCE}",
    "truth low": f"{REFERENCE}: most like the {MODEL}",
    "truth high": f"{REFERENCE}: missing in the {MODEL}",
}
TEXT = (
    "Weights w = C/(1 - C) of both samples (third samples of the classifiers), and the {share:.0f} % of each sample "
    "with the smallest and the largest weights. Shifts are means of (x - mean of Geant4) / standard deviation of "
    "Geant4{given}."
)


class Observables(NamedTuple):
    """Numbers `[N, k]` of each shower of both samples, their names, and optionally units and incident energies (GeV).

    Names that end in a number (`energy in layer 12`) are members of a family of neighbours, whose sums mean something.
    """

    generated: NDArray[Any]
    truth: NDArray[Any]
    names: Sequence[str]
    units: Sequence[str] | None = None
    incident_generated: NDArray[Any] | None = None
    incident_truth: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class _Tail:
    """Rows of one sample at one end (or all), and their shift in each observable with its error."""

    values: NDArray[np.float64]
    expected: NDArray[np.float64]
    shift: NDArray[np.float64]
    error: NDArray[np.float64]
    incident: NDArray[np.float64] | None

    @classmethod
    def joined(cls, pieces: Sequence[_Tail]) -> _Tail:
        """The same rows of some observables after the other."""
        values, expected = (np.concatenate([getattr(p, k) for p in pieces], axis=1) for k in ("values", "expected"))
        shift, error = (np.concatenate([getattr(p, k) for p in pieces]) for k in ("shift", "error"))
        return cls(values, expected, shift, error, pieces[0].incident)

    @property
    def certain(self) -> NDArray[np.float64]:
        """What is left `[k]` of the sizes of the shifts when two errors are taken off: a few outliers rank low."""
        return np.nan_to_num(np.maximum(np.abs(self.shift) - 2 * self.error, 0))


def classifier_tails(
    weights: Weights, observables: Observables, *, tail: float = TAIL, name: str = "classifier_tails"
) -> Findings:
    """What the showers have in common that a classifier recognises, compared with Geant4 of the same incident energy.

    Args:
        weights: of all rows of both samples (`weights_of`).
        observables: of the same rows; they need not be what the classifier saw.
        tail: share of each sample at either end of the weights.
        name: prefix of the curves.

    Where incident energies are given, shifts are against the mean and spread of Geant4 at the same energy, so that a
    tail of low energies is not taken for a shift. Rows without a weight are left out.

    Raises:
        ValueError: shapes that do not match, or observables that are NaN or infinite.
    """
    start = time.perf_counter()
    _check(weights, observables, tail)
    model = Expectation.of(observables.truth, observables.incident_truth)
    tails = _tails(weights, observables, model, tail)
    order = np.argsort(-np.maximum(tails["low"].certain, tails["truth high"].certain), kind="stable")
    curves = [weight_curve(weights, f"{name}_weights")]
    curves += [_histogram(f"{name}_{i}", int(k), observables, tails) for i, k in enumerate(order[:DRAWN])]
    curves += [_profile(name, prefix, members, observables, model, tails) for prefix, members in _families(observables)]
    known = " at the same incident energy" if observables.incident_truth is not None else ""
    return Findings(
        name,
        "What the classifier recognises",
        TEXT.format(share=100 * tail, given=known),
        curves=tuple(curves),
        matrices=(_matrix(name, order[:LISTED], observables, tails),),
        notes=(*_words(weights, observables, tails, tail), *_left_out(weights, observables, model)),
        seconds=time.perf_counter() - start,
    )


def _check(weights: Weights, o: Observables, tail: float) -> None:
    for what, w, x in (("generated", weights.generated, o.generated), ("truth", weights.truth, o.truth)):
        if x.shape != (w.size, len(o.names)):
            raise ValueError(
                f"{what}: observables of shape {x.shape} for {w.size} showers with weights and {len(o.names)} names"
            )
        if bad := int((~np.isfinite(x)).any(axis=1).sum()):
            raise ValueError(f"{what}: {bad} showers have observables that are NaN or infinite")
    if not 0 < tail <= 0.5:
        raise ValueError(f"tail={tail}: the share of a sample that is its tail must be above 0 and at most 0.5")
    if (o.incident_generated is None) != (o.incident_truth is None):
        raise ValueError("incident energies are given for one sample only; give them for both or for none")


# ---- shifts ----


def _tails(weights: Weights, o: Observables, model: Expectation, tail: float) -> dict[str, _Tail]:
    pieces = [_tails_of(weights, o, model, tail, columns) for columns in column_blocks(len(o.names))]
    return {key: _Tail.joined([piece[key] for piece in pieces]) for key in pieces[0]}


def _tails_of(weights: Weights, o: Observables, model: Expectation, tail: float, columns: slice) -> dict[str, _Tail]:
    tails = {}
    for prefix, w, x, incident in (
        ("", weights.generated, o.generated, o.incident_generated),
        ("truth ", weights.truth, o.truth, o.incident_truth),
    ):
        expected, spread = model.of_columns(columns).at(incident, w.size)
        order = np.flatnonzero(np.isfinite(w))
        order = order[np.lexsort((np.random.default_rng(0).random(order.size), w[order]))]  # ties in random order
        n = max(1, round(tail * order.size))
        for end, rows in (("all", order), ("low", order[:n]), ("high", order[order.size - n :])):
            values = np.asarray(x[rows, columns], dtype=np.float64)
            pull = (values - expected[rows]) / spread[rows]
            error = pull.std(axis=0, ddof=min(1, rows.size - 1)) / math.sqrt(rows.size)
            energy = None if incident is None else np.asarray(incident, dtype=np.float64)[rows]
            shift = pull.mean(axis=0)
            # Of all showers only the shift is asked for: an empty slice would keep all of them alive.
            none = np.empty((0, shift.size))
            held, wanted = (none, none) if end == "all" else (values, expected[rows])
            tails[prefix + end] = _Tail(held, wanted, shift, error, energy)
    return tails


# ---- words ----


class _Group(NamedTuple):
    """Observables spoken of together: `columns` of one family, side by side."""

    columns: list[int]
    words: str
    shift: float


def _family(name: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"(.*\D) (\d+)", name)
    return (match[1], int(match[2])) if match else None


def _families(o: Observables) -> list[tuple[str, list[int]]]:
    """Columns of each numbered family of `FAMILY` or more, in the order of their numbers."""
    members: dict[str, dict[int, int]] = {}
    for column, name in enumerate(o.names):
        if family := _family(name):
            members.setdefault(family[0], {})[family[1]] = column
    sorted_members = {prefix: [m[i] for i in sorted(m)] for prefix, m in members.items()}
    return [(prefix, columns) for prefix, columns in sorted_members.items() if len(columns) >= FAMILY]


def _groups(tail: _Tail, o: Observables) -> list[_Group]:
    """Observables that are shifted beyond their error, the strongest first, neighbours of a family joined."""
    index = {_family(name): column for column, name in enumerate(o.names) if _family(name)}
    significant = np.abs(tail.shift) > SIGNIFICANT * tail.error
    left = [int(k) for k in np.argsort(-tail.certain, kind="stable") if significant[k]]
    groups, used = [], set[int]()
    for top in left:
        if top in used:
            continue
        columns, family = [top], _family(o.names[top])
        if family:
            for step in (-1, 1):
                i = family[1] + step
                while (c := index.get((family[0], i))) is not None and c not in used and _alike(tail, c, top):
                    columns.append(c)
                    i += step
        used.update(columns)
        columns.sort(key=lambda c: (_family(o.names[c]) or ("", 0))[1])
        groups.append(_Group(columns, _named(columns, o), float(tail.shift[top])))
    return groups


def _alike(tail: _Tail, column: int, top: int) -> bool:
    return bool(tail.shift[column] * np.sign(tail.shift[top]) >= ALIKE * abs(tail.shift[top]))


def _named(columns: list[int], o: Observables) -> str:
    first, last = _family(o.names[columns[0]]), _family(o.names[columns[-1]])
    if len(columns) > 1 and first and last:
        return f"{first[0]}s {first[1]} to {last[1]}"
    return o.names[columns[0]]


def _words(weights: Weights, o: Observables, tails: dict[str, _Tail], tail: float) -> list[str]:
    sentences = []
    for key, own, other, who, excess in (
        ("low", weights.generated, weights.truth, "generated showers that the classifier recognises", "generated"),
        (
            "truth high",
            weights.truth,
            weights.generated,
            f"{REFERENCE} showers that the {MODEL} makes too rarely",
            "true",
        ),
    ):
        ratio, significance = _overpopulation(own, other, tail, low=key == "low")
        if significance < SIGNIFICANT:
            end = "smallest" if key == "low" else "largest"
            sentences.append(
                f"The {100 * tail:.0f} % {excess} showers of the {end} weights are no more than chance puts there "
                f"({_signed(significance, 1)} sigma): there is nothing to say about them."
            )
            continue
        rarer = REFERENCE if key == "low" else f"the {MODEL}"
        frequency = f"{rarer} has none there"
        if math.isfinite(ratio):
            frequency = f"{ratio:.1f} times as many as {rarer} has there"
        sentences += _incident(tails, key, f"The {who} ({frequency})")
        groups = _groups(tails[key], o)[:SPOKEN]
        if not groups:
            sentences.append(f"The {who} ({frequency}) are shifted in none of the observables: look at correlations.")
        comparison = "at the same incident energy" if o.incident_truth is not None else "on average"
        sentences += [
            f"The {who} ({frequency}) have {_difference(g, tails[key], o)} than {REFERENCE} {comparison} "
            f"({_signed(g.shift, 2)} standard deviations)."
            for g in groups
        ]
    return sentences


def _incident(tails: dict[str, _Tail], key: str, subject: str) -> list[str]:
    """At which incident energies they are."""
    own, everything = tails[key].incident, tails["truth all"].incident
    if own is None or everything is None:
        return []
    low, middle, high = np.quantile(own, [0.16, 0.5, 0.84])
    usual = np.median(everything)
    return [
        f"{subject} have incident energies of {low:.3g} to {high:.3g} GeV (median {middle:.3g}, of all {usual:.3g})."
    ]


def _overpopulation(
    own: NDArray[np.float64], other: NDArray[np.float64], tail: float, *, low: bool
) -> tuple[float, float]:
    """How many more showers its own sample has in its tail's range of weights, and the significance of that."""
    own, other = own[np.isfinite(own)], other[np.isfinite(other)]
    sign = 1 if low else -1
    limit = np.quantile(sign * own, tail)
    a, b = float(np.mean(sign * own <= limit)), float(np.mean(sign * other <= limit))
    common = (a * own.size + b * other.size) / (own.size + other.size)
    error = math.sqrt(max(common * (1 - common), 1e-12) * (1 / own.size + 1 / other.size))
    return (a / b if b > 0 else math.inf), (a - b) / error


def _difference(g: _Group, tail: _Tail, o: Observables) -> str:
    found, expected = tail.values[:, g.columns].sum(), tail.expected[:, g.columns].sum()
    share = o.truth[:, g.columns]
    if share.min() >= 0 and expected > 0:
        relative = 100 * (found / expected - 1)
        percent = f"{abs(relative):.{1 if abs(relative) < 10 else 0}f} %"
        if not g.words.startswith(ADDED_UP):
            return f"a {percent} {'larger' if relative > 0 else 'smaller'} {g.words}"
        less = "fewer" if g.words.startswith("hits") else "less"
        return f"{percent} {'more' if relative > 0 else less} {g.words}"
    absolute = float((found - expected) / tail.values.shape[0])
    unit = f" {o.units[g.columns[0]]}" if o.units and o.units[g.columns[0]] else ""
    return f"a {g.words} {abs(absolute):.3g}{unit} {'larger' if absolute > 0 else 'smaller'}"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _left_out(weights: Weights, o: Observables, model: Expectation) -> list[str]:
    notes = []
    for label, w in (("generated", weights.generated), ("true", weights.truth)):
        if missing := int(np.isnan(w).sum()):
            notes.append(f"{missing} of {w.size} {label} showers were in no third sample and have no weight.")
    constant = [o.names[k] for k in np.flatnonzero(model.constant).tolist()]
    if constant:
        more = f" and {len(constant) - SPOKEN} more" if len(constant) > SPOKEN else ""
        notes.append(f"Without spread in {REFERENCE} and not compared: {', '.join(constant[:SPOKEN])}{more}.")
    return notes


# ---- figures ----


def _label(o: Observables, column: int) -> str:
    unit = o.units[column] if o.units else ""
    return f"{o.names[column]} [{unit}]" if unit else o.names[column]


def _histogram(name: str, column: int, o: Observables, tails: dict[str, _Tail]) -> Curve:
    shown = [
        (REFERENCE, np.asarray(o.truth[:, column], dtype=np.float64)),
        (MODEL, np.asarray(o.generated[:, column], dtype=np.float64)),
        *((LABELS[key], tails[key].values[:, column]) for key in ("low", "truth high")),
    ]
    reach = np.array([np.quantile(v, [OUTSIDE, 1 - OUTSIDE]) for _, v in shown])
    low, high = float(reach[:, 0].min()), float(reach[:, 1].max())
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    series = []
    for label, values in shown:
        share = np.histogram(values, edges)[0] / values.size
        series.append(Series(label, share, np.sqrt(share * (1 - share) / values.size)))
    return Curve(name, o.names[column].capitalize(), _label(o, column), "share of showers", edges, tuple(series))


def _profile(
    name: str, prefix: str, columns: list[int], o: Observables, model: Expectation, tails: dict[str, _Tail]
) -> Curve:
    """Means of a family's members over those expected of the truth."""
    expected = model.of_columns(columns).at(o.incident_generated, o.generated.shape[0])[0]
    shown = [(MODEL, np.asarray(o.generated[:, columns], dtype=np.float64), expected)]
    shown += [
        (LABELS[key], tails[key].values[:, columns], tails[key].expected[:, columns]) for key in ("low", "truth high")
    ]
    series = [Series(REFERENCE, np.ones(len(columns)), np.zeros(len(columns)))]
    for label, values, mean in shown:
        wanted = mean.mean(axis=0)
        some = wanted > 0
        ratio = np.divide(values.mean(axis=0), wanted, out=np.full(len(columns), np.nan), where=some)
        scatter = values.std(axis=0) / math.sqrt(values.shape[0])
        error = np.divide(scatter, wanted, out=np.zeros(len(columns)), where=some)
        series.append(Series(label, ratio, error))
    number = np.array([float((_family(o.names[c]) or ("", 0))[1]) for c in columns])
    key = re.sub(r"\W+", "_", prefix).strip("_")
    title = f"{prefix.capitalize()}: over the mean of {REFERENCE}"
    return Curve(
        f"{name}_{key}", title, prefix.split()[-1], f"ratio to {REFERENCE}", number, tuple(series), ratio=False
    )


def _matrix(name: str, columns: NDArray[np.int64], o: Observables, tails: dict[str, _Tail]) -> Matrix:
    values = np.stack([tails[key].shift[columns] for key in LABELS], axis=1)
    title = f"Shift of the tails in standard deviations of {REFERENCE}"
    return Matrix(
        f"{name}_shifts", title, tuple(o.names[k] for k in columns), tuple(LABELS.values()), values, -2.0, 2.0
    )
