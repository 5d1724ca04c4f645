"""What is in a file, as one picture: energies, hits, profiles and a shower from the side."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.evaluate.observables import Binning, observe_all

GENERATED = "#2f6fdd"
FILE_SHOWERS = 500  # showers behind the figure of a file

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.linewidth": 0.8,
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
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


def file_summary(showers: Showers) -> Figure:
    """What is in a file, on a white page: energies, hits and profiles of (at most `FILE_SHOWERS` of) its showers.

    Raises:
        ValueError: no showers.
    """
    part = showers[: min(len(showers), FILE_SHOWERS)]
    detector = part.detector
    seen = observe_all([part], Binning.of(detector), detector)
    layers = np.arange(detector.n_layers)
    with mpl.rc_context(STYLE):
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


def png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
