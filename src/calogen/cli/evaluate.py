"""`calogen evaluate`: generated showers against the truth, as a page, numbers and a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from calogen.cli.files import points
from calogen.cli.options import Overwrite, Quiet
from calogen.cli.output import require_free_folder
from calogen.cli.screen import say, table

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.evaluate.metrics import Score
    from calogen.evaluate.protocol import Evaluation


DISPLAY_SHOWERS = 200
"""Showers of which some pairs are drawn."""


def evaluate(
    generated: Annotated[Path, Parameter(metavar="GENERATED", help="Showers of a model.")],
    truth: Annotated[Path, Parameter(metavar="TRUTH", help="Showers of Geant4, best of the same particles.")],
    *,
    output: Annotated[
        Path, Parameter(name=("--output", "-o"), metavar="DIR", help="Directory of the report, to be made.")
    ],
    floor: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="Other Geant4 showers; the floor is then their distance to TRUTH."),
    ] = None,
    seed: Annotated[int, Parameter(help="Seed of the resampling behind errors and floors.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Judge generated showers against Geant4: distributions, means and displays on one page.

    Both are projected into the detector's cells and cut at its thresholds. Scores are Jensen-Shannon divergences
    (natural logarithm) and Wasserstein distances (in standard deviations of the truth), each with its error and
    with the floor that two Geant4 samples of these sizes reach. Energies in GeV, lengths in mm.
    """
    require_free_folder(output, overwrite)
    from calogen.data.formats import batches
    from calogen.evaluate.protocol import evaluate as judge
    from calogen.report.page import write_report

    def stream(path: Path) -> Iterator[Showers]:
        return (points(batch) for batch in batches(path))

    evaluation = judge(stream(generated), stream(truth), floor_sample=stream(floor) if floor else None, seed=seed)
    page = write_report(
        evaluation,
        output,
        displays=_displays(generated, truth) if evaluation.same_incidents else None,
        provenance={"generated": generated.name, "truth": truth.name},
        overwrite=overwrite,
    )
    score_table(evaluation, quiet=quiet)
    for warning in evaluation.warnings:
        say(f"note: {warning}", quiet=quiet)
    say(f"report in {page}", quiet=quiet)


def _displays(generated: Path, truth: Path) -> tuple[Showers, Showers] | None:
    """The first showers of both files, if they are of the same particles in the same order."""
    import numpy as np

    from calogen.data.formats import read

    a, b = (points(read(path, stop=DISPLAY_SHOWERS)) for path in (generated, truth))
    return (a, b) if np.allclose(a.incident.energy, b.incident.energy, rtol=1e-4, atol=0) else None


def score_table(evaluation: Evaluation, *, quiet: bool = False) -> None:
    """The scores with their floors, in thousandths."""
    rows = [(row.title, *_cells(row.jsd), *_cells(row.wasserstein)) for row in evaluation.scores if row.published]
    title = (
        f"{evaluation.n_generated} generated and {evaluation.n_truth} Geant4 showers in {evaluation.detector}: "
        "Jensen-Shannon divergence (JSD, nat) and Wasserstein distance (W, standard deviations), in thousandths"
    )
    columns = ("observable", "JSD", "floor", "excess", "W", "floor", "excess")
    table(title, columns, rows, quiet=quiet)
    for quantity, name in (("visible_energy", "visible energy"), ("hits", "hits")):
        bins = [b for b in evaluation.decades if b.quantity == quantity]
        text = ", ".join(f"{100 * (b.ratio - 1):+.1f} % at {b.low_gev:g} to {b.high_gev:g} GeV" for b in bins)
        say(f"mean {name} against Geant4: {text}", quiet=quiet)


def _cells(score: Score) -> tuple[str, str, str]:
    """Value, floor and significance in thousandths, rounded to two digits of the error."""
    value, error, floor = (1e3 * v for v in (score.value, score.error, score.floor))
    decimals = max(0, 1 - math.floor(math.log10(error))) if 0 < error < math.inf else 1
    return f"{value:.{decimals}f} ± {error:.{decimals}f}", f"{floor:.{decimals}f}", f"{score.significance:+.1f} σ"
