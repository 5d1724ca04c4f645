"""One self-contained HTML page of a judgement, and its numbers as JSON and CSV."""

from __future__ import annotations

import base64
import csv
import io
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from calogen.evaluate.findings import Findings
from calogen.evaluate.judgement import Judgement
from calogen.report import standing, tables
from calogen.report.browser import asset, safe_json, templates, viewer_data
from calogen.report.events import Row
from calogen.report.folder import FILES, PAGE, check_place, write_folder
from calogen.report.tables import Timing

SCRIPTS = ("figures.js", "page.js", "viewer.js")
OPEN_FIGURES = 24
"""Figures of a section beyond so many are folded."""


def write_report(
    judgement: Judgement,
    out_dir: str | os.PathLike[str],
    *,
    displays: Sequence[Row] = (),
    timing: Sequence[Timing] = (),
    title: str = "Generated showers against Geant4",
    overwrite: bool = False,
) -> Path:
    """Write the page, `scores.json` and `scores.csv` into a new folder `out_dir`, all or nothing; returns the page.

    Args:
        judgement: the numbers, of one or several models.
        out_dir: folder to make.
        displays: showers side by side, each row of the same incident particle (`report.events.matched`).
        timing: seconds per shower, the models' (by their labels) and Geant4's.
        title: heading of the page.
        overwrite: replace an earlier report; a folder that holds anything else is never replaced.

    Raises:
        ValueError: a folder that is in the way.
    """
    out = Path(out_dir)
    check_place(out, overwrite)
    table = _csv(judgement)
    page = _page(judgement, table, displays, timing, title)
    write_folder(out, dict(zip(FILES, (page, judgement.to_json(), table), strict=True)))
    return out / PAGE


def _csv(j: Judgement) -> str:
    rows = j.rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["model", "section"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _page(j: Judgement, table: str, displays: Sequence[Row], timing: Sequence[Timing], title: str) -> str:
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            j=j,
            models=[c.label for c in j.comparisons],
            cards=tables.cards(j, timing),
            groups=tables.score_groups(j),
            sections=[_section(j, name) for name in j.sections()],
            means=tables.means(j),
            losses=tables.losses(j),
            timing=tables.timings(timing),
            published=None if j.standing is None else standing.table(j.standing),
            provenance=[
                (f"Geant4: {j.truth}", tables.flat(j.provenance)),
                *((c.label, tables.flat(c.provenance)) for c in j.comparisons),
            ],
            data=viewer_data(displays, first=len(displays) * 2 // 3) if displays else "",
            numbers=safe_json(j.to_json(indent=False)),
            csv_base64=base64.b64encode(table.encode()).decode(),
            scripts=[asset(name) for name in SCRIPTS],
            version=version("calogen"),
        )
    )


def _section(j: Judgement, name: str) -> dict[str, Any]:
    """One part of the judgement: its words, remarks by model, and which figures and matrices stand in it."""
    parts = [(i, c.label, f) for i, c in enumerate(j.comparisons) for f in c.sections if f.name == name]
    curves = {curve.name: curve.title for _, _, f in parts for curve in f.curves}
    figures = list(curves.items())
    return {
        "name": name,
        "title": parts[0][2].title,
        "text": parts[0][2].text,
        "notes": _notes([(label, f.notes) for _, label, f in parts]),
        "figures": figures[:OPEN_FIGURES],
        "more": figures[OPEN_FIGURES:],
        "matrices": _matrices(parts),
        "seconds": sum(f.seconds for _, _, f in parts),
    }


def _matrices(parts: Sequence[tuple[int, str, Findings]]) -> list[dict[str, Any]]:
    """The matrices of all models, one of a kind after the other; one that all share (Geant4's own) stands once.

    A kind begins a new row, except behind a shared one: Geant4's stands beside the models'.
    """
    found: list[dict[str, Any]] = []
    shared = False
    for name in dict.fromkeys(m.name for _, _, f in parts for m in f.matrices):
        of = [(i, label, m) for i, label, f in parts for m in f.matrices if m.name == name]
        new_row = not shared
        shared = len(of) > 1 and all(np.array_equal(m.values, of[0][2].values, equal_nan=True) for _, _, m in of)
        for place, (i, label, m) in enumerate(of[:1] if shared else of):
            whose = "" if shared else label
            found.append({"model": i, "whose": whose, "name": name, "title": m.title, "first": new_row and place == 0})
    return found


def _notes(by_model: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, str]]:
    """Remarks with the models they are about; those about all models stand once, without a name."""
    whose: dict[str, list[str]] = {}
    for label, notes in by_model:
        for note in notes:
            whose.setdefault(note, []).append(label)
    return [("" if len(labels) == len(by_model) else ", ".join(labels), note) for note, labels in whose.items()]
