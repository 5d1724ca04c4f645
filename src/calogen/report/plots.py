"""Figures of numbers that others computed: one function a figure, matplotlib figures out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.evaluate.observables import Binning, observe_all
from calogen.evaluate.protocol import EnergyBin, HistogramPair
from calogen.units import MEV_PER_GEV

INK = "#010203"
"""Colour of text and axes; `svg` hands it over to the page, so figures follow light and dark."""
TRUTH = "#7d8590"
GENERATED = "#2f6fdd"
SECOND = "#d2691e"
FIGURE_INCHES = (4.6, 3.9)
MARGINS = {"left": 0.155, "right": 0.975, "bottom": 0.115, "top": 0.93}
PLOT_BINS = 60  # most bins drawn: narrower published ones are joined
TAIL = 2e-3  # share of the entries left outside the drawn range at each end of a long axis
RATIO_LIMITS = (0.79, 1.21)
RATIO_WIDEST = (0.45, 1.55)
FILE_SHOWERS = 500  # showers behind the figure of a file

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "calogen",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def observable(pair: HistogramPair) -> Figure:
    """One observable: Geant4 filled, the model as a line with error bars, and their ratio below."""
    edges, generated, generated_error, truth, truth_error = _drawn(pair)
    scale, unit = (MEV_PER_GEV, "MeV") if pair.name == "cell_energy" else (1.0, pair.unit)
    edges = edges * scale
    with mpl.rc_context(_STYLE):
        figure, top, bottom = _with_ratio()
        mplhep.histplot(truth, edges, ax=top, histtype="fill", color=TRUTH, alpha=0.35, label="Geant4", flow="none")
        mplhep.histplot(truth, edges, ax=top, color=TRUTH, linewidth=1, yerr=False, flow="none")
        mplhep.histplot(
            generated, edges, ax=top, color=GENERATED, yerr=generated_error, linewidth=1.3, label="model", flow="none"
        )
        _axes_of_observable(pair, top, edges, np.concatenate([truth, generated]))
        _ratio_panel(bottom, edges, generated, generated_error, truth, truth_error)
        figure.align_ylabels()
        bottom.set_xlabel(f"{pair.axis} [{unit}]" if unit else pair.axis)
    return figure


def _drawn(pair: HistogramPair) -> tuple[NDArray[np.float64], ...]:
    """Edges and contents with errors, over the range that holds the entries, in at most `PLOT_BINS` bins."""
    contents = (pair.generated, pair.generated_error, pair.truth, pair.truth_error)
    n = pair.truth.size
    if n <= PLOT_BINS or pair.name == "cell_energy":
        first, last = _occupied(pair.truth + pair.generated, 0.0)
        return pair.edges[first : last + 1], *(c[first:last] for c in contents)
    first, last = _occupied(pair.truth + pair.generated, TAIL if pair.counted == "showers" else 0.0)
    step = max(1, -(-(last - first) // PLOT_BINS))
    last = min(n, first + -(-(last - first) // step) * step)
    starts = np.arange(first, last, step)
    edges = np.append(pair.edges[starts], pair.edges[last])
    values = [np.add.reduceat(v[:last], starts) for v in (pair.generated, pair.truth)]
    errors = [np.sqrt(np.add.reduceat(e[:last] ** 2, starts)) for e in (pair.generated_error, pair.truth_error)]
    return edges, values[0], errors[0], values[1], errors[1]


def _occupied(total: NDArray[np.float64], tail: float) -> tuple[int, int]:
    """First bin and one past the last that hold all but `tail` of the total at each end."""
    if not total.sum() > 0:
        return 0, total.size
    share = np.cumsum(total) / total.sum()
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - max(tail, 1e-12), side="left")) + 1
    return max(0, first - 1), min(total.size, last + 1)


def _with_ratio() -> tuple[Figure, Axes, Axes]:
    # A fixed layout: measuring every label first would take as long as drawing.
    figure = Figure(figsize=FIGURE_INCHES)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(**MARGINS, hspace=0.14)
    return figure, top, bottom


_COUNTED = {"showers": "share of showers", "cells": "hits per shower", "energy": "energy per shower [GeV]"}
_LOG_AXES = ("cell_energy", "energy_per_radius", "hits_per_radius")


def _axes_of_observable(pair: HistogramPair, top: Axes, edges: NDArray[Any], values: NDArray[Any]) -> None:
    top.set_title(pair.title, loc="left")
    top.set_ylabel(_COUNTED[pair.counted])
    top.set_xlim(edges[0], edges[-1])
    if pair.name in _LOG_AXES:
        positive = values[values > 0]
        top.set_yscale("log")
        if positive.size:
            top.set_ylim(max(positive.min(), positive.max() * 1e-6) * 0.5, positive.max() * 6)
    else:
        top.set_ylim(0, max(values.max(initial=0) * 1.3, 1e-12))
    if pair.name == "cell_energy":
        top.set_xscale("log")
    top.legend(loc="upper right", ncols=2)


def _ratio_panel(
    axes: Axes,
    edges: NDArray[Any],
    generated: NDArray[Any],
    generated_error: NDArray[Any],
    truth: NDArray[Any],
    truth_error: NDArray[Any],
) -> None:
    safe = np.where(truth > 0, truth, np.nan)
    ratio, error, band = generated / safe, generated_error / safe, truth_error / safe
    low, high = np.nan_to_num(1 - band, nan=1.0), np.nan_to_num(1 + band, nan=1.0)
    axes.fill_between(
        edges, np.append(low, low[-1]), np.append(high, high[-1]), step="post", color=TRUTH, alpha=0.35, linewidth=0
    )
    axes.axhline(1, color=TRUTH, linewidth=0.8)
    middle = np.sqrt(edges[1:] * edges[:-1]) if axes.get_xscale() == "log" else 0.5 * (edges[1:] + edges[:-1])
    axes.errorbar(middle, ratio, error, fmt="o", markersize=2.4, linewidth=0.9, color=GENERATED)
    far = np.nanmax(np.abs(ratio - 1)[np.isfinite(error) & (error < 0.1)], initial=0.0)
    axes.set_ylim(*(RATIO_LIMITS if far < 0.2 else RATIO_WIDEST))
    axes.set_ylabel("model / G4")


def response(bins: Sequence[EnergyBin]) -> Figure:
    """Mean visible energy and mean hits against the incident energy, as ratio of the model to Geant4."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=FIGURE_INCHES)
        axes = figure.subplots()
        figure.subplots_adjust(**MARGINS)
        axes.axhspan(0.98, 1.02, color=TRUTH, alpha=0.2, linewidth=0, label="within 2 %")
        axes.axhline(1, color=TRUTH, linewidth=0.8)
        farthest = 0.05
        for quantity, label, colour in (("visible_energy", "visible energy", GENERATED), ("hits", "hits", SECOND)):
            chosen = [b for b in bins if b.quantity == quantity]
            x = [np.sqrt(b.low_gev * b.high_gev) for b in chosen]
            ratio, error = [b.ratio for b in chosen], [b.ratio_error for b in chosen]
            axes.errorbar(x, ratio, error, fmt="o-", markersize=4, linewidth=1, capsize=2, color=colour, label=label)
            farthest = max([farthest, *(1.2 * (abs(r - 1) + e) for r, e in zip(ratio, error, strict=True))])
        axes.set_ylim(1 - farthest, 1 + farthest)
        axes.set_xscale("log")
        axes.set_xlabel("incident energy [GeV]")
        axes.set_ylabel("mean of the model / mean of Geant4")
        axes.set_title("Response", loc="left")
        axes.legend(loc="upper right", ncols=3)
    return figure


def file_summary(showers: Showers) -> Figure:
    """What is in a file, on a white page: energies, hits and profiles of (at most `FILE_SHOWERS` of) its showers.

    Raises:
        ValueError: no showers.
    """
    part = showers[: min(len(showers), FILE_SHOWERS)]
    detector = part.detector
    seen = observe_all([part], Binning.of(detector), detector)
    layers = np.arange(detector.n_layers)
    with mpl.rc_context(_STYLE | {"figure.facecolor": "white", "axes.facecolor": "white"}):
        figure = Figure(figsize=(11, 6.4), layout="constrained")
        (spectrum, visible, hits), (profile, radial, picture) = figure.subplots(2, 3)
        spectrum.hist(seen.incident_energy, bins=30, color=GENERATED, alpha=0.8)
        spectrum.set(xlabel="incident energy [GeV]", ylabel="showers")
        visible.scatter(seen.incident_energy, seen.visible_energy, s=4, color=GENERATED)
        visible.set(xlabel="incident energy [GeV]", ylabel="visible energy [GeV]")
        hits.scatter(seen.incident_energy, seen.hits, s=4, color=GENERATED)
        hits.set(xlabel="incident energy [GeV]", ylabel="cells above threshold")
        profile.stairs(seen.energy_per_layer[:, 1:-1].mean(axis=0), np.append(layers, layers.size), color=GENERATED)
        profile.set(xlabel="layer", ylabel="energy per shower [GeV]")
        edges = Binning.of(detector).radius
        radial.stairs(seen.energy_per_radius[:, 1:-1].mean(axis=0), edges, color=GENERATED)
        radial.set(xlabel="radius about the axis [mm]", ylabel="energy per shower [GeV]", yscale="log")
        _side_view(picture, part)
        figure.suptitle(f"{detector.name}: {len(part)} of {len(showers)} showers, readout cells above threshold")
    return figure


def _side_view(axes: Axes, showers: Showers) -> None:
    """The most energetic shower from the side, cells coloured by energy."""
    one = int(np.argmax(showers.incident.energy))
    event = project(showers[one : one + 1]).showers
    z = event.detector.z_mm[event.layer]
    order = np.argsort(event.energy)
    axes.scatter(
        z[order], event.y[order], s=4, c=np.log10(np.maximum(event.energy[order], 1e-9)), cmap="viridis", linewidth=0
    )
    axes.set(xlabel="depth [mm]", ylabel="y [mm]", title=f"{showers.incident.energy[one]:.0f} GeV")


def svg(figure: Figure) -> str:
    """The figure as SVG text to stand inside a page, its ink in the page's own text colour."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
