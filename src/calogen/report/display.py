"""Event displays: readout cells in space, as a picture or as a page that turns under the mouse without any network."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from particle import Particle

from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.detector.geometry import tilt
from calogen.report.plots import png
from calogen.units import MEV_PER_GEV

BACKGROUND = "#0e131b"
FRAME = "#5d6b80"
TEXT = "#dfe6f0"
SOFT = "#93a1b5"
MAP = "inferno"
MAP_RANGE = (0.28, 1.0)  # the darkest colours of the map vanish on the background
COLOURS = 64
ENERGY_RANGE_MEV = (0.1, 100.0)  # half a MIP, the readout threshold of ILD's ECal, to the core of a shower
COVERAGE = 0.96  # share of the hits the frame holds
YAW_RAD, PITCH_RAD = -0.62, 0.33  # turn about the vertical, then tip towards the viewer
VIEW_DISTANCE = 4.0  # of the eye, in half sizes of the frame: mild perspective
POSITION_DECIMALS = 1
MARGIN = 0.12  # room about the frame, in its size on the picture
GLOW = 3.0  # area of the faint disc about each hit, in areas of the hit
MAX_HITS = 20_000
"""Hits drawn of one event, the most energetic first; more would make the page slow, and it is said beneath."""


@dataclass(frozen=True, eq=False)
class Event:
    """One shower in cells: `x, y, z [hits]` mm (z the depth), `energy [hits]` MeV; the rest names and frames it."""

    x: NDArray[Any]
    y: NDArray[Any]
    z: NDArray[Any]
    energy: NDArray[Any]
    incident_gev: float
    particle: str
    direction: tuple[float, float, float]
    layers_mm: tuple[float, ...]
    total_hits: int


def event(showers: Showers, index: int) -> Event:
    """Shower `index` as its readout cells above threshold.

    Raises:
        ValueError: no such shower.
    """
    if not 0 <= index < len(showers):
        raise ValueError(f"there is no event {index}: the showers are numbered 0 to {len(showers) - 1}")
    one = project(showers[index : index + 1]).showers
    best = np.sort(np.argsort(-one.energy, kind="stable")[:MAX_HITS])
    return Event(
        one.x[best],
        one.y[best],
        one.detector.z_mm[one.layer[best]],
        one.energy[best] * MEV_PER_GEV,
        float(one.incident.energy[0]),
        Particle.from_pdgid(int(one.incident.pdg[0])).name,
        tuple(float(v) for v in one.incident.direction[0]),  # type: ignore[arg-type]
        tuple(one.detector.z_mm.tolist()),
        one.n_points,
    )


def title(e: Event) -> str:
    """Particle, energy and hits in words."""
    return f"{e.particle} {e.incident_gev:.1f} GeV, {e.total_hits} hits, {e.energy.sum() / MEV_PER_GEV:.2f} GeV visible"


@dataclass(frozen=True)
class Frame:
    """The box that events are drawn in: (lowest, highest) of x, y and z in mm."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]

    @classmethod
    def around(cls, events: Sequence[Event]) -> Frame:
        """The box of all layers that the events reach, and of nearly all their hits sideways."""
        x, y, z = (np.concatenate([getattr(e, k) for e in events]) for k in "xyz")
        depth = float(z.max(initial=events[0].layers_mm[0]))
        return cls(_covering(x), _covering(y), (0.0, depth))

    @property
    def centre(self) -> NDArray[np.float64]:
        """Middle of the box."""
        return np.array([sum(self.x), sum(self.y), sum(self.z)]) / 2

    @property
    def half_size(self) -> float:
        """Half its longest side, mm."""
        return max(b - a for a, b in (self.x, self.y, self.z)) / 2


MIN_HALF_WIDTH_MM = 30.0


def _covering(values: NDArray[Any]) -> tuple[float, float]:
    if not values.size:
        return -MIN_HALF_WIDTH_MM, MIN_HALF_WIDTH_MM
    low, high = np.quantile(values, [1 - COVERAGE, COVERAGE])
    middle, half = 0.5 * (low + high), max(0.5 * (high - low), MIN_HALF_WIDTH_MM)
    return float(middle - half), float(middle + half)


def _corners(frame: Frame, z: float) -> list[tuple[float, float, float]]:
    (a, b), (c, d) = frame.x, frame.y
    return [(a, c, z), (b, c, z), (b, d, z), (a, d, z), (a, c, z)]


def _on_screen(points: NDArray[Any], frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Screen positions `[n, 2]` and nearness `[n]` (larger is closer) of points `[n, 3]`; depth runs to the right."""
    x, y, z = (np.asarray(points, dtype=np.float64) - frame.centre).T / frame.half_size
    side = z * np.cos(YAW_RAD) - x * np.sin(YAW_RAD)
    away = z * np.sin(YAW_RAD) + x * np.cos(YAW_RAD)
    up = y * np.cos(PITCH_RAD) - away * np.sin(PITCH_RAD)
    near = y * np.sin(PITCH_RAD) + away * np.cos(PITCH_RAD)
    size = VIEW_DISTANCE / (VIEW_DISTANCE - near)
    return np.stack([side * size, up * size], axis=-1), near


def _colour_position(energy_mev: NDArray[Any]) -> NDArray[np.float64]:
    low, high = np.log10(ENERGY_RANGE_MEV)
    return np.clip((np.log10(np.maximum(energy_mev, 1e-6)) - low) / (high - low), 0, 1)


def colours() -> list[str]:
    """The colour scale from the lowest to the highest energy, as hexadecimal colours."""
    scale = mpl.colormaps[MAP]
    return [to_hex(scale(v)) for v in np.linspace(*MAP_RANGE, COLOURS)]


def picture(events: Sequence[Event], labels: Sequence[str]) -> Figure:
    """Events side by side in the same box, on a dark ground."""
    frame = Frame.around(events)
    figure = Figure(figsize=(5.6 * len(events), 4.8), facecolor=BACKGROUND)
    panels = np.atleast_1d(figure.subplots(1, len(events)))
    figure.subplots_adjust(left=0, right=1, bottom=0.1, top=0.9, wspace=0)
    for axes, e, label in zip(panels, events, labels, strict=True):
        _draw(axes, e, frame)
        axes.set_title(label, color=TEXT, fontsize=15, fontweight="bold", loc="center", pad=8)
        axes.text(0.5, 0.0, title(e), color=SOFT, fontsize=9.5, ha="center", va="bottom", transform=axes.transAxes)
    corners, _ = _on_screen(np.array(_corners(frame, frame.z[0]) + _corners(frame, frame.z[1])), frame)
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = MARGIN * (high - low)
    for axes in panels:
        axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    _scale(figure)
    return figure


def _draw(axes: Axes, e: Event, frame: Frame) -> None:
    axes.set_axis_off()
    axes.set_aspect("equal")
    reached = [z for z in e.layers_mm if z <= frame.z[1] + 1e-6]
    outlines = [_on_screen(np.array(_corners(frame, z)), frame)[0] for z in reached]
    axes.add_collection(LineCollection(outlines, colors=FRAME, linewidths=0.5, alpha=0.35))
    t_x, t_y = (float(v) for v in tilt(np.array(e.direction)))
    before = -0.25 * frame.half_size
    track, _ = _on_screen(np.array([(t_x * before, t_y * before, before), (0, 0, 0)]), frame)
    axes.annotate("", track[1], track[0], arrowprops={"arrowstyle": "-|>", "color": TEXT, "lw": 1.2})
    place, near = _on_screen(np.stack([e.x, e.y, e.z], axis=-1), frame)
    order = np.argsort(near)
    value = _colour_position(e.energy[order])
    scale = mpl.colormaps[MAP](MAP_RANGE[0] + value * (MAP_RANGE[1] - MAP_RANGE[0]))
    size = (5 + 40 * value**2) * (VIEW_DISTANCE / (VIEW_DISTANCE - near[order])) ** 2
    across, up = place[order].T
    for grow, opacity in ((GLOW, 0.06 + 0.06 * value), (1.0, 0.55 + 0.45 * value)):
        scale[:, 3] = opacity
        axes.scatter(across, up, s=size * grow, c=scale, linewidth=0)


def _scale(figure: Figure) -> None:
    low, high = ENERGY_RANGE_MEV
    axes = figure.add_axes((0.4, 0.035, 0.2, 0.018))
    axes.imshow(np.linspace(*MAP_RANGE, 256)[None, :], aspect="auto", cmap=MAP, vmin=0, vmax=1)
    axes.set_axis_off()
    axes.text(-0.03, 0.5, f"{low:g} MeV", color=TEXT, fontsize=8, ha="right", va="center", transform=axes.transAxes)
    axes.text(1.03, 0.5, f"{high:g} MeV per cell", color=TEXT, fontsize=8, va="center", transform=axes.transAxes)


def viewer_script() -> str:
    """The page's own drawing code: no library, no network."""
    return (resources.files("calogen.report") / "viewer.js").read_text(encoding="utf-8")


def viewer_data(rows: Sequence[Sequence[tuple[str, Event]]]) -> str:
    """JSON for the viewer: rows of labelled events; each row shares one box, all turn together."""
    described = []
    for row in rows:
        frame = Frame.around([e for _, e in row])
        box = {"x": frame.x, "y": frame.y, "z": frame.z}
        described.append({"frame": box, "events": [_described(label, e) for label, e in row]})
    scene = {"colours": colours(), "yaw": YAW_RAD, "pitch": PITCH_RAD, "distance": VIEW_DISTANCE, "rows": described}
    # "<" cannot end the script element early when it is written as an escape.
    return json.dumps(scene, separators=(",", ":")).replace("<", "\\u003c")


def _described(label: str, e: Event) -> dict[str, Any]:
    def rounded(values: NDArray[Any]) -> list[float]:
        return [round(float(v), POSITION_DECIMALS) for v in values]

    reduced = f" ({e.energy.size} drawn)" if e.energy.size < e.total_hits else ""
    return {
        "label": label,
        "title": title(e) + reduced,
        "direction": [round(v, 5) for v in e.direction],
        "layers": rounded(np.asarray(e.layers_mm)),
        "x": rounded(e.x),
        "y": rounded(e.y),
        "z": rounded(e.z),
        "colour": np.rint(_colour_position(e.energy) * (COLOURS - 1)).astype(int).tolist(),
    }


def templates() -> jinja2.Environment:
    """The templates beside this file; what is put into them is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("calogen.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def show(
    showers: Showers,
    indices: Sequence[int],
    path: str | os.PathLike[str],
    *,
    heading: str,
    first: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write events of a file to `path`: a picture (`.png`) or a page that turns under the mouse (`.html`).

    `first` is the number in the file of the first of `showers`, where only a part of it was read.

    Raises:
        ValueError: no such event, another suffix, or a file that exists and must not be replaced.
    """
    out = Path(path)
    if out.suffix not in (".html", ".png"):
        raise ValueError(f"cannot draw to {out}: name a .html or a .png file")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; choose another name or allow overwriting")
    if not out.parent.is_dir():
        raise ValueError(f"the folder {out.parent} of {out.name} does not exist")
    if not indices:
        raise ValueError("name at least one event to draw")
    events = [(f"event {first + i}", event(showers, i)) for i in indices]
    if out.suffix == ".png":
        content = png(picture([e for _, e in events], [label for label, _ in events]))
    else:
        rows = [events[i : i + 2] for i in range(0, len(events), 2)]
        page = templates().get_template("events.html.j2")
        content = page.render(heading=heading, data=viewer_data(rows), script=viewer_script()).encode()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out
