"""One self-contained HTML page of an evaluation, and its numbers as JSON and CSV."""

from __future__ import annotations

import base64
import csv
import io
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from calogen.data.showers import Showers
from calogen.evaluate.metrics import INDISTINGUISHABLE_SIGMA, Score
from calogen.evaluate.protocol import EnergyBin, Evaluation
from calogen.report import plots
from calogen.report.display import event, templates, viewer_data, viewer_script

PAGE = "index.html"
FILES = (PAGE, "scores.json", "scores.csv")
"""What a report's folder holds, and nothing else."""
CLEARLY_SIGMA = 5.0
"""From this excess on a row is marked as clearly different."""
DISPLAYS = 3
"""Pairs of showers on the page."""
AIM = 0.02
"""Mean visible energy and hits are asked to agree within this with Geant4 in every decade."""
PER_MILLE = 1e3


@dataclass(frozen=True)
class Timing:
    """Seconds one shower takes; the note says on what. The entry called `Geant4` is the reference of the others."""

    label: str
    seconds_per_shower: float
    note: str = ""


def write_report(
    evaluation: Evaluation,
    out_dir: str | os.PathLike[str],
    *,
    displays: tuple[Showers, Showers] | None = None,
    timing: Sequence[Timing] = (),
    provenance: Mapping[str, str] | None = None,
    title: str = "Generated showers against Geant4",
    overwrite: bool = False,
) -> Path:
    """Write the page, `scores.json` and `scores.csv` into a new folder `out_dir`, all or nothing; returns the page.

    Args:
        evaluation: the numbers.
        out_dir: folder to make.
        displays: generated and true showers, shower i of both for the same incident particle.
        timing: seconds per shower, the model's and Geant4's.
        provenance: what made the files, key by key.
        title: heading of the page.
        overwrite: replace an earlier report; a folder that holds anything else is never replaced.

    Raises:
        ValueError: a folder that is in the way, or showers to display that do not belong together.
    """
    out = Path(out_dir)
    _check_place(out, overwrite)
    contents = dict(zip(FILES, _contents(evaluation, displays, timing, provenance or {}, title), strict=True))
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, content in contents.items():
            (partial / name).write_text(content, encoding="utf-8")
        partial.chmod(0o755)
        _put_in_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out / PAGE


def _check_place(out: Path, overwrite: bool) -> None:
    if not out.parent.is_dir():
        raise ValueError(
            f"the folder {out.parent} does not exist; make it first or choose another place for the report"
        )
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the report")
    held = {p.name for p in out.iterdir()}
    if held and not overwrite:
        raise ValueError(f"{out} exists; choose another folder or allow overwriting")
    if held - set(FILES):
        raise ValueError(f"{out} holds {sorted(held - set(FILES))[0]!r}, which is no part of a report; choose another")


def _put_in_place(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    try:
        out.rename(old / out.name)
        partial.rename(out)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _contents(
    e: Evaluation,
    displays: tuple[Showers, Showers] | None,
    timing: Sequence[Timing],
    provenance: Mapping[str, str],
    title: str,
) -> tuple[str, str, str]:
    scores, table = e.to_json(), _csv(e)
    data = _display_data(*displays) if displays else None
    page = templates().get_template("page.html.j2")
    figures = [plots.svg(plots.observable(h)) for h in e.histograms if not h.name.endswith("_coarse")]
    figures.append(plots.svg(plots.response(e.response)))
    html = page.render(
        title=title,
        e=e,
        tiles=_tiles(e, timing),
        rows=[_table_row(r.title, r.published, (r.jsd, r.wasserstein)) for r in e.scores],
        decades=[_decade(b) for b in e.decades],
        timing=[_timing_row(t, timing) for t in timing],
        figures=figures,
        losses=_losses(e),
        provenance=dict(provenance),
        data=data,
        script=viewer_script(),
        json_base64=base64.b64encode(scores.encode()).decode(),
        csv_base64=base64.b64encode(table.encode()).decode(),
        version=version("calogen"),
    )
    return html, scores, table


def _csv(e: Evaluation) -> str:
    rows = e.rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# ---- what the page says ----


def _tiles(e: Evaluation, timing: Sequence[Timing]) -> list[dict[str, str]]:
    published = [r for r in e.scores if r.published]
    same = sum(r.jsd.indistinguishable for r in published)
    tiles = [
        {"value": f"{same} of {len(published)}", "label": "observables indistinguishable from Geant4 (divergence)"},
    ]
    for quantity, label in (("visible_energy", "visible energy"), ("hits", "hits")):
        worst = max((b for b in e.decades if b.quantity == quantity), key=lambda b: abs(b.ratio - 1), default=None)
        if worst:
            tiles.append(
                {
                    "value": f"{100 * (worst.ratio - 1):+.1f} %",
                    "label": f"mean {label}, worst decade ({_range(worst)} GeV)",
                }
            )
    reference = _geant4(timing)
    models = [t for t in timing if t is not reference]
    if reference and models:
        best = min(models, key=lambda t: t.seconds_per_shower)
        speed = reference.seconds_per_shower / best.seconds_per_shower
        tiles.append({"value": f"{_significant(speed)} x", "label": f"faster than Geant4 ({best.label})"})
    return tiles


def _geant4(timing: Sequence[Timing]) -> Timing | None:
    return next((t for t in timing if t.label == "Geant4"), None)


def _timing_row(t: Timing, timing: Sequence[Timing]) -> dict[str, str]:
    reference = _geant4(timing)
    speed = f"{_significant(reference.seconds_per_shower / t.seconds_per_shower)} x" if reference else ""
    return {"label": t.label, "time": _duration(t.seconds_per_shower), "speed": speed, "note": t.note}


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{_significant(seconds * 1e3)} ms"


def _significant(value: float, digits: int = 3) -> str:
    if not math.isfinite(value) or value == 0:
        return str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _with_error(value: float, error: float) -> str:
    """Value and error rounded to two digits of the error."""
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        return _significant(value)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _table_row(title: str, published: bool, scores: Sequence[Score]) -> dict[str, Any]:
    return {"title": title, "published": published, "scores": [_score_cells(s) for s in scores]}


def _score_cells(s: Score) -> dict[str, str]:
    times = f"{s.value / s.floor:,.1f}" if s.floor > 0 else ""
    return {
        "value": _with_error(PER_MILLE * s.value, PER_MILLE * s.error),
        "floor": _with_error(PER_MILLE * s.floor, PER_MILLE * s.floor_error),
        "times": times,
        "sigma": f"{s.significance:+.1f} σ",
        "tone": tone(s),
    }


def tone(s: Score) -> str:
    """`good` within the floor's reach, `fair` above it, `bad` clearly above it."""
    if s.indistinguishable:
        return "good"
    return "fair" if s.significance < CLEARLY_SIGMA else "bad"


def _range(b: EnergyBin) -> str:
    return f"{b.low_gev:g} to {b.high_gev:g}"


def _decade(b: EnergyBin) -> dict[str, str]:
    off = abs(b.ratio - 1)
    colour = "good" if off <= AIM else "fair" if off <= AIM + INDISTINGUISHABLE_SIGMA * b.ratio_error else "bad"
    return {
        "quantity": "mean visible energy [GeV]" if b.quantity == "visible_energy" else "mean hits",
        "range": _range(b),
        "showers": f"{b.n_generated:,} / {b.n_truth:,}",
        "generated": _with_error(b.generated, b.generated_error),
        "truth": _with_error(b.truth, b.truth_error),
        "ratio": _with_error(b.ratio, b.ratio_error),
        "tone": colour,
        "verdict": f"{100 * (b.ratio - 1):+.1f} %",
    }


def _losses(e: Evaluation) -> list[dict[str, str]]:
    a, b = e.generated_losses, e.truth_losses
    return [
        {"label": label, "generated": of(a), "truth": of(b)}
        for label, of in (
            ("points outside the readout cells", lambda v: f"{v.points_outside:,}"),
            ("energy outside the readout cells", lambda v: _share(v.energy_outside_gev, v)),
            ("cells below threshold", lambda v: f"{v.cells_below_threshold:,}"),
            ("energy below threshold", lambda v: _share(v.energy_below_threshold_gev, v)),
            ("showers without any hit", lambda v: f"{v.empty_showers:,}"),
        )
    ]


def _share(part: float, losses: Any) -> str:
    total = losses.energy_kept_gev + losses.energy_outside_gev + losses.energy_below_threshold_gev
    return f"{100 * part / total:.3f} %" if total > 0 else "0 %"


def _display_data(generated: Showers, truth: Showers) -> str:
    """Pairs spread over the energies: at a fifth, half and nine tenths of the showers sorted by energy.

    Raises:
        ValueError: samples of different length, or none.
    """
    if len(generated) != len(truth) or not len(truth):
        raise ValueError(
            f"displays need as many generated as true showers, one pair a particle; got {len(generated)}, {len(truth)}"
        )
    order = np.argsort(truth.incident.energy, kind="stable")
    places = np.quantile(np.arange(len(truth)), np.linspace(0.2, 0.9, DISPLAYS), method="nearest").astype(int)
    rows = [
        [("Geant4", event(truth, int(i))), ("model", event(generated, int(i)))] for i in order[np.unique(places)][::-1]
    ]
    return viewer_data(rows)
