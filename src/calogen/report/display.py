"""Event displays as still pictures: readout cells in space, side by side in the same box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calogen.detector.geometry import tilt
from calogen.report.events import Event, Frame, energy_range_mev, title

BACKGROUND = "#0e131b"
FRAME = "#5d6b80"
TEXT = "#dfe6f0"
SOFT = "#93a1b5"
MAP = "inferno"
MAP_RANGE = (0.28, 1.0)  # the darkest colours of the map vanish on the background
COLOURS = 64
YAW_RAD, PITCH_RAD = -0.62, 0.33  # turn about the vertical, then tip towards the viewer
VIEW_DISTANCE = 4.0  # of the eye, in half sizes of the frame: mild perspective
MARGIN = 0.12  # room about the frame, in its size on the picture
GLOW = 3.0  # area of the faint disc about each hit, in areas of the hit
ROUND = 48  # corners of the outline of a round layer


def colours() -> list[str]:
    """The colour scale from the lowest to the highest energy, as hexadecimal colours."""
    scale = mpl.colormaps[MAP]
    return [to_hex(scale(v)) for v in np.linspace(*MAP_RANGE, COLOURS)]


def colour_position(energy_mev: NDArray[Any], range_mev: tuple[float, float]) -> NDArray[np.float64]:
    """Place of energies on the colour scale, 0 to 1, logarithmic."""
    low, high = np.log10(range_mev)
    return np.clip((np.log10(np.maximum(energy_mev, 1e-12)) - low) / (high - low), 0, 1)


def outline(frame: Frame, z_mm: float, *, polar: bool) -> NDArray[np.float64]:
    """Closed outline `[n, 3]` mm of a layer: the box's, or a circle about the axis."""
    if polar:
        turn = np.linspace(0, 2 * np.pi, ROUND + 1)
        radius = max(abs(v) for v in (*frame.x, *frame.y))
        return np.stack([radius * np.cos(turn), radius * np.sin(turn), np.full_like(turn, z_mm)], axis=-1)
    (a, b), (c, d) = frame.x, frame.y
    return np.array([(a, c, z_mm), (b, c, z_mm), (b, d, z_mm), (a, d, z_mm), (a, c, z_mm)])


def _on_screen(points: NDArray[Any], frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Screen positions `[n, 2]` and nearness `[n]` (larger is closer) of points `[n, 3]`; depth runs to the right."""
    x, y, z = (np.asarray(points, dtype=np.float64) - frame.centre).T / frame.half_size
    side = z * np.cos(YAW_RAD) - x * np.sin(YAW_RAD)
    away = z * np.sin(YAW_RAD) + x * np.cos(YAW_RAD)
    up = y * np.cos(PITCH_RAD) - away * np.sin(PITCH_RAD)
    near = y * np.sin(PITCH_RAD) + away * np.cos(PITCH_RAD)
    size = VIEW_DISTANCE / (VIEW_DISTANCE - near)
    return np.stack([side * size, up * size], axis=-1), near


def picture(events: Sequence[Event], labels: Sequence[str]) -> Figure:
    """Events side by side in the same box and colours, on a dark ground."""
    frame, range_mev = Frame.around(events), energy_range_mev(events)
    figure = Figure(figsize=(5.6 * len(events), 4.8), facecolor=BACKGROUND)
    panels = np.atleast_1d(figure.subplots(1, len(events)))
    figure.subplots_adjust(left=0, right=1, bottom=0.1, top=0.9, wspace=0)
    for axes, e, label in zip(panels, events, labels, strict=True):
        _draw(axes, e, frame, range_mev)
        axes.set_title(label, color=TEXT, fontsize=15, fontweight="bold", loc="center", pad=8)
        axes.text(0.5, 0.0, title(e), color=SOFT, fontsize=9.5, ha="center", va="bottom", transform=axes.transAxes)
    ends = np.concatenate([outline(frame, z, polar=events[0].polar) for z in frame.z])
    corners, _ = _on_screen(ends, frame)
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = MARGIN * (high - low)
    for axes in panels:
        axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    _scale(figure, range_mev)
    return figure


def _draw(axes: Axes, e: Event, frame: Frame, range_mev: tuple[float, float]) -> None:
    axes.set_axis_off()
    axes.set_aspect("equal")
    reached = [float(z) for z in e.layers_mm if z <= frame.z[1] + 1e-6]
    outlines = [_on_screen(outline(frame, z, polar=e.polar), frame)[0] for z in reached]
    axes.add_collection(LineCollection(outlines, colors=FRAME, linewidths=0.5, alpha=0.35))
    t_x, t_y = (float(v) for v in tilt(np.array(e.direction)))
    before = -0.25 * frame.half_size
    track, _ = _on_screen(np.array([(t_x * before, t_y * before, before), (0, 0, 0)]), frame)
    axes.annotate("", track[1], track[0], arrowprops={"arrowstyle": "-|>", "color": TEXT, "lw": 1.2})
    place, near = _on_screen(np.stack([e.x, e.y, e.z], axis=-1), frame)
    order = np.argsort(near)
    value = colour_position(e.energy[order], range_mev)
    scale = mpl.colormaps[MAP](MAP_RANGE[0] + value * (MAP_RANGE[1] - MAP_RANGE[0]))
    size = (5 + 40 * value**2) * (VIEW_DISTANCE / (VIEW_DISTANCE - near[order])) ** 2
    across, up = place[order].T
    for grow, opacity in ((GLOW, 0.06 + 0.06 * value), (1.0, 0.55 + 0.45 * value)):
        scale[:, 3] = opacity
        axes.scatter(across, up, s=size * grow, c=scale, linewidth=0)


def _scale(figure: Figure, range_mev: tuple[float, float]) -> None:
    low, high = range_mev
    axes = figure.add_axes((0.4, 0.035, 0.2, 0.018))
    axes.imshow(np.linspace(*MAP_RANGE, 256)[None, :], aspect="auto", cmap=MAP, vmin=0, vmax=1)
    axes.set_axis_off()
    axes.text(-0.03, 0.5, f"{low:g} MeV", color=TEXT, fontsize=8, ha="right", va="center", transform=axes.transAxes)
    axes.text(1.03, 0.5, f"{high:g} MeV per cell", color=TEXT, fontsize=8, va="center", transform=axes.transAxes)
