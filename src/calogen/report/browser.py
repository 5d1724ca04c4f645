"""Event browsers: pages on which showers turn under the mouse, without a library and without a network."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from calogen.data.showers import Showers
from calogen.report.display import PITCH_RAD, VIEW_DISTANCE, YAW_RAD, colour_position, colours, picture
from calogen.report.events import Event, Frame, Row, energy_range_mev, event, title
from calogen.report.plots import png
from calogen.report.words import sentence, title_of

LEVELS = 255
"""Steps of the colour scale in which a hit's energy is kept: 3 % over three decades."""
POSITION_STEP_MM = 0.1
INT16_MAX = 32_767


def viewer_data(rows: Sequence[Row], *, first: int = 0) -> str:
    """JSON for the viewer: rows of labelled events, of which row `first` is seen first.

    Each row shares one box; all share the colours and turn together.
    """
    events = [e for row in rows for _, e in row.events]
    range_mev = energy_range_mev(events)
    scene = {
        "colours": colours(),
        "range_mev": range_mev,
        "yaw": YAW_RAD,
        "pitch": PITCH_RAD,
        "distance": VIEW_DISTANCE,
        "layers": events[0].layers_mm.round(2).tolist(),
        "polar": events[0].polar,
        "first": first,
        "rows": [_described_row(row, range_mev) for row in rows],
    }
    return safe_json(json.dumps(scene, separators=(",", ":")))


def safe_json(text: str) -> str:
    """JSON that can stand inside a script element: `<` cannot end it early when it is written as an escape."""
    return text.replace("<", "\\u003c")


def _described_row(row: Row, range_mev: tuple[float, float]) -> dict[str, Any]:
    frame = Frame.around([e for _, e in row.events])
    first = row.events[0][1]
    return {
        "number": row.number,
        "energy": float(f"{first.incident_gev:.5g}"),
        "particle": first.particle,
        "frame": {k: [round(v, 1) for v in getattr(frame, k)] for k in "xyz"},
        "events": [_described(label, e, range_mev) for label, e in row.events],
    }


def _described(label: str, e: Event, range_mev: tuple[float, float]) -> dict[str, Any]:
    far = max(float(np.abs(v).max(initial=0.0)) for v in (e.x, e.y))
    step = max(POSITION_STEP_MM, far / INT16_MAX)
    return {
        "label": label,
        "title": title(e),
        "direction": [round(v, 5) for v in e.direction],
        "step_mm": step,
        "x": _packed(e.x / step, "<i2"),
        "y": _packed(e.y / step, "<i2"),
        "layer": _packed(e.layer, "<u2"),
        "level": _packed(colour_position(e.energy, range_mev) * LEVELS, "u1"),
        "profile": [float(f"{v:.4g}") for v in e.profile],
    }


def _packed(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.rint(values).astype(kind).tobytes()).decode()


def asset(name: str) -> str:
    """Text of a script beside this file."""
    return (resources.files("calogen.report") / name).read_text(encoding="utf-8")


def templates() -> jinja2.Environment:
    """The templates beside this file; what is put into them is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("calogen.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"code": _code, "title_of": title_of}
    return found


def _code(text: str) -> Markup:
    """Escaped text in readers' words, in which `names` stand as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence(text)))))


def show(
    showers: Showers,
    numbers: Sequence[int],
    path: str | os.PathLike[str],
    *,
    heading: str,
    overwrite: bool = False,
) -> Path:
    """Write all of `showers` to `path`: a picture (`.png`) or an event browser (`.html`).

    `numbers` are those of the showers in the file they came from.

    Raises:
        ValueError: no showers, another suffix, or a file that exists and must not be replaced.
    """
    out = Path(path)
    if out.suffix not in (".html", ".png"):
        raise ValueError(f"cannot draw to {out}: name a .html or a .png file")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; choose another name or allow overwriting")
    if not out.parent.is_dir():
        raise ValueError(f"the folder {out.parent} of {out.name} does not exist")
    if len(showers) != len(numbers) or not len(showers):
        raise ValueError(f"name at least one event to draw, and all by number; got {len(showers)} and {len(numbers)}")
    labels = [f"event {n}" for n in numbers]
    events = [event(showers, i) for i in range(len(showers))]
    if out.suffix == ".png":
        content = png(picture(events, labels))
    else:
        rows = [Row(n, ((label, e),)) for n, label, e in zip(numbers, labels, events, strict=True)]
        content = _browser(rows, heading, showers.detector.name).encode()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def _browser(rows: Sequence[Row], heading: str, detector: str) -> str:
    page = templates().get_template("events.html.j2")
    return page.render(heading=heading, detector=detector, data=viewer_data(rows), script=asset("viewer.js"))
