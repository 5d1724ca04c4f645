"""The published submissions with the judged models among them, as words: values, ranks and how many were ranked."""

from __future__ import annotations

from typing import Any

from calogen.evaluate.published import GEANT4, Column, Entry, Line, Standing
from calogen.report.numbers import compact

PODIUM = 3
"""Ranks that are marked."""
ABOUT = "≈"
"""Before numbers carried to the challenge's size."""


def table(standing: Standing) -> dict[str, Any]:
    """Heads and lines of the table; columns in which no judged model has a number are marked as `more`."""
    own = {key for line in standing.lines if line.ours for key in line.entries}
    columns = [c for c in standing.columns if any(c.key in line.entries for line in standing.lines)]
    return {
        "heads": [{"title": c.title, "more": c.key not in own, "better": _BETTER[c.better]} for c in columns],
        "lines": [
            {
                "name": line.name,
                "ours": line.ours,
                "geant4": line.name == GEANT4 and not line.ours,
                "cells": [_cell(line.entries.get(c.key)) | {"more": c.key not in own} for c in columns],
            }
            for line in standing.lines
        ],
    }


_BETTER = {"low": "lower is better", "high": "higher is better", "geant4": "closer to Geant4 is better"}


def _cell(entry: Entry | None) -> dict[str, Any]:
    if entry is None:
        return {"value": "", "rank": "", "sort": "", "tip": "", "podium": False}
    error = "" if entry.error is None else f" ± {entry.error:.2g}"
    carried = "" if entry.carried == entry.value else f" measured; carried to the challenge's size: {entry.carried:.4g}"
    return {
        "value": _shown(entry),
        "rank": _rank(entry),
        "sort": f"{entry.carried:.9g}",
        "tip": f"{entry.value:.6g}{error}{carried}",
        "podium": entry.rank is not None and entry.rank <= PODIUM,
    }


def _shown(entry: Entry) -> str:
    """The number that is ranked, marked where it is not the one measured."""
    return compact(entry.value) if entry.carried == entry.value else f"{ABOUT}{compact(entry.carried)}"


def _rank(entry: Entry) -> str:
    if entry.rank is None:
        return ""
    low, high = entry.rank_range or (entry.rank, entry.rank)
    return str(entry.rank) if low == high else f"{low}–{high}"


def ranking(standing: Standing) -> list[tuple[str, ...]]:
    """One row a column: title, ranked value and rank of each model, Geant4 against itself, best submission."""
    ours = [line for line in standing.lines if line.ours]
    geant4 = next(line for line in standing.lines if line.name == GEANT4)
    others = [line for line in standing.lines if not line.ours and line is not geant4]
    rows = [("", *(line.name for line in ours), GEANT4, "best submission")]
    for column in standing.columns:
        if any(column.key in line.entries for line in ours):
            rows.append(
                (
                    column.title,
                    *(_placed(line, column, standing) for line in ours),
                    _value(geant4, column),
                    _best(others, column),
                )
            )
    return rows


def _placed(line: Line, column: Column, standing: Standing) -> str:
    entry = line.entries.get(column.key)
    if entry is None:
        return "–"
    ranked = sum(column.key in other.entries for other in standing.lines if other.name != GEANT4)
    return f"{_shown(entry)} (rank {_rank(entry)} of {ranked})"


def _value(line: Line, column: Column) -> str:
    entry = line.entries.get(column.key)
    return "–" if entry is None else compact(entry.value)


def _best(lines: list[Line], column: Column) -> str:
    ranked = [(line.entries[column.key].rank or 0, line) for line in lines if column.key in line.entries]
    if not ranked:
        return "–"
    best = min(ranked, key=lambda pair: pair[0])[1]
    return f"{best.name} {_value(best, column)}"
