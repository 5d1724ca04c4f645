"""`calogen convert`, `info` and `show`: shower files changed, described and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from calogen.cli.options import Output, Overwrite, Quiet
from calogen.cli.output import require_free, whole
from calogen.cli.screen import progress, say, table

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.evaluate.summary import Range, Summary

STATE_SUFFIX = ".safetensors"

DetectorName = Annotated[
    str | None,
    Parameter(metavar="NAME", help="Detector of the file (a name, .toml or .xml; mm), where the file does not say it."),
]


def convert(
    source: Annotated[Path, Parameter(name="in", metavar="IN", help="A shower file of any known format.")],
    output: Annotated[Path, Parameter(name="out", metavar="OUT", help="The new file.")],
    *,
    format: Annotated[str, Parameter(metavar="NAME", help="Format of OUT; `calogen info` names them.")] = "calogen",
    detector: DetectorName = None,
    compact: Annotated[
        bool,
        Parameter(negative="", help="Positions to 0.1 mm and energies to 0.05 %: a third of the size (ours only)."),
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Convert between shower file formats, in constant memory. Units are converted: GeV, mm and ns in ours."""
    require_free(output, overwrite)
    from calogen.data.formats import FORMATS, SHOWERS_PER_BATCH, open_source
    from calogen.overrides import nearest

    if format not in FORMATS:
        raise ValueError(f"--format {format}: unknown; {nearest(format, FORMATS)}")
    sink = FORMATS[format].sink
    if sink is None:
        raise ValueError(f"--format {format}: can be read but not written; choose another")
    if compact and format != "calogen":
        raise ValueError(f"--compact belongs to the calogen format, not to {format}; leave it out")
    with open_source(source, detector=_detector(detector)) as opened:
        options = _native_options(opened, source, compact) if format == "calogen" else {}
        with (
            progress("convert", opened.n_showers, quiet=quiet) as report,
            sink(output, opened.detector, overwrite=overwrite, **options) as writer,
        ):
            for start in range(0, opened.n_showers, SHOWERS_PER_BATCH):
                stop = min(start + SHOWERS_PER_BATCH, opened.n_showers)
                writer.append(opened.load(start, stop))
                report(stop, opened.n_showers)
    say(f"{opened.n_showers} showers in {output} ({output.stat().st_size / 1e6:.3g} MB)", quiet=quiet)


def _native_options(opened: Any, source: Path, compact: bool) -> dict[str, Any]:
    from calogen.provenance import provenance

    about = provenance(source=source.name, source_provenance=opened.provenance)
    return {"provenance": about, "precision": "compact" if compact else "exact"}


def _detector(name: str | None) -> Any:
    if name is None:
        return None
    from calogen.detector.catalog import detector

    return detector(name)


def info(
    file: Annotated[Path, Parameter(metavar="FILE", help="A shower file, or a trained state.")],
    *,
    detector: DetectorName = None,
    plot: Annotated[
        Path | None, Parameter(metavar="OUT.png", help="A picture of what is in the file (GeV, mm).")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Say what a file is: format, detector, counts, units and ranges (GeV, mm, ns, degrees), and where it came from."""
    if plot is not None:
        require_free(plot, overwrite)
    if file.suffix == STATE_SUFFIX:
        _state_info(file)
        return
    from calogen.data.formats import SHOWERS_PER_BATCH, open_source, sniff
    from calogen.evaluate.summary import summarise

    with open_source(file, detector=_detector(detector)) as opened:
        starts = range(0, opened.n_showers, SHOWERS_PER_BATCH)
        summary = summarise(opened.load(s, min(s + SHOWERS_PER_BATCH, opened.n_showers)) for s in starts)
        about = [
            ("format", sniff(file)),
            ("size", f"{file.stat().st_size / 1e6:.3g} MB"),
            ("detector", f"{opened.detector.name}, {opened.detector.n_layers} layers"),
            ("units in the file", opened.units),
        ]
        about += [(f"provenance: {key}", _short(value)) for key, value in opened.provenance.items()]
    table(str(file), ("", ""), about + _ranges(summary), left=True)
    if plot is not None:
        _plot(file, detector, plot)


def _plot(file: Path, detector: str | None, output: Path) -> None:
    from calogen.data.formats import read
    from calogen.report import plots

    figure = plots.file_summary(points(read(file, detector=_detector(detector), stop=plots.FILE_SHOWERS)))
    with whole(output) as part:
        part.write_bytes(plots.png(figure))
    say(f"picture in {output}")


def points(events: Any) -> Showers:
    """Showers as they are; voxels as one point in the middle of each."""
    from calogen.data.projection import points_of
    from calogen.data.voxels import Voxels

    return points_of(events) if isinstance(events, Voxels) else events


def _ranges(s: Summary) -> list[tuple[str, str]]:
    def span(values: Range, unit: str) -> str:
        if not values.n:
            return "none"
        return f"{values.low:.4g} to {values.high:.4g} {unit}, mean {values.mean:.4g}".replace("  ", " ")

    rows = [
        ("showers", str(s.showers)),
        ("particles (PDG)", ", ".join(f"{code}: {n}" for code, n in sorted(s.pdg.items()))),
        ("incident energy", span(s.energy_gev, "GeV")),
        ("angle from the normal", span(s.angle_deg, "degrees")),
        ("points per shower", span(s.points, "")),
        ("visible energy per shower", span(s.visible_gev, "GeV")),
        ("energy per point", span(s.point_energy_gev, "GeV")),
        ("x", span(s.x_mm, "mm")),
        ("y", span(s.y_mm, "mm")),
        ("time", span(s.time_ns, "ns")),
    ]
    return [row for row in rows if row[1] != "none"]


def _short(value: Any, limit: int = 100) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _state_info(file: Path) -> None:
    from calogen.systems.state import State

    state = State.read(file)
    numbers = {part: 0 for part in sorted({name.partition("/")[0] for name in state.tensors})}
    for name, tensor in state.tensors.items():
        numbers[name.partition("/")[0]] += tensor.numel()
    data = state.provenance.get("data", {})
    rows = [
        ("a trained state of", state.system),
        ("size", f"{file.stat().st_size / 1e6:.3g} MB, {state.dtype}"),
        ("detector", f"{state.detector.get('name')}, {len(state.detector.get('layers', []))} layers"),
        ("numbers", ", ".join(f"{part} {n:,}" for part, n in numbers.items())),
    ]
    rows += [(f"config: {key}", _short(value)) for key, value in state.config.items()]
    rows += [(f"data: {key}", _short(value)) for key, value in data.items()]
    rows += [(key, _short(state.provenance[key])) for key in ("command", "ended") if key in state.provenance]
    table(str(file), ("", ""), rows, left=True)


def show(
    file: Annotated[Path, Parameter(metavar="FILE", help="A shower file of any known format.")],
    *,
    output: Output,
    event: Annotated[int, Parameter(metavar="K", help="Which shower, counted from 0.")] = 0,
    detector: DetectorName = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Draw one shower in 3D: cells in mm, energies in MeV, the particle in GeV.

    The page (.html) turns under the mouse and needs no network; a picture (.png) stands still.
    """
    require_free(output, overwrite)
    from calogen.data.formats import open_source
    from calogen.report import display

    with open_source(file, detector=_detector(detector)) as opened:
        if not 0 <= event < opened.n_showers:
            raise ValueError(f"--event {event}: {file} holds showers 0 to {opened.n_showers - 1}")
        showers = points(opened.load(event, event + 1))
    display.show(showers, [0], output, heading=f"{file.name}, shower {event}", overwrite=overwrite)
    say(f"shower {event} in {output}", quiet=quiet)
