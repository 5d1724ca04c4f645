"""One part of the judgement on the page: figures all models share, and blocks of what is one model's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from calogen.evaluate.findings import Curve, Findings, Matrix
from calogen.evaluate.judgement import Judgement

OPEN_FIGURES = 24
"""Figures of a section, or of one model's block in it, beyond so many are folded."""
OWN_PREFIX = "classifier"
"""Findings whose names begin so are of one model throughout: each classifier has outputs and observables of its own."""
REFERENCE = re.compile(r"^(geant4|truth)", re.IGNORECASE)
"""Series that are Geant4's; figures.js knows them by the same words."""
SAME_MATRIX = 1e-6
"""Share of the colour range by which matrices may differ and still stand once."""
SHORT_TEXT, LEAST_REST = 320, 160
"""Letters of a definition beyond which its further sentences are folded, if these have so many."""
LEAST_LEAD = 40
"""Letters that neighbouring notes must have in common for these to be said only once."""


@dataclass(frozen=True)
class Figure:
    """One figure: its curve by name and title; `model` where it is drawn of one model alone, -1 for all."""

    name: str
    title: str
    model: int = -1


@dataclass(frozen=True)
class Panel:
    """One matrix of one model (-1: of the competition of all); `whose` where not all models share it."""

    model: int
    name: str
    title: str
    whose: str = ""
    first: bool = False


@dataclass(frozen=True)
class Note:
    """A remark: a sentence, or the beginning that several have in common and how each goes on."""

    text: str
    items: tuple[str, ...] = ()
    whose: str = ""


@dataclass(frozen=True)
class Block:
    """Notes, figures and matrices: of all models, or of the one called `label`."""

    notes: tuple[Note, ...] = ()
    figures: tuple[Figure, ...] = ()
    more: tuple[Figure, ...] = ()
    matrices: tuple[Panel, ...] = ()
    model: int = -1
    label: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the judgement: what was measured (`text`, its further sentences in `rest`), together and by model."""

    name: str
    title: str
    text: str
    rest: str
    notes_title: str
    shared: Block
    own: tuple[Block, ...] = field(default=())


Parts = Sequence[tuple[int, str, Findings]]


def section(j: Judgement, name: str) -> Section:
    """The part called `name`.

    A figure in which a model has several lines, or which only that model has, stands in the model's own block, and so
    do then its notes and matrices.
    """
    parts = [(i, c.label, f) for i, c in enumerate(j.comparisons) for f in c.sections if f.name == name]
    several = len(j.comparisons) > 1
    shared = {} if several and name.startswith(OWN_PREFIX) else _shared_figures(parts, several)
    alone = [
        (i, [Figure(c.name, c.title, i) for c in f.curves if (c.name, c.title) not in shared]) for i, _, f in parts
    ]
    text, rest = _folded(parts[0][2].text)
    heading = "What the classifier sees" if name.startswith(OWN_PREFIX) else ""
    title = parts[0][2].title
    if not any(figures for _, figures in alone):
        notes = _grouped(_notes([(label, f.notes) for _, label, f in parts]))
        block = _block(list(shared.values()), notes, _matrices(parts))
        return Section(name, title, text, rest, heading, block)
    common = _common_notes(parts) if several else []
    own = tuple(
        _block(
            figures,
            _grouped([("", note) for note in f.notes if note not in common]),
            _matrices([(i, label, f)]),
            i,
            label,
        )
        for (i, label, f), (_, figures) in zip(parts, alone, strict=True)
    )
    return Section(
        name, title, text, rest, heading, _block(list(shared.values()), _grouped([("", n) for n in common])), own
    )


def competition(findings: Findings) -> Section:
    """What a classifier of all models at once found."""
    text, rest = _folded(findings.text)
    panels = tuple(Panel(-1, m.name, m.title) for m in findings.matrices)
    block = Block(_grouped([("", note) for note in findings.notes]), matrices=panels)
    return Section(findings.name, findings.title, text, rest, "", block)


def _block(
    figures: Sequence[Figure],
    notes: tuple[Note, ...],
    matrices: tuple[Panel, ...] = (),
    model: int = -1,
    label: str = "",
) -> Block:
    return Block(notes, tuple(figures[:OPEN_FIGURES]), tuple(figures[OPEN_FIGURES:]), matrices, model, label)


def _shared_figures(parts: Parts, several: bool) -> dict[tuple[str, str], Figure]:
    """Figures of all models by the name and title of their curves."""
    keys = dict.fromkeys((c.name, c.title) for _, _, f in parts for c in f.curves)
    if not several:
        return {key: Figure(*key) for key in keys}
    curves = {key: [c for _, _, f in parts for c in f.curves if (c.name, c.title) == key] for key in keys}
    return {
        key: Figure(*key) for key, of in curves.items() if len(of) == len(parts) and all(_own_lines(c) <= 1 for c in of)
    }


def _own_lines(c: Curve) -> int:
    """Lines of a figure that are not Geant4's."""
    return sum(not ((i == 0 and c.ratio) or REFERENCE.match(s.label)) for i, s in enumerate(c.series))


def _matrices(parts: Parts) -> tuple[Panel, ...]:
    """The matrices of all models, one of a kind after the other; one that several share (Geant4's own) stands once.

    With several models a kind begins a new row, except behind one that all share: Geant4's stands beside the models'.
    """
    found: list[Panel] = []
    several, new_row = len(parts) > 1, len(parts) > 1
    for name in dict.fromkeys(m.name for _, _, f in parts for m in f.matrices):
        of = [(i, label, m) for i, label, f in parts for m in f.matrices if m.name == name]
        groups: list[list[tuple[int, str, Matrix]]] = []
        for one in of:
            same = next((g for g in groups if _same(g[0][2], one[2])), None)
            groups.append([one]) if same is None else same.append(one)
        for place, group in enumerate(groups):
            whose = "" if len(group) == len(parts) else ", ".join(label for _, label, _ in group)
            i, _, m = group[0]
            found.append(Panel(i, name, m.title, whose, new_row and place == 0))
        new_row = several and len(groups) > 1
    return tuple(found)


def _same(a: Matrix, b: Matrix) -> bool:
    labels = a.row_labels == b.row_labels and a.column_labels == b.column_labels
    near = SAME_MATRIX * max(a.high - a.low, 0.0)
    return labels and bool(np.allclose(a.values, b.values, rtol=0.0, atol=near, equal_nan=True))


# ---- words ----


def _folded(text: str) -> tuple[str, str]:
    """A definition's first sentences, and the rest where it is long."""
    if len(text) <= SHORT_TEXT + LEAST_REST:
        return text, ""
    ends = [m.end() for m in re.finditer(r"\. (?=[A-Z])", text)]
    cut = max((e for e in ends if e <= SHORT_TEXT), default=ends[0] if ends else len(text))
    return text[:cut].rstrip(), text[cut:]


def _notes(by_model: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, str]]:
    """Remarks with the models they are about; those about all models stand once, without a name."""
    whose: dict[str, list[str]] = {}
    for label, notes in by_model:
        for note in notes:
            whose.setdefault(note, []).append(label)
    return [("" if len(labels) == len(by_model) else ", ".join(labels), note) for note, labels in whose.items()]


def _common_notes(parts: Parts) -> list[str]:
    return [note for whose, note in _notes([(label, f.notes) for _, label, f in parts]) if not whose]


def _grouped(notes: Sequence[tuple[str, str]]) -> tuple[Note, ...]:
    """Neighbouring notes that begin with the same words, said once."""
    groups: list[tuple[str, str, list[str]]] = []
    for whose, note in notes:
        if groups and groups[-1][0] == whose and len(lead := _lead(groups[-1][1], note)) >= LEAST_LEAD:
            groups[-1] = (whose, lead, [*groups[-1][2], note])
        else:
            groups.append((whose, note, [note]))
    return tuple(
        Note(lead, (), whose) if len(of) == 1 else Note(lead.rstrip(), tuple(n[len(lead) :] for n in of), whose)
        for whose, lead, of in groups
    )


def _lead(a: str, b: str) -> str:
    """Whole words at the beginning that both have in common."""
    differ = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[: a.rfind(" ", 0, differ) + 1]
