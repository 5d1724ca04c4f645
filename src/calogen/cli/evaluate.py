"""`calogen evaluate`: generated showers against the truth, as a page, numbers and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from calogen.cli.files import DetectorName, named_detector
from calogen.cli.judging import Classifier, Options, Protocol, dataset_of, judge, ranked
from calogen.cli.options import Overwrite, Quiet
from calogen.cli.output import blamed_on_output, require_free_folder
from calogen.cli.samples import Files, examine, roles
from calogen.cli.screen import say, table

if TYPE_CHECKING:
    from calogen.evaluate.evaluation import Evaluation
    from calogen.evaluate.judgement import Judgement
    from calogen.evaluate.metrics import Score
    from calogen.evaluate.published import Standing
    from calogen.report.events import Row


DISPLAYS = 12
"""Particles whose showers are drawn."""
DISPLAY_SHOWERS = 1000
"""Showers at the beginning of each file among which they are found."""
MOST_ROWS = 40
"""Sections of more scores are only counted in the terminal."""


def evaluate(
    *files: Annotated[Path, Parameter(metavar="FILE", help="Showers of one or several models, a file each.")],
    truth: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="Showers of Geant4, best of the same particles; without it: GENERATED TRUTH."),
    ] = None,
    output: Annotated[
        Path, Parameter(name=("--output", "-o"), metavar="DIR", help="Directory of the report, to be made.")
    ],
    floor: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="Other Geant4 showers; the floor is then their distance to the truth."),
    ] = None,
    protocol: Annotated[
        Protocol,
        Parameter(
            help="Judge as points, or as voxels (the CaloChallenge's scores); auto: voxels where cells are rings."
        ),
    ] = "auto",
    parts: Annotated[
        str | None,
        Parameter(
            metavar="NAMES",
            help="Parts of the point-cloud judgement, with commas, or 'none': sections, mip, tracks, hadronic, "
            "response, correlations, angle, clusters, diphoton, classifier_all, classifier_caloclouds2, "
            "classifier_calohadronic, distances, copies; default all. On request also tokens: resolution of a "
            "reconstruction (FILE) of the very showers of the truth.",
        ),
    ] = None,
    classifier: Annotated[
        Classifier,
        Parameter(
            help="Networks of the classifiers: 'fast' (seconds to minutes on a CPU; may recognise less), as 'published'"
            " (minutes to hours), or 'none'."
        ),
    ] = "fast",
    repeats: Annotated[int, Parameter(help="Trainings of each classifier, on shifted parts of the samples.")] = 5,
    training: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="Geant4 showers that the models were trained on, to look for copies of them."),
    ] = None,
    match: Annotated[
        bool, Parameter(negative="", help="First choose showers so that all have the same spectrum of energies (GeV).")
    ] = False,
    against: Annotated[
        Literal["published"] | None,
        Parameter(help="'published': rank the models among the submissions to the CaloChallenge (its voxels only)."),
    ] = None,
    detector: DetectorName = None,
    seed: Annotated[int, Parameter(help="Seed of the resampling behind errors and floors.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Judge generated showers against Geant4: scores, distributions and displays of all models on one page.

    All are projected into the detector's cells and cut at its thresholds. Every score stands beside its error and
    the floor that two Geant4 samples of these sizes reach. Energies in GeV, lengths in mm.

    Examples:

    calogen evaluate a.h5 b.h5 --truth geant4.h5 -o report/

    calogen evaluate generated.h5 geant4.h5 -o report/
    """
    models, reference = roles(files, truth)
    require_free_folder(output, overwrite)
    from calogen.evaluate.judgement import Judgement
    from calogen.report.page import write_report

    examined = examine(models, reference, named_detector(detector), floor=floor, training=training)
    options = Options(protocol, _parts(parts), classifier, repeats, match, seed, quiet)
    true = examined.truth
    dataset = None if against is None else dataset_of(true, options)
    judged = judge(examined, options)
    judgement = Judgement(
        true.detector.name,
        true.path.name,
        true.n_showers,
        judged.comparisons,
        seed,
        true.provenance(),
        standing=None if dataset is None else ranked(dataset, judged),
        competition=judged.competition,
        settings=options.described(examined),
    )
    with blamed_on_output(output):
        page = write_report(judgement, output, displays=_displays(examined), overwrite=overwrite)
    score_tables(judgement, quiet=quiet)
    if judgement.standing is not None:
        standing_table(judgement.standing, quiet=quiet)
    notes(judgement, quiet=quiet)
    say(f"report in {page}", quiet=quiet)


def _parts(names: str | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return () if names == "none" else tuple(name.strip() for name in names.split(","))


def _displays(files: Files) -> list[Row]:
    """Showers of the same particles side by side, from the beginnings of the files."""
    from calogen.report.events import matched

    models = [(s.label, s.first(DISPLAY_SHOWERS)) for s in files.models]
    return matched(files.truth.first(DISPLAY_SHOWERS), models, DISPLAYS)


def score_tables(judgement: Judgement, *, quiet: bool = False) -> None:
    """The scores of all models, section by section: value, error and distance from the floor in standard deviations."""
    from calogen.report.tables import score_groups

    labels = [c.label for c in judgement.comparisons]
    for group in score_groups(judgement):
        counts = ", ".join(f"{t['good']} of {t['all']}" for t in group["tallies"])
        say(f"{group['title']}: {counts} scores indistinguishable from Geant4", quiet=quiet)
        if len(group["rows"]) > MOST_ROWS:
            say("  (each on the page)\n", quiet=quiet)
            continue
        rows = [
            (f"{row['title']}, {row['metric']} {row['unit']}".rstrip(), row["floor"], *map(_cell, row["cells"]))
            for row in group["rows"]
        ]
        for line in _aligned([("", "floor", *labels), *rows]):
            say(line, quiet=quiet)
        say("", quiet=quiet)


def notes(judgement: Judgement, *, quiet: bool = False) -> None:
    """What a reader must know of each comparison, and the sections that have no scores, with the reason."""
    for comparison in judgement.comparisons:
        left_out = [f"{f.title}: {note}" for f in comparison.sections if not f.scores for note in f.notes[:1]]
        for note in (*comparison.notes, *left_out):
            say(f"note: {comparison.label}: {note}", quiet=quiet)
    together = judgement.competition
    if together is not None and not together.scores:
        for note in together.notes[:1]:
            say(f"note: {together.title}: {note}", quiet=quiet)


def standing_table(standing: Standing, *, quiet: bool = False) -> None:
    """The columns of the challenge: each model's value and rank, Geant4 against itself, and the best submission."""
    from calogen.report.standing import ranking

    say(f"among the published submissions to the CaloChallenge, {standing.dataset}:", quiet=quiet)
    for line in _aligned(ranking(standing)):
        say(line, quiet=quiet)
    say("", quiet=quiet)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, the first to the left and the others to the right, however wide the terminal is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def _cell(cell: dict[str, str] | None) -> str:
    return "–" if cell is None else f"{cell['value']} {cell['sigma']:>8}"


def score_table(evaluation: Evaluation, *, quiet: bool = False) -> None:
    """The published rows of one model with their floors, in thousandths."""
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
