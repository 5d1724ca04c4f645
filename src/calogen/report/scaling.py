"""The scaling laws of a token generator on one page: losses and distances of all runs, the fits, and the numbers."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from calogen.evaluate.scaling_fits import ScalingFit, TrainingCurve, envelope
from calogen.evaluate.scaling_scores import RunScore, ScalingStudy
from calogen.report.browser import templates
from calogen.report.folder import PAGE
from calogen.report.numbers import compact, significant, with_error
from calogen.report.plots import STYLE, png
from calogen.report.tables import flat
from calogen.train.checkpoint import write_bytes

NUMBERS = "scores.json"
FILES = (PAGE, NUMBERS)

COLOURS = ("#2f6fdd", "#d2691e", "#7a4fc9", "#0e8f8a", "#b0447e", "#757a00", "#12356f", "#c22f2f")
MARKERS = "osD^vPX*"
GEANT4 = "#7d8590"
LAW = "#1b2330"
GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "C0": "C₀"}
RAISED = {"^alpha": "ᵅ", "^beta": "ᵝ", "^gamma": "ᵞ"}
MEANING = {
    "E": "irreducible loss, nats a token",
    "A": "of the term of the parameters",
    "alpha": "exponent of the parameters",
    "B": "of the term of the data",
    "beta": "exponent of the data",
    "gamma": "exponent of the compute",
    "C0": "compute at which the reducible loss is 1 nat",
}
Draw = Callable[[RunScore], float]


def columns() -> tuple[str, ...]:
    """Heads of the table of runs."""
    return (
        *("size", "data", "N", "with tables", "D", "seen", "FLOPs", "CPU, s", "loss", "window"),
        *("sliced W", "floor", "drawing, s"),
    )


def row(study: ScalingStudy, run: RunScore) -> tuple[str, ...]:
    """A run as it is written."""
    closed = study.closed(run)
    share = "–" if closed is None else f"{with_error(100 * closed[0], 100 * closed[1])} %"
    distance = floor = drawing = "–"
    if run.distance is not None:
        distance = with_error(run.distance, run.distance_error or 0.0)
        floor = with_error(run.distance_floor or math.nan, run.distance_floor_error or 0.0)
        drawing = significant(run.draw_cpu_seconds)
    counts = (run.parameters, run.all_parameters, run.tokens, run.tokens_seen)
    return (
        *(run.size, f"{run.fraction:g}", *(f"{n:,}" for n in counts), compact(run.flops)),
        *(significant(run.cpu_seconds), f"{run.loss:.4f}", share, distance, floor, drawing),
    )


def fit_rows(study: ScalingStudy) -> list[tuple[str, ...]]:
    """Fitted numbers with their errors and what they are; what is not fixed says so."""
    rows: list[tuple[str, ...]] = []
    for fit in (study.both, study.compute):
        for symbol, estimate in fit.estimates.items():
            known = with_error(estimate.value, estimate.error)
            if abs(estimate.value) >= 1e5:
                known = f"{compact(estimate.value)} ± {compact(estimate.error)}"
            value = known if estimate.fixed else "not fixed by these runs"
            rows.append((law_text(fit.formula), GREEK.get(symbol, symbol), value, MEANING[symbol]))
    return rows


def law_text(formula: str) -> str:
    """A formula in letters that are read."""
    for name, letter in (RAISED | GREEK).items():
        formula = formula.replace(name, letter)
    return formula


def findings(study: ScalingStudy) -> list[str]:
    """What the fits say, or why they say nothing, in sentences."""
    said = []
    for fit in (study.both, study.compute):
        if fit.problem:
            said.append(f"{law_text(fit.formula)}: not fitted, {fit.problem}.")
        elif fit.open:
            names = ", ".join(GREEK.get(symbol, symbol) for symbol in fit.open)
            said.append(
                f"{law_text(fit.formula)}: {fit.runs} runs do not fix {names}. The curve is drawn where it was "
                "fitted; nothing should be read from it beyond. More and more different runs would."
            )
    if study.irreducible is None:
        said.append(
            "The irreducible loss is not separated from what more parameters and data would gain: the window "
            "has no lower edge, and no share of it is told."
        )
    return said


# ---- figures ----


def scaling_figure(study: ScalingStudy) -> Figure:
    """Loss (top) and sliced Wasserstein distance (bottom) against parameters, data and compute."""
    with mpl.rc_context(STYLE):
        drawn = any(run.distance is not None for run in study.runs)
        figure = Figure(figsize=(13.5, 8.2 if drawn else 4.4), layout="constrained")
        axes = figure.subplots(2 if drawn else 1, 3, squeeze=False, sharex="col")
        axes[0][1].sharey(axes[0][0])  # curves begin far above the losses of runs: they have an axis of their own
        for place in axes[1:, 1:].flat:
            place.sharey(axes[1][0])
        _by_parameters(axes[0][0], study)
        _by_data(axes[0][1], study)
        _by_compute(axes[0][2], study)
        axes[0][0].set_ylabel("validation loss [nats a token]")
        if drawn:
            for place, x in zip(axes[1], (_parameters, _tokens, _flops), strict=True):
                _distances(place, study, x, by_size=x is not _parameters)
            axes[1][0].set_ylabel("sliced Wasserstein distance [σ]")
        for place, name in zip(
            axes[-1], ("parameters N, without vocabulary", "training tokens D", "compute C [FLOPs]"), strict=True
        ):
            place.set_xlabel(name)
        for place in axes.flat:
            _log(place)
    return figure


def window_figure(study: ScalingStudy) -> Figure:
    """The learnable window: every run's loss between that of single tokens' frequencies and the irreducible one."""
    with mpl.rc_context(STYLE):
        runs = sorted(study.runs, key=lambda run: -run.loss)
        figure = Figure(figsize=(13.5, 1.6 + 0.27 * len(runs)), layout="constrained")
        axes = figure.subplots()
        for y, run in enumerate(runs):
            axes.barh(y, study.unigram - run.loss, left=run.loss, height=0.62, color=_size_colour(study, run.size))
        axes.axvline(study.unigram, color=GEANT4, linewidth=1.4)
        axes.text(study.unigram, len(runs) - 0.35, "single tokens' frequencies ", ha="right", va="bottom", color=GEANT4)
        if study.irreducible is not None:
            e, error, _ = study.irreducible
            axes.axvspan(e - error, e + error, color=LAW, alpha=0.18, linewidth=0)
            axes.axvline(e, color=LAW, linewidth=1.2, linestyle="--")
            axes.text(e, len(runs) - 0.35, " E, irreducible", ha="left", va="bottom", color=LAW)
        axes.set_yticks(range(len(runs)), [run.label for run in runs])
        axes.tick_params(axis="y", which="both", length=0)
        axes.minorticks_off()
        axes.set_ylim(-0.6, len(runs) + 0.35)
        axes.margins(x=0.1)
        axes.set_xlabel("validation loss [nats a token]; bars: what a run has learned")
    return figure


def _parameters(run: RunScore) -> float:
    return float(run.parameters)


def _tokens(run: RunScore) -> float:
    return float(run.tokens)


def _flops(run: RunScore) -> float:
    return run.flops


def _size_colour(study: ScalingStudy, size: str) -> str:
    return COLOURS[study.sizes.index(size) % len(COLOURS)]


def _by_parameters(axes: Axes, study: ScalingStudy) -> None:
    for k, fraction in enumerate(study.fractions):
        runs = sorted((r for r in study.runs if r.fraction == fraction), key=_parameters)
        colour = COLOURS[k % len(COLOURS)]
        line = _law_line(axes, study.both, "N", [r.parameters for r in runs], runs[0].tokens, colour)
        style = "none" if line else "-"
        axes.plot(
            [r.parameters for r in runs],
            [r.loss for r in runs],
            color=colour,
            marker=MARKERS[k % len(MARKERS)],
            linestyle=style,
            markersize=5,
            linewidth=1.1,
            label=f"{fraction:g} of the data",
        )
    axes.legend(loc="best")
    axes.set_title("parameters: a colour an amount of data", loc="left")


def _by_data(axes: Axes, study: ScalingStudy) -> None:
    for k, size in enumerate(study.sizes):
        runs = sorted((r for r in study.runs if r.size == size), key=_tokens)
        colour = _size_colour(study, size)
        line = _law_line(axes, study.both, "D", [r.tokens for r in runs], runs[0].parameters, colour)
        axes.plot(
            [r.tokens for r in runs],
            [r.loss for r in runs],
            color=colour,
            marker=MARKERS[k % len(MARKERS)],
            linestyle="none" if line else "-",
            markersize=5,
            linewidth=1.1,
            label=size,
        )
    axes.legend(loc="best", title="width x blocks")
    axes.set_title("data: a colour a size", loc="left")


def _law_line(axes: Axes, fit: ScalingFit, name: str, x: Sequence[float], other: float, colour: str) -> bool:
    """The fitted law along one variable, where it has both; whether it was drawn."""
    if not {"alpha", "beta"} <= fit.estimates.keys() or len(x) < 2:
        return False
    grid = np.geomspace(min(x), max(x), 60)
    n, d = (grid, other) if name == "N" else (other, grid)
    loss = fit.value("E") + fit.value("A") / n ** fit.value("alpha") + fit.value("B") / d ** fit.value("beta")
    axes.plot(grid, loss, color=colour, linewidth=1.1)
    return True


def _by_compute(axes: Axes, study: ScalingStudy) -> None:
    for size in study.sizes:
        for run in (r for r in study.runs if r.size == size):
            axes.plot(
                [p.flops for p in run.curve],
                [p.loss for p in run.curve],
                color=_size_colour(study, size),
                linewidth=0.9,
                alpha=0.45 + 0.5 * run.fraction / max(study.fractions),
            )
    curves = [TrainingCurve([p.flops for p in r.curve], [p.loss for p in r.curve]) for r in study.runs if r.curve]
    if len(curves) > 1:
        c, nats = envelope(curves)
        axes.plot(c, nats, color=LAW, marker=".", markersize=3, linestyle="none", label="lower envelope")
        if study.compute.estimates and len(c):
            grid = np.geomspace(c[0], c[-1], 80)
            fit = study.compute
            law = fit.value("E") + (fit.value("C0") / grid) ** fit.value("gamma")
            axes.plot(grid, law, color=LAW, linestyle="--", linewidth=1.2, label=law_text(fit.formula))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
    axes.set_title("compute: training curves, a colour a size", loc="left")


def _distances(axes: Axes, study: ScalingStudy, x: Draw, *, by_size: bool) -> None:
    runs = [r for r in study.runs if r.distance is not None]
    groups = study.sizes if by_size else study.fractions
    for k, group in enumerate(groups):
        own = sorted((r for r in runs if (r.size if by_size else r.fraction) == group), key=x)
        axes.errorbar(
            [x(r) for r in own],
            [r.distance or 0.0 for r in own],
            [r.distance_error or 0.0 for r in own],
            color=COLOURS[k % len(COLOURS)],
            marker=MARKERS[k % len(MARKERS)],
            markersize=5,
            linestyle="none" if x is _flops else "-",
            linewidth=1.0,
            capsize=2,
        )
    if floors := [(r.distance_floor or 0.0, r.distance_floor_error or 0.0) for r in runs]:
        level, spread = (float(np.mean(values)) for values in zip(*floors, strict=True))
        axes.axhspan(level - spread, level + spread, color=GEANT4, alpha=0.3, linewidth=0, label="Geant4")
        axes.legend(loc="best")
    axes.set_ylim(bottom=0)


def _log(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 5.0) if high / low < 50 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    """`2·10⁵` in mathtext."""
    power = math.floor(math.log10(value) + 1e-9)
    front = round(value / 10.0**power)
    return f"$10^{{{power}}}$" if front == 1 else f"${front}\\cdot10^{{{power}}}$"


# ---- the page ----


def write_scaling(study: ScalingStudy, folder: str | os.PathLike[str]) -> Path:
    """Write page and numbers into the study's folder, each at once; returns the page."""
    out = Path(folder)
    pictures = [base64.b64encode(png(figure(study))).decode() for figure in (scaling_figure, window_figure)]
    by_size = sorted(study.runs, key=lambda run: (run.parameters, run.fraction))
    page = (
        templates()
        .get_template("scaling.html.j2")
        .render(
            study=study,
            findings=findings(study),
            columns=columns(),
            rows=[row(study, run) for run in by_size],
            fits=fit_rows(study),
            pictures=pictures,
            unigram=f"{study.unigram:.3f}",
            irreducible=None if study.irreducible is None else with_error(*study.irreducible[:2]),
            irreducible_of=None if study.irreducible is None else law_text(study.irreducible[2]),
            provenance=flat(study.provenance),
            version=version("calogen"),
        )
    )
    write_bytes(out / NUMBERS, json.dumps(study.to_dict(), indent=1, allow_nan=False).encode())
    write_bytes(out / PAGE, page.encode())
    return out / PAGE
