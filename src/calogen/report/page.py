"""One self-contained HTML page of a judgement, and its numbers as JSON and CSV."""

from __future__ import annotations

import base64
import csv
import io
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from calogen.evaluate.judgement import Judgement
from calogen.report import sections, standing, tables
from calogen.report.browser import asset, safe_json, templates, viewer_data
from calogen.report.events import Row
from calogen.report.folder import FILES, PAGE, check_place, write_folder
from calogen.report.tables import Timing

SCRIPTS = ("figures.js", "page.js", "viewer.js")


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
    writer.writerows({key: _csv_value(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _csv_value(value: object) -> object:
    """As JSON writes it: `true` and `false`."""
    return str(value).lower() if isinstance(value, bool) else value


def _page(j: Judgement, table: str, displays: Sequence[Row], timing: Sequence[Timing], title: str) -> str:
    settings = tables.flat(j.settings)
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            j=j,
            models=[c.label for c in j.comparisons],
            cards=tables.cards(j, timing),
            groups=tables.score_groups(j),
            sections=[sections.section(j, name) for name in j.sections()],
            together=None if j.competition is None else sections.competition(j.competition),
            posteriors=[] if j.competition is None else tables.posteriors(j.competition),
            means=tables.means(j),
            losses=tables.losses(j),
            timing=tables.timings(timing),
            published=None if j.standing is None else standing.table(j.standing),
            settings=tables.in_short(j.settings),
            provenance=[
                *([("How it was judged", settings)] if settings else []),
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
