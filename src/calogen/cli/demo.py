"""`calogen demo`: a shipped state against shipped Geant4 showers."""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from calogen.cli.evaluate import DISPLAYS, score_table, score_tables
from calogen.cli.files import points
from calogen.cli.options import Overwrite, Quiet
from calogen.cli.output import require_free_folder
from calogen.cli.screen import say, table

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.evaluate.findings import Findings
    from calogen.report.page import Timing

SAMPLES = {
    "caloclouds3": "samples/photons.h5",
    "calohadronic": "samples/pions.h5",
    "allshowers": "samples/particles.h5",
    "calodream": "samples/electrons.h5",
    "omnijet": "samples/box.h5",
}
"""Geant4 showers of the test set that are shipped, for each shipped state."""
GEANT4_COST = "cpu_s_per_shower"
WARM_UP = 8
"""Showers sampled before the clock starts: the first ones pay for PyTorch's start."""


def demo(
    *,
    system: Annotated[
        str, Parameter(metavar="SYSTEM", help=f"Which shipped state: {', '.join(SAMPLES)}.")
    ] = "caloclouds3",
    output: Annotated[
        Path, Parameter(name=("--output", "-o"), metavar="DIR", help="Directory of the report, to be made.")
    ] = Path("demo"),
    seed: Annotated[int, Parameter(help="Same seed, same showers.")] = 1,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Sample, project and judge with what is shipped: no data and no Geant4 needed, at most two minutes.

    For the incident particles of shipped Geant4 showers (photons in the ILD ECal; pions, or all particles, in ECal and
    HCal; electrons in the CaloChallenge's data set 2; photons in a box of 30 x 30 x 30 cells) the shipped state of a
    system makes others; both are projected into the detector's cells (of 5 mm, in the HCal 30 mm; rings of 4.65 mm) and
    compared. Leaves one HTML page and the numbers as JSON.
    """
    from calogen.overrides import nearest

    if system not in SAMPLES:
        raise ValueError(f"--system {system}: no state of it is shipped; {nearest(system, SAMPLES)}")
    require_free_folder(output, overwrite)
    import calogen.systems
    from calogen.detector.geometry import PolarCells
    from calogen.evaluate.judgement import Comparison, Judgement
    from calogen.evaluate.protocol import evaluate
    from calogen.report.events import matched
    from calogen.report.page import write_report

    truth, about = _shipped_truth(SAMPLES[system])
    say(f"sampling {len(truth)} showers of {system} for the particles of the Geant4 sample", quiet=quiet)
    fitted = calogen.systems.load(system)
    fitted.sample(truth.incident[:WARM_UP], seed=seed)
    start = time.process_time()
    generated = fitted.sample(truth.incident, seed=seed, progress=not quiet)
    seconds = (time.process_time() - start) / len(truth)
    say("projecting into cells and judging", quiet=quiet)
    timing = _timing(system, seconds, about)
    facts: dict[str, Any] = {"state": system, "seed": seed}
    if isinstance(truth.detector.layers[0].cells, PolarCells):
        model = Comparison(system, len(generated), _voxel_findings(generated, truth, seed), provenance=facts)
    else:
        model = Comparison(system, len(generated), evaluation=evaluate(generated, truth, seed=seed), provenance=facts)
    judgement = Judgement(truth.detector.name, Path(SAMPLES[system]).name, len(truth), (model,), seed, about)
    shown = matched(truth, [(system, generated)], DISPLAYS)
    page = write_report(judgement, output, displays=shown, timing=timing, overwrite=overwrite)
    if model.evaluation is None:
        score_tables(judgement, quiet=quiet)
    else:
        score_table(model.evaluation, quiet=quiet)
    _timing_table(timing, quiet)
    say(f"page: {page.resolve()}", quiet=quiet)
    say(f"numbers: {page.with_name('scores.json').resolve()}", quiet=quiet)


def _voxel_findings(generated: Showers, truth: Showers, seed: int) -> tuple[Findings, ...]:
    """The scores of the CaloChallenge, without its classifiers, which take longer than a demonstration may."""
    from calogen.data.projection import voxelize
    from calogen.evaluate.calochallenge import judge_observed
    from calogen.evaluate.voxel_sample import observe_voxels

    made, true = (observe_voxels(voxelize(s)[0], seed=seed) for s in (generated, truth))
    return judge_observed(made, true, seed=seed)


def _shipped_truth(sample: str) -> tuple[Showers, dict[str, Any]]:
    from calogen.data.formats import open_source

    with resources.as_file(resources.files("calogen") / sample) as path, open_source(path) as source:
        return points(source.load(0, source.n_showers)), source.provenance


def _timing(label: str, seconds: float, about: dict[str, Any]) -> list[Timing]:
    import torch

    from calogen.report.page import Timing

    threads = torch.get_num_threads()
    measured = Timing(label, seconds, f"CPU time measured now, {threads} thread{'s' if threads > 1 else ''}")
    if GEANT4_COST not in about:
        return [measured]
    return [measured, Timing("Geant4", float(about[GEANT4_COST]), "CPU time when the sample was made")]


def _timing_table(timing: list[Timing], quiet: bool) -> None:
    slowest = max(t.seconds_per_shower for t in timing)
    rows = [(t.label, f"{t.seconds_per_shower:.3g}", f"{slowest / t.seconds_per_shower:.0f} x", t.note) for t in timing]
    table("Time", ("", "seconds per shower", "speed", ""), rows, quiet=quiet)
