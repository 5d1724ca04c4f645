"""`calogen show`: the showers of a file, on a page on which they turn, or as a picture."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from calogen.cli.files import DetectorName, named_detector, points
from calogen.cli.options import EnergyRange, Overwrite, Quiet, read_energy
from calogen.cli.output import require_free
from calogen.cli.screen import say

if TYPE_CHECKING:
    from calogen.data.formats import Source
    from calogen.data.showers import Showers

EVENTS = 40
"""Showers on a page where no other number is asked for."""
LOOKED_AT = 500
"""Showers read at once where energies are looked for."""


def show(
    file: Annotated[Path, Parameter(metavar="FILE", help="A shower file of any known format.")],
    *,
    output: Annotated[
        Path | None,
        Parameter(
            name=("--output", "-o"),
            metavar="PATH",
            help="A page (.html) or a picture (.png); without it FILE's name with .html, here, opened in your browser.",
        ),
    ] = None,
    event: Annotated[int, Parameter(metavar="K", help="The first shower shown, counted from 0.")] = 0,
    number: Annotated[
        int, Parameter(name=("--number", "-n"), metavar="N", help="How many showers a page holds; a picture has one.")
    ] = EVENTS,
    energy: Annotated[
        str | None, Parameter(metavar="LOW:HIGH", help="Only showers of such incident energies, GeV.")
    ] = None,
    detector: DetectorName = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Browse showers in 3D: cells in mm, energies in MeV, the particle in GeV.

    The page turns under the mouse, goes to the next, the previous or any shower it holds, filters them by energy and
    needs no network; a picture stands still.
    """
    out = Path(f"{file.stem}.html") if output is None else output
    require_free(out, overwrite)
    if number < 1:
        raise ValueError(f"--number {number}: give a number of at least 1")
    wanted = None if energy is None else read_energy(energy)
    from calogen.data.formats import open_source
    from calogen.report import browser

    with open_source(file, detector=named_detector(detector)) as opened:
        if not 0 <= event < opened.n_showers:
            raise ValueError(f"--event {event}: {file} holds showers 0 to {opened.n_showers - 1}")
        showers, numbers = _chosen(opened, event, 1 if out.suffix == ".png" else number, wanted)
    if not numbers:
        raise ValueError(
            f"--energy {energy}: {file} holds no such shower from number {event} on; calogen info says more"
        )
    browser.show(showers, numbers, out, heading=file.name, overwrite=overwrite)
    which = f"shower {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} showers from number {numbers[0]} on"
    say(f"{which} in {out} ({out.stat().st_size / 1e6:.2g} MB)", quiet=quiet)
    if output is None and _desktop():
        webbrowser.open(out.resolve().as_uri())


def _chosen(source: Source, first: int, count: int, energy: EnergyRange | None) -> tuple[Showers, list[int]]:
    """Up to `count` showers from `first` on, of the energies wanted, and their numbers in the file."""
    if energy is None:
        last = min(first + count, source.n_showers)
        return points(source.load(first, last)), list(range(first, last))
    from calogen.data.showers import Showers

    parts, numbers = [], list[int]()
    for start in range(first, source.n_showers, LOOKED_AT):
        events = source.load(start, min(start + LOOKED_AT, source.n_showers))
        e = events.incident.energy
        here = ((e >= energy.low) & (e <= energy.high)).nonzero()[0][: count - len(numbers)]
        parts.append(points(events[here]))
        numbers += (here + start).tolist()
        if len(numbers) == count:
            break
    return Showers.concatenate(parts), numbers


def _desktop() -> bool:
    """Whether there is a screen: a browser in a terminal could not draw the page."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))
