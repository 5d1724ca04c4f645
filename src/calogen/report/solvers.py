"""The solvers of a state's flows on one page: AUC against evaluations and against time, and the numbers."""

from __future__ import annotations

import base64
import json
import os
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from calogen.evaluate.solver_scores import SolverScore, SolverStudy
from calogen.report.browser import templates
from calogen.report.folder import PAGE, check_place, write_folder
from calogen.report.numbers import significant, with_error
from calogen.report.plots import STYLE, png
from calogen.report.tables import flat

PICTURE, NUMBERS = "auc.png", "scores.json"
FILES = (PAGE, NUMBERS, PICTURE)

LOOKS: dict[str, tuple[str, str, str]] = {
    "euler": ("#757a00", "o", "-"),
    "midpoint": ("#d2691e", "s", "-"),
    "heun": ("#b0447e", "D", "-"),
    "rk4": ("#0e8f8a", "^", "-"),
    "three_eighths": ("#5b6778", "v", "-"),
    "adaptive": ("#7a4fc9", "P", "--"),
    "bespoke, local": ("#2f6fdd", "o", "-"),
    "bespoke, global": ("#12356f", "s", "-"),
    "stored": ("#c22f2f", "*", ":"),
}
"""Colour, marker and line of a solver."""
TITLES = {"three_eighths": "3/8 rule", "rk4": "RK4", "stored": "bespoke, stored"}


def columns() -> tuple[str, ...]:
    """Heads of the table of scores."""
    return ("solver", "", "evaluations", "AUC", "CPU, ms", "fit")


def row(score: SolverScore) -> tuple[str, ...]:
    """A score as it is written."""
    fit = "" if score.fit_seconds is None else f"{score.fit_seconds:.0f} s"
    auc, cpu = with_error(score.auc, score.auc_error), significant(score.cpu_ms_per_shower)
    return (name_of(score.solver), score.setting, f"{score.evaluations:.4g}", auc, cpu, fit)


def name_of(solver: str) -> str:
    """A solver in words."""
    return TITLES.get(solver, solver)


def floor_text(study: SolverStudy) -> str:
    """The floor in words."""
    if study.floor is None:
        return "no floor"
    floor = study.floor
    return f"Geant4 against Geant4: {with_error(floor.auc, floor.error)} ({floor.showers} showers: {floor.text})"


def solver_figure(study: SolverStudy) -> Figure:
    """AUC against evaluations (left) and processor time (right), a line one solver, the floor of Geant4 as a band."""
    with mpl.rc_context(STYLE):
        n = len(study.flows)
        figure = Figure(figsize=(11, 0.6 + 4.1 * n), layout="constrained")
        for flow, (left, right) in zip(study.flows, figure.subplots(n, 2, squeeze=False, sharey="row"), strict=True):
            for axes, quantity in ((left, "evaluations"), (right, "cpu_ms_per_shower")):
                _panel(axes, study, flow, quantity)
            left.set(xlabel="evaluations of the velocity per shower", ylabel="AUC of the high-level classifier")
            right.set(xlabel="CPU time of a whole shower [ms]")
            left.set_title(flow, loc="left")
            right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.suptitle(f"{study.state}: {study.showers} showers in {study.detector}, {study.truth}")
    return figure


def _panel(axes: Axes, study: SolverStudy, flow: str, quantity: str) -> None:
    if study.floor is not None:
        low, high = study.floor.auc - study.floor.error, study.floor.auc + study.floor.error
        axes.axhspan(low, high, color="#7d8590", alpha=0.3, linewidth=0, label="Geant4")
    for solver, scores in study.of(flow).items():
        colour, marker, line = LOOKS[solver]
        axes.errorbar(
            [getattr(s, quantity) for s in scores],
            [s.auc for s in scores],
            [s.auc_error for s in scores],
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=9 if solver == "stored" else 4.5,
            linewidth=1.2,
            capsize=2,
            label=name_of(solver),
        )
    evaluations = quantity == "evaluations"
    axes.set_xscale("log", base=2 if evaluations else 10)
    if not evaluations:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def write_solvers(study: SolverStudy, out_dir: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the page, its picture and the numbers into a new folder, all or nothing; returns the page.

    Raises:
        ValueError: a folder that is in the way.
    """
    out = Path(out_dir)
    check_place(out, overwrite, FILES)
    picture = png(solver_figure(study))
    page = (
        templates()
        .get_template("solvers.html.j2")
        .render(
            study=study,
            floor=floor_text(study),
            columns=columns(),
            tables=[
                (flow, [row(score) for scores in study.of(flow).values() for score in scores]) for flow in study.flows
            ],
            picture=base64.b64encode(picture).decode(),
            provenance=flat(study.provenance),
            version=version("calogen"),
        )
    )
    numbers = json.dumps(study.to_dict(), indent=1)
    write_folder(out, {PAGE: page, NUMBERS: numbers, PICTURE: picture})
    return out / PAGE
