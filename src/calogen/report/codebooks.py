"""Codebooks of several sizes on one page: residuals of hits, their widths and the use of codes against size."""

from __future__ import annotations

import base64
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from calogen.evaluate.codebook_scores import PLACES, QUANTITIES, CodebookScore, CodebookStudy
from calogen.evaluate.residuals import Number
from calogen.report.browser import templates
from calogen.report.folder import PAGE
from calogen.report.numbers import significant, with_error
from calogen.report.plots import STYLE, png
from calogen.report.tables import flat

NUMBERS = "scores.json"
FILES = (PAGE, NUMBERS)

DRAWN_SIGMAS = 5.0
"""Half of what is drawn of residuals, in standard deviations of the middle one of the tokenizers."""
LEAST_BIN_SIGMAS = 0.1
"""Bins that are narrower are joined."""
LEAST_BINS = 40
DARKEST, LIGHTEST = 0.0, 0.92
"""Ends of viridis that sizes take: the last of its yellow does not show on white."""
GIVEN_COLOURS = ("#c22f2f", "#d2691e", "#b0447e", "#5b6778")
GIVEN_MARKER = "*"
HEADROOM = 0.12
"""Of what is drawn, above it."""
TARGET_COLOUR = "#c22f2f"


class Look(NamedTuple):
    """How points are drawn, and what they are called."""

    colour: str
    marker: str
    line: str
    words: str


WIDTHS = {
    "sigma": Look("#12356f", "o", "-", "standard deviation"),
    "half_width": Look("#0e8f8a", "s", "--", "68 % half width"),
}
SETTLED = Look("#7d8590", "^", ":", "standard deviation, in cells and apart")
USED = Look("#12356f", "o", "-", "used by the truth")
USED_TRAINING = Look("#0e8f8a", "s", "--", "used by as many training showers")
PERPLEXITY = Look("#d2691e", "^", "-", "perplexity / codes")
MOVED = Look("#12356f", "o", "-", "moved: their cell was taken")
OUTSIDE = Look("#d2691e", "s", "--", "decoded outside of the box")


def columns() -> tuple[str, ...]:
    """Heads of the table of resolutions."""
    return (
        *("codes", "σ x, cells", "σ y, cells", "σ z, layers", "σ ln E"),
        *("σ x, mm", "σ x*, cells", "σ z*, layers", "moved, %", "outside, %"),
    )


def row(score: CodebookScore) -> tuple[str, ...]:
    """A tokenizer's resolutions as they are written."""
    return (
        label(score),
        *(_written(score.before[key].sigma) for key in (*QUANTITIES, "x_mm")),
        *(_written(score.after[key].sigma) for key in ("x", "layer")),
        *(_written(n, 100) for n in (score.moved, score.outside)),
    )


def label(score: CodebookScore) -> str:
    """Name of a tokenizer; a given state's with its size."""
    return score.name if score.training is not None else f"{score.name} ({score.codes:,})"


def _written(n: Number, factor: float = 1.0) -> str:
    return with_error(n.value * factor, n.error * factor)


def width_columns() -> tuple[str, ...]:
    """Heads of the table of other widths."""
    return ("codes", *(f"{kind} {q.title}" for kind in ("rms", "68 %") for q in QUANTITIES.values()))


def width_row(score: CodebookScore) -> tuple[str, ...]:
    """A tokenizer's other widths."""
    kinds = ("rms", "half_width")
    return (label(score), *(_written(getattr(score.before[key], kind)) for kind in kinds for key in QUANTITIES))


def mean_columns() -> tuple[str, ...]:
    """Heads of the table of means, and of what is left of the relative energy."""
    return ("codes", *(f"mean {q.title}" for q in QUANTITIES.values()), "mean E'/E − 1", "σ E'/E", "σ y, mm")


def mean_row(score: CodebookScore) -> tuple[str, ...]:
    """A tokenizer's means."""
    relative = score.before["relative_energy"]
    means = (*(score.before[key].bias for key in QUANTITIES), relative.bias, relative.sigma)
    return (label(score), *map(_written, means), _written(score.before["y_mm"].sigma))


def use_columns() -> tuple[str, ...]:
    """Heads of the table of codes and trainings."""
    return (
        *("codes", "used, %", "by training, %", "perplexity", "loss on the truth"),
        *("training", "best validation", "parameters", "steps", "minutes"),
    )


def use_row(score: CodebookScore) -> tuple[str, ...]:
    """A tokenizer's codes, and how it was trained."""
    fit = score.training or {}
    losses = ("" if fit.get(key) is None else significant(fit[key], 4) for key in ("train_loss", "best_loss"))
    return (
        label(score),
        _written(score.used, 100),
        "" if score.used_training is None else significant(100 * score.used_training),
        _written(score.perplexity),
        _written(score.loss),
        *losses,
        *(f"{fit[key]:,}" if key in fit else "" for key in ("parameters", "steps")),
        significant(fit["seconds"] / 60) if "seconds" in fit else "",
    )


def colours(study: CodebookStudy) -> dict[str, str]:
    """A colour for each tokenizer: trained ones from dark to light by size."""
    trained, viridis = study.trained, mpl.colormaps["viridis"]
    places = np.linspace(DARKEST, LIGHTEST, max(len(trained), 2))
    chosen = {s.name: to_hex(viridis(at)) for s, at in zip(trained, places, strict=False)}
    return chosen | {s.name: GIVEN_COLOURS[k % len(GIVEN_COLOURS)] for k, s in enumerate(study.given)}


def residual_figure(study: CodebookStudy) -> Figure:
    """Residuals of places and energy before rounding, a line each tokenizer, hits on a logarithmic scale."""
    colour = colours(study)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 8), layout="constrained")
        for axes, (key, quantity) in zip(figure.subplots(2, 2).flat, QUANTITIES.items(), strict=True):
            middle = float(np.median([s.before[key].sigma.value for s in study.scores]))
            reach = min(max(DRAWN_SIGMAS * middle, LEAST_BINS / 2 * quantity.step), quantity.reach)
            for score in [*study.trained, *study.given]:
                edges, share = _density(score, key, reach)
                axes.stairs(
                    *(share, edges),
                    color=colour[score.name],
                    linewidth=1.2,
                    linestyle="-" if score.training is not None else "--",
                    label=label(score),
                )
            unit = f" [{quantity.unit}]" if quantity.unit else ""
            axes.set(xlabel=f"{quantity.title} decoded − true{unit}", ylabel="hits [share per unit]", yscale="log")
            axes.set_xlim(-reach, reach)
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", title="codes")
    return figure


def _density(score: CodebookScore, key: str, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges and density of the bins within reach; bins are joined while they are narrow for what is drawn."""
    histogram = score.histograms[key]
    counts = np.array(histogram.counts, dtype=np.float64)
    joined = max(1, int(LEAST_BIN_SIGMAS * reach / DRAWN_SIGMAS / (histogram.edges[1] - histogram.edges[0])))
    while len(counts) % (2 * joined):  # so that zero stays an edge
        joined -= 1
    edges = histogram.edges[::joined]
    density = counts.reshape(-1, joined).sum(axis=1) / max(score.hits, 1) / (edges[1] - edges[0])
    inside = (edges[1:] > -reach - 1e-9) & (edges[:-1] < reach + 1e-9)
    first, last = np.flatnonzero(inside)[[0, -1]]
    return edges[first : last + 2], np.where(density > 0, density, np.nan)[first : last + 1]


def width_figure(study: CodebookStudy) -> Figure:
    """Widths of residuals against the number of codes: before rounding, and of places in cells."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 7), layout="constrained")
        for axes, (key, quantity) in zip(figure.subplots(2, 2).flat, QUANTITIES.items(), strict=True):
            for kind, look in WIDTHS.items():
                _points(axes, [(s.codes, getattr(s.before[key], kind)) for s in study.trained], look)
            if key in PLACES:
                _points(axes, [(s.codes, s.after[key].sigma) for s in study.trained], SETTLED)
            _given(axes, study, {s.name: s.before[key].sigma for s in study.given})
            if key in study.targets:
                target = study.targets[key]
                axes.axhline(target, color=TARGET_COLOUR, linewidth=1, linestyle="-.", label=f"target {target:g}")
            unit = f" [{quantity.unit}]" if quantity.unit else ""
            axes.margins(y=HEADROOM)
            axes.set(ylabel=f"{quantity.title} decoded − true{unit}", ylim=(0, None))
            _sizes(axes, study)
            axes.legend()
    return figure


def usage_figure(study: CodebookStudy) -> Figure:
    """Use of the codes, and hits that were moved or outside, against the number of codes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        use, lost = figure.subplots(1, 2)
        training = [(s.codes, Number(s.used_training, 0.0)) for s in study.trained if s.used_training is not None]
        _points(use, training, USED_TRAINING)
        _points(use, [(s.codes, s.used) for s in study.trained], USED)
        _points(use, [(s.codes, Number(*(v / s.codes for v in s.perplexity))) for s in study.trained], PERPLEXITY)
        _given(use, study, {s.name: s.used for s in study.given})
        use.set(ylabel="share of codes", ylim=(0, 1.05))
        _points(lost, [(s.codes, s.moved) for s in study.trained], MOVED)
        _points(lost, [(s.codes, s.outside) for s in study.trained], OUTSIDE)
        _given(lost, study, {s.name: s.moved for s in study.given})
        lost.margins(y=HEADROOM)
        lost.set(ylabel="share of hits", ylim=(0, None))
        for axes in (use, lost):
            _sizes(axes, study)
            axes.legend()
    return figure


def _points(axes: Axes, points: list[tuple[int, Number]], look: Look) -> None:
    """Numbers with errors against the number of codes."""
    if not points:
        return
    axes.errorbar(
        [codes for codes, _ in points],
        [n.value for _, n in points],
        [n.error if np.isfinite(n.error) else 0.0 for _, n in points],
        color=look.colour,
        marker=look.marker,
        linestyle=look.line,
        label=look.words,
        markersize=9 if look.marker == GIVEN_MARKER else 4.5,
        linewidth=1.2,
        capsize=2,
    )


def _given(axes: Axes, study: CodebookStudy, numbers: dict[str, Number]) -> None:
    colour = colours(study)
    for score in study.given:
        look = Look(colour[score.name], GIVEN_MARKER, "", label(score))
        _points(axes, [(score.codes, numbers[score.name])], look)


def _sizes(axes: Axes, study: CodebookStudy) -> None:
    """Numbers of codes as they are, doubling at equal steps."""
    sizes = sorted({s.codes for s in study.scores})
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] / 1.4, sizes[-1] * 1.4)
    axes.set_xlabel("codes")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def write_codebooks(study: CodebookStudy, out_dir: str | os.PathLike[str]) -> Path:
    """Write the page and the numbers into a folder, each in one step; returns the page."""
    out = Path(out_dir)
    pictures = [
        ("Residuals", "Residuals of hits, a line each size", residual_figure(study)),
        ("Resolution against size", "Widths of residuals against the number of codes", width_figure(study)),
        ("Use of the codes", "Shares of used codes and of moved hits against the number of codes", usage_figure(study)),
    ]
    ordered = [*study.trained, *study.given]
    page = (
        templates()
        .get_template("codebooks.html.j2")
        .render(
            study=study,
            pictures=[(title, alt, base64.b64encode(png(figure)).decode()) for title, alt, figure in pictures],
            hits=ordered[0].hits,
            tables=[
                ("Resolution", columns(), [row(s) for s in ordered]),
                ("Other widths", width_columns(), [width_row(s) for s in ordered]),
                ("Means", mean_columns(), [mean_row(s) for s in ordered]),
                ("Codes and trainings", use_columns(), [use_row(s) for s in ordered]),
            ],
            targets=[(QUANTITIES[key], value) for key, value in study.targets.items()],
            provenance=flat(study.provenance),
            version=version("calogen"),
        )
    )
    _put(out / NUMBERS, json.dumps(study.to_dict()))
    _put(out / PAGE, page)
    return out / PAGE


def _put(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
