"""`calogen simulate`: showers from Geant4."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from calogen.cli.gun import Gun
from calogen.cli.options import Output, Overwrite, Quiet, read_field
from calogen.cli.output import blamed_on_output, require_free
from calogen.cli.screen import progress, say

if TYPE_CHECKING:
    from calogen.geant4.run import Shard
    from calogen.geant4.shards import Request

FieldTesla = Annotated[
    str | None,
    Parameter(
        metavar="X,Y,Z",
        allow_leading_hyphen=True,
        help="Magnetic field, tesla: x along the beam, z into the calorimeter. Default: the detector's (ILD 3.5,0,0).",
    ),
]


def simulate(
    *,
    output: Output,
    detector: Annotated[
        str,
        Parameter(metavar="NAME", help="ild-ecal, ild, calochallenge-2, calochallenge-3, or a .toml of slabs (mm)."),
    ] = "ild-ecal",
    gun: Gun = Gun(),  # noqa: B008 - frozen
    workers: Annotated[int, Parameter(metavar="N", help="Processes; the showers do not depend on it.")] = 1,
    physics: Annotated[
        str, Parameter(metavar="LIST", help="em, or a reference list of Geant4 such as FTFP_BERT (hadrons).")
    ] = "em",
    field_tesla: FieldTesla = None,
    cut_mm: Annotated[float, Parameter(metavar="MM", help="Production cut of Geant4, mm.")] = 0.7,
    time_cut_ns: Annotated[float | None, Parameter(metavar="NS", help="Drop deposits later than this, ns.")] = None,
    birks_mm_per_mev: Annotated[
        float | None, Parameter(metavar="KB", help="Birks' constant of scintillator, mm/MeV (polystyrene 0.126).")
    ] = None,
    keep_time: Annotated[
        bool, Parameter(negative="", help="Keep the time of each point's highest deposit, ns (a larger file).")
    ] = False,
    voxels: Annotated[
        bool, Parameter(negative="", help="Keep energies in the detector's cells (GeV) instead of points.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make showers with Geant4 (package extra `geant4`, data in GEANT4_DATA_DIR).

    A run that was killed goes on where it was when started again with the same options.

    Example: calogen simulate --detector ild-ecal --pdg 22 --energy 1:127 --spectrum log --angles barrel
    -n 1000 --workers 2 --seed 1 -o photons.h5
    """
    require_free(output, overwrite)
    incident = gun.incident()
    from calogen.geant4.run import make_request

    request = make_request(
        detector,
        incident,
        seed=gun.seed,
        physics=physics,
        field_tesla=None if field_tesla is None else read_field(field_tesla),
        cut_mm=cut_mm,
        time_cut_ns=time_cut_ns,
        birks_mm_per_mev=birks_mm_per_mev,
        keep_time=keep_time,
        voxels=voxels,
    )
    with blamed_on_output(output):
        made = _run(request, output, workers, overwrite, quiet)
    say(f"{len(incident)} showers in {output}, {made.cpu_s / len(incident):.3g} s of CPU each", quiet=quiet)
    say(made.not_kept(), quiet=quiet)


@dataclass
class _Made:
    """CPU seconds, and where the energy deposited in the sensors went, summed over all showers."""

    cpu_s: float = 0.0
    kept_gev: float = 0.0
    outside_gev: float = 0.0
    below_threshold_gev: float = 0.0

    def add(self, shard: Shard) -> None:
        events = shard.showers if shard.voxels is None else shard.voxels
        self.cpu_s += float(shard.cpu_s.sum())
        self.kept_gev += float(events.energy.sum(dtype=float))
        self.outside_gev += float(shard.lost.outside.sum())
        self.below_threshold_gev += float(shard.lost.faint.sum())

    def energies(self) -> dict[str, float | None]:
        """For the provenance; none where shards of an earlier version did not count."""
        found = {name: value for name, value in asdict(self).items() if name.endswith("_gev")}
        return {name: None if math.isnan(value) else value for name, value in found.items()}

    def not_kept(self) -> str:
        total = self.kept_gev + self.outside_gev + self.below_threshold_gev
        if math.isnan(total):
            return "not kept: not counted in shards of an earlier version"
        outside, below = (100 * e / max(total, 1e-300) for e in (self.outside_gev, self.below_threshold_gev))
        return f"not kept: {outside:.3g} % of the energy outside the readout, {below:.3g} % below threshold"


def _run(request: Request, output: Path, workers: int, overwrite: bool, quiet: bool) -> _Made:
    """Simulate into shards beside the output, then gather them into it."""
    from calogen.data.formats.native import Writer
    from calogen.geant4.run import run_shards
    from calogen.geant4.stacks import detector_of
    from calogen.provenance import provenance

    shards = output.with_name(f".{output.name}.shards")
    made = _Made()
    with progress("Geant4", quiet=quiet) as bar:
        for shard in run_shards(request, workers=workers, shard_dir=shards, progress=bar):
            made.add(shard)
    about = provenance(
        seed=request.seed,
        geant4=request.describe(),
        cpu_s_per_shower=made.cpu_s / len(request.incident),
        energy=made.energies(),
    )
    with Writer(output, detector_of(request.setup.stack), provenance=about, overwrite=overwrite) as writer:
        for shard in run_shards(request, workers=workers, shard_dir=shards):
            writer.append(shard.voxels if shard.voxels is not None else shard.showers)
    shutil.rmtree(shards)
    return made
