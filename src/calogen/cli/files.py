"""`calogen convert` and `info`: shower files changed and described."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from calogen.cli.options import Out, OutputToo, Overwrite, Quiet, read_output, read_state
from calogen.cli.output import require_free, whole
from calogen.cli.screen import progress, say, table

if TYPE_CHECKING:
    from calogen.data.formats import FileInfo
    from calogen.data.showers import Showers
    from calogen.detector.geometry import Detector

STATE_SUFFIX = ".safetensors"
COMMAND, SOURCE = "command", "source_provenance"
"""Facts of the provenance that are told whole, and as a list of their own."""

DetectorName = Annotated[
    str | None,
    Parameter(metavar="NAME", help="Detector of the file (a name, .toml or .xml; mm), where the file does not say it."),
]


def convert(
    source: Annotated[Path, Parameter(name="in", metavar="IN", help="A shower file of any known format.")],
    out: Out = None,
    /,
    *,
    output: OutputToo = None,
    format: Annotated[str, Parameter(metavar="NAME", help="Format of OUT; `calogen info` names them.")] = "calogen",
    detector: DetectorName = None,
    voxels: Annotated[
        str | None,
        Parameter(metavar="NAME", help="Sum points into the cells of this detector, GeV, for formats of voxels."),
    ] = None,
    compact: Annotated[
        bool,
        Parameter(negative="", help="Positions to 0.1 mm and energies to 0.05 %: a third of the size (ours only)."),
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Convert between shower file formats, in constant memory. Units are converted: GeV, mm and ns in ours."""
    output = require_free(read_output(out, output), overwrite)
    from calogen.data import formats
    from calogen.provenance import provenance

    if compact and format != "calogen":
        raise ValueError(f"--compact belongs to the calogen format, not to {format}; leave it out")
    options: dict[str, Any] = {"precision": "compact"} if compact else {}
    if voxels is not None:
        _voxelize(source, output, format, (named_detector(detector), named_detector(voxels)), overwrite, quiet)
        return
    with progress("convert", quiet=quiet) as report:
        n = formats.convert(
            source,
            output,
            format=format,
            detector=named_detector(detector),
            overwrite=overwrite,
            provenance=provenance(),
            progress=report,
            **options,
        )
    say(f"{n} showers in {output} ({output.stat().st_size / 1e6:.3g} MB)", quiet=quiet)


def _voxelize(
    source: Path, output: Path, format: str, detectors: tuple[Detector | None, Detector], overwrite: bool, quiet: bool
) -> None:
    """Convert with the points summed into the cells of the second detector; what falls outside is said."""
    from calogen.data.formats import FORMATS, SHOWERS_PER_BATCH, Extent, open_source
    from calogen.data.projection import voxelize
    from calogen.overrides import nearest
    from calogen.provenance import provenance

    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: {nearest(format, FORMATS)}")
    outside, kept = 0.0, 0.0
    with open_source(source, detector=detectors[0]) as opened, progress("convert", quiet=quiet) as report:
        n, about = opened.n_showers, provenance(source=source.name, source_provenance=opened.provenance)
        sink = FORMATS[format].sink(output, detectors[1], overwrite=overwrite, extent=Extent(n, 0), provenance=about)
        with sink as file:
            for start in range(0, n, SHOWERS_PER_BATCH):
                stop = min(start + SHOWERS_PER_BATCH, n)
                cells, lost = voxelize(points(opened.load(start, stop)), detectors[1])
                file.append(cells)
                kept, outside = kept + float(cells.energy.sum(dtype=float)), outside + float(lost.sum())
                report(stop, n)
    share = 100 * outside / max(kept + outside, 1e-300)
    say(f"{n} showers in {output}; {share:.3f} % of the energy fell outside {detectors[1].name}", quiet=quiet)


def named_detector(name: str | None) -> Any:
    """The detector of that name or file; None where none was named."""
    if name is None:
        return None
    from calogen.detector.catalog import detector

    return detector(name)


def info(
    file: Annotated[Path, Parameter(metavar="FILE", help="A shower file, or a trained state (or its directory).")],
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
    file = Path(read_state(str(file)))
    if file.suffix == STATE_SUFFIX:
        _state_info(file)
        return
    from calogen.data import formats

    table(str(file), ("", ""), _described(formats.info(file, detector=named_detector(detector))), left=True)
    if plot is not None:
        _plot(file, detector, plot)


def _described(i: FileInfo) -> list[tuple[str, str]]:
    counts = i.points_per_shower
    rows = [
        ("format", f"{i.format}, {i.kind}" + (f", {i.precision}" if i.precision else "")),
        ("size", f"{i.size_bytes / 1e6:.3g} MB"),
        ("detector", f"{i.detector}, {i.n_layers} layers"),
        ("units in the file", i.stored_units),
        ("showers", f"{i.n_showers}"),
        ("particles (PDG)", ", ".join(f"{code}: {n}" for code, n in i.particles.items())),
        ("parts", ", ".join(f"{name} {n}" for name, n in i.splits.items())),
        ("points" if i.kind == "points" else "voxels with energy", f"{i.n_points}"),
        ("of each shower", f"{counts.lowest:.0f} to {counts.highest:.0f}, mean {counts.mean:.1f}"),
    ]
    rows += [
        (name, f"{r.lowest:.4g} to {r.highest:.4g} {r.unit}".rstrip() + f", mean {r.mean:.4g}")
        for name, r in i.ranges.items()
    ]
    return [row for row in rows + _history(i.provenance, "provenance") if row[1]]


def _history(provenance: Mapping[str, Any], title: str) -> list[tuple[str, str]]:
    """A row for each fact, shortened but for the command that makes the file again; then those of the source."""
    facts = {key: value for key, value in provenance.items() if key != SOURCE}
    rows = [(f"{title}: {key}", str(value) if key == COMMAND else _short(value)) for key, value in facts.items()]
    source = provenance.get(SOURCE)
    return rows + (_history(source, f"{title} of the source") if isinstance(source, Mapping) else [])


def _plot(file: Path, detector: str | None, output: Path) -> None:
    from calogen.data.formats import read
    from calogen.report import plots

    figure = plots.file_summary(points(read(file, detector=named_detector(detector), stop=plots.FILE_SHOWERS)))
    with whole(output) as part:
        part.write_bytes(plots.png(figure))
    say(f"picture in {output}")


def points(events: Any) -> Showers:
    """Showers as they are; voxels as one point in the middle of each."""
    from calogen.data.projection import points_of
    from calogen.data.voxels import Voxels

    return points_of(events) if isinstance(events, Voxels) else events


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
    rows += [(key, str(state.provenance[key])) for key in (COMMAND, "ended") if key in state.provenance]
    table(str(file), ("", ""), rows, left=True)
