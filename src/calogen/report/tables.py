"""The tables of a report as words: scores of all models side by side, what each model is, means, losses, provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calogen.evaluate.evaluation import EnergyBin, Losses
from calogen.evaluate.findings import Findings
from calogen.evaluate.judgement import Comparison, Judgement
from calogen.evaluate.metrics import INDISTINGUISHABLE_SIGMA, Score
from calogen.report.numbers import TIMES, duration, exponent, power_of_ten, signed, significant, with_error
from calogen.report.words import metric_name, title_of

CLEARLY_SIGMA = 5.0
"""From this distance on a score is marked as clearly different."""
TONES = ("good", "fair", "bad", "none")
AIM = 0.02
"""Mean visible energy and hits are asked to agree within this with Geant4 in every decade."""
OPEN_ROWS = 60
"""Sections of more scores than this are folded at first."""
WORST = 4
"""Sections farthest from Geant4 of which each model's card names the worst score."""
SAME_FLOOR = 0.25
"""Floors that differ by less than this share of their errors are one floor to a reader."""
SAID_ALREADY = ("calogen", "seed")
"""Settings that the page's last line says in any case."""
UNITS = {"sigma": "σ"}


@dataclass(frozen=True)
class Timing:
    """Seconds one shower takes; the note says on what. The entry called `Geant4` is the reference of the others."""

    label: str
    seconds_per_shower: float
    note: str = ""


def tone(s: Score) -> str:
    """`good` within the floor's reach, `fair` above it, `bad` clearly above it, `none` where there is no telling."""
    if math.isnan(s.significance):
        return "none"
    if s.indistinguishable:
        return "good"
    return "fair" if s.significance < CLEARLY_SIGMA else "bad"


# ---- scores ----

Key = tuple[str, str]


def score_groups(j: Judgement) -> list[dict[str, Any]]:
    """One group a section: its title, how each model fares in it, and its rows with one cell a model."""
    groups = []
    for name in j.sections():
        parts = [_section(c, name) for c in j.comparisons]
        scores = [{} if f is None else {(s.observable, s.metric): s for s in f.scores} for f in parts]
        keys = list(dict.fromkeys(key for one in scores for key in one))
        if keys:
            groups.append(
                {
                    "name": name,
                    "title": next(f.title for f in parts if f is not None),
                    "tallies": [tally(list(one.values())) for one in scores],
                    "rows": [_row(key, [one.get(key) for one in scores]) for key in keys],
                    "folded": len(keys) > OPEN_ROWS,
                }
            )
    return groups


def _section(c: Comparison, name: str) -> Findings | None:
    return next((f for f in c.sections if f.name == name), None)


def tally(scores: Sequence[Score]) -> dict[str, int]:
    """How many scores there are of each tone, and in all (those of which nothing can be said left off)."""
    counts = {t: sum(tone(s) == t for s in scores) for t in TONES}
    return counts | {"all": len(scores) - counts["none"]}


def counted_once(sections: Sequence[Findings]) -> list[list[Score]]:
    """The scores of each section without those whose number stands in an earlier one already.

    Two parts of the judge may hold the same distance of the same showers. They have metric, value, error and floor in
    common; without an error, numbers may agree by chance (0 or 1), and are all kept.
    """
    seen: set[tuple[str, float, float, float]] = set()
    kept: list[list[Score]] = []
    for f in sections:
        numbers = {(s.metric, s.value, s.error, s.floor) for s in f.scores if s.error > 0}
        kept.append([s for s in f.scores if (s.metric, s.value, s.error, s.floor) not in seen])
        seen |= numbers
    return kept


def _row(key: Key, scores: Sequence[Score | None]) -> dict[str, Any]:
    there = [s for s in scores if s is not None]
    first = there[0]
    e = exponent([v for s in there for v in (s.value, s.floor)])
    unit = " ".join(filter(None, [power_of_ten(e), UNITS.get(first.unit, first.unit)]))
    floor = _scaled(first.floor, first.floor_error, e)
    best = _best(there) if len(there) > 1 else None
    title = _title(first)
    return {
        "title": title,
        "metric": metric_name(first.metric),
        "unit": unit,
        "floor": floor,
        "words": f"{title} {metric_name(first.metric)} {key[1]}".lower(),
        "different": any(tone(s) in ("fair", "bad") for s in there),
        "cells": [None if s is None else _cell(s, e, first, s is best) for s in scores],
    }


def _scaled(value: float, error: float, e: int) -> str:
    return with_error(value / 10.0**e, error / 10.0**e)


def _cell(s: Score, e: int, first: Score, best: bool) -> dict[str, Any]:
    own_floor = "" if _same_floor(s, first) else _scaled(s.floor, s.floor_error, e)
    times = f", {significant(s.value / s.floor)} {TIMES} the floor" if s.floor > 0 and math.isfinite(s.value) else ""
    return {
        "value": _scaled(s.value, s.error, e),
        "sigma": "" if math.isnan(s.significance) else f"{signed(s.significance)} σ",
        "tone": tone(s),
        "best": best,
        "floor": own_floor,
        "tip": f"{s.value:.6g} ± {s.error:.2g}, floor {s.floor:.6g} ± {s.floor_error:.2g}{times}",
    }


def _same_floor(s: Score, first: Score) -> bool:
    """Whether the floor of the first model, which stands in a column of its own, serves for this one as well."""
    if math.isnan(s.floor) or math.isnan(first.floor):
        return math.isnan(s.floor) and math.isnan(first.floor)
    smallest, largest = sorted((s.floor_error, first.floor_error))
    if not largest > 0:
        return s.floor == first.floor
    return abs(s.floor - first.floor) <= SAME_FLOOR * largest and largest <= (1 + SAME_FLOOR) * smallest


def _best(scores: Sequence[Score]) -> Score | None:
    """The one closest to Geant4, if it is clear of the next by the larger of their errors."""
    known = sorted((s for s in scores if math.isfinite(s.value)), key=_badness)
    if len(known) < 2:
        return None
    apart = _badness(known[1]) - _badness(known[0])
    return known[0] if apart > max(known[0].error, known[1].error) else None


def _badness(s: Score) -> float:
    """How far a score is on the bad side of its own floor, or of zero where there is none."""
    off = s.value if math.isnan(s.floor) else s.excess
    return {"low": off, "high": -off, "both": abs(off)}[s.sense]


def posteriors(competition: Findings) -> list[dict[str, Any]]:
    """The models of a competition, the best first."""
    ranked = sorted(competition.scores, key=_badness)
    floors = [_scaled(s.floor, s.floor_error, 0) for s in ranked]
    cells = [_cell(s, 0, s, best=False) for s in ranked]
    return [c | {"name": s.observable, "floor": f} for s, f, c in zip(ranked, floors, cells, strict=True)]


# ---- models ----


def cards(j: Judgement, timing: Sequence[Timing]) -> list[dict[str, Any]]:
    """What each model is, at a glance: how many scores cannot be told from Geant4, and where it is farthest off."""
    together = {} if j.competition is None else {s.observable: s for s in j.competition.scores}
    return [_card(c, timing, together.get(c.label)) for c in j.comparisons]


def _card(c: Comparison, timing: Sequence[Timing], posterior: Score | None) -> dict[str, Any]:
    once = counted_once(c.sections)
    scores = [s for part in once for s in part]
    worst_of = [max(_telling(part), key=lambda s: s.significance, default=None) for part in once]
    off = [(f.name, s) for f, s in zip(c.sections, worst_of, strict=True) if s and tone(s) in ("fair", "bad")]
    off.sort(key=lambda pair: -pair[1].significance)
    facts = []
    if c.evaluation is not None:
        for quantity, words in (("visible_energy", "mean visible energy"), ("hits", "mean hits")):
            worst = max((b for b in c.evaluation.decades if b.quantity == quantity), key=_off, default=None)
            if worst:
                facts.append((f"{words}, worst decade", f"{signed(100 * (worst.ratio - 1))} %", mean_tone(worst)))
    if aucs := [s for s in scores if s.metric.lower() == "auc" and math.isfinite(s.value)]:
        auc = max(aucs, key=lambda s: s.value)
        facts.append(
            (
                "classifier AUC" if len(aucs) == 1 else "highest classifier AUC",
                with_error(auc.value, auc.error),
                tone(auc),
            )
        )
    if posterior is not None:
        facts.append(("log-posterior among all", with_error(posterior.value, posterior.error), tone(posterior)))
    if speed := _speed(c.label, timing):
        facts.append(("speed against Geant4", speed, ""))
    return {
        "label": c.label,
        "n": c.n_showers,
        "tally": tally(scores),
        "repeated": sum(len(f.scores) for f in c.sections) - len(scores),
        "facts": facts,
        "worst": [
            (name, f"{_title(s)}, {metric_name(s.metric)}", f"{signed(s.significance)} σ", tone(s))
            for name, s in off[:WORST]
        ],
        "notes": list(c.notes),
    }


def _telling(scores: Sequence[Score]) -> list[Score]:
    return [s for s in scores if not math.isnan(s.significance)]


def _title(s: Score) -> str:
    return title_of(s.title or s.observable.replace("_", " "))


def _off(b: EnergyBin) -> float:
    return abs(b.ratio - 1)


def mean_tone(b: EnergyBin) -> str:
    """`good` where the mean agrees within `AIM`, `fair` where it may, `bad` where it does not."""
    off = _off(b)
    return "good" if off <= AIM else "fair" if off <= AIM + INDISTINGUISHABLE_SIGMA * b.ratio_error else "bad"


def means(j: Judgement) -> list[dict[str, Any]]:
    """Mean visible energy and hits of each decade in incident energy, one cell a model."""
    tables = [{} if c.evaluation is None else {_bin_key(b): b for b in c.evaluation.decades} for c in j.comparisons]
    rows = []
    for key in dict.fromkeys(key for table in tables for key in table):
        bins = [table.get(key) for table in tables]
        first = next(b for b in bins if b is not None)
        rows.append(
            {
                "quantity": "visible energy [GeV]" if first.quantity == "visible_energy" else "hits",
                "range": f"{first.low_gev:g} to {first.high_gev:g}",
                "showers": f"{first.n_truth:,}",
                "truth": with_error(first.truth, first.truth_error),
                "cells": [None if b is None else _mean_cell(b) for b in bins],
            }
        )
    return rows


def _bin_key(b: EnergyBin) -> tuple[str, float]:
    return b.quantity, b.low_gev


def _mean_cell(b: EnergyBin) -> dict[str, str]:
    return {
        "value": with_error(b.ratio, b.ratio_error),
        "off": f"{signed(100 * (b.ratio - 1))} %",
        "tone": mean_tone(b),
        "tip": f"mean {b.generated:.6g} ± {b.generated_error:.2g} of {b.n_generated} showers",
    }


def losses(j: Judgement) -> list[dict[str, Any]]:
    """What the readout left out, of Geant4 and of each model."""
    judged = [c.evaluation for c in j.comparisons if c.evaluation is not None]
    if not judged:
        return []
    columns = [judged[0].truth_losses, *(e.generated_losses for e in judged)]
    return [
        {"label": label, "cells": [of(v) for v in columns]}
        for label, of in (
            ("points outside the readout cells", lambda v: f"{v.points_outside:,}"),
            ("energy outside the readout cells", lambda v: _share(v.energy_outside_gev, v)),
            ("cells below threshold", lambda v: f"{v.cells_below_threshold:,}"),
            ("energy below threshold", lambda v: _share(v.energy_below_threshold_gev, v)),
            ("showers without any hit", lambda v: f"{v.empty_showers:,}"),
        )
    ]


def _share(part: float, v: Losses) -> str:
    total = v.energy_kept_gev + v.energy_outside_gev + v.energy_below_threshold_gev
    return f"{100 * part / total:.3f} %" if total > 0 else "0 %"


def timings(timing: Sequence[Timing]) -> list[dict[str, str]]:
    """Time per shower and speed against Geant4."""
    return [
        {
            "label": t.label,
            "time": duration(t.seconds_per_shower),
            "speed": _speed(t.label, timing) or "",
            "note": t.note,
        }
        for t in timing
    ]


def _speed(label: str, timing: Sequence[Timing]) -> str:
    reference = next((t for t in timing if t.label == "Geant4"), None)
    own = next((t for t in timing if t.label == label), None)
    if reference is None or own is None or own is reference:
        return ""
    return f"{significant(reference.seconds_per_shower / own.seconds_per_shower)} {TIMES}"


# ---- provenance ----


def flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as pairs of a dotted key and text."""
    pairs: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", _fact(value)))
    return pairs


def in_short(settings: Mapping[str, Any]) -> str:
    """How it was judged, in a line: of files only which, or that they were given."""
    said = {k: v for k, v in settings.items() if k not in SAID_ALREADY}
    return ", ".join(f"{k} {v.get('file', 'given') if isinstance(v, Mapping) else _fact(v)}" for k, v in said.items())


def _fact(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case None:
            return "none"
        case list() | tuple() if all(isinstance(v, str) for v in value):
            return ", ".join(value) or "none"
        case _:
            return json.dumps(value, default=str)
