"""`calogen solvers`: quality and cost of the solvers of a state's flows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from calogen.cli.files import points
from calogen.cli.options import (
    ConfigFile,
    Device,
    Overwrite,
    Quiet,
    Set,
    Threads,
    differences,
    read_state,
    use_threads,
)
from calogen.cli.output import blamed_on_output, require_free_folder
from calogen.cli.sample import sample_options
from calogen.cli.screen import progress, say, table

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.detector.geometry import Detector
    from calogen.evaluate.solver_scores import SolverStudy

TRAIN, TEST = "train", "test"


def solvers(
    state: Annotated[
        str,
        Parameter(help="Name of a shipped state (allshowers), the path of your own, or the directory of its training."),
    ],
    *,
    truth: Annotated[
        Path, Parameter(metavar="FILE", help="Showers of Geant4; of a file that marks parts, its test part.")
    ],
    output: Annotated[
        Path, Parameter(name=("--output", "-o"), metavar="DIR", help="Directory of the page, to be made.")
    ],
    train: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            help="Other Geant4 showers, for solvers to be fitted and for the floor; default: the training part of the "
            "truth's file.",
        ),
    ] = None,
    number: Annotated[
        int, Parameter(name=("--number", "-n"), metavar="N", help="Showers of each solver; at most those of the truth.")
    ] = 1000,
    flows: Annotated[
        tuple[str, ...],
        Parameter(metavar="NAME", negative="", consume_multiple=True, help="Solver stages whose flows are studied."),
    ] = (),
    methods: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="NAME",
            negative="",
            consume_multiple=True,
            help="Of euler, midpoint, heun, rk4, three_eighths, adaptive, bespoke (fitted here) and stored (the "
            "state's own); default all.",
        ),
    ] = (),
    evaluations: Annotated[
        tuple[int, ...],
        Parameter(metavar="N", negative="", consume_multiple=True, help="Evaluations of solvers in equal steps."),
    ] = (4, 8, 16, 32, 64),
    tolerances: Annotated[
        tuple[float, ...],
        Parameter(metavar="X", negative="", consume_multiple=True, help="Tolerances of the adaptive solver."),
    ] = (1e-1, 1e-2, 1e-3),
    bespoke: Annotated[
        tuple[int, ...],
        Parameter(metavar="N", negative="", consume_multiple=True, help="Evaluations of the solvers fitted here."),
    ] = (4, 8, 16),
    fit_steps: Annotated[
        int | None, Parameter(metavar="N", help="Steps of each fit; default: those of the system's plan.")
    ] = None,
    fit_minutes: Annotated[float | None, Parameter(metavar="M", help="Minutes that each fit may take at most.")] = None,
    fit_showers: Annotated[
        int | None,
        Parameter(metavar="N", help="Showers whose flow is solved finely to fit solvers; default mostly 64."),
    ] = None,
    repeats: Annotated[int, Parameter(help="Trainings of each classifier, on shifted parts of the samples.")] = 3,
    batch_size: Annotated[int, Parameter(metavar="N", help="Showers computed together.")] = 32,
    seed: Annotated[int, Parameter(help="Of the showers, of fits and classifiers.")] = 0,
    threads: Threads = None,
    device: Device = "cpu",
    set_: Set = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Compare the solvers of a state's flows: AUC of a classifier against evaluations and time, on one page.

    All solvers start from the same noise and draw showers for the particles (energies in GeV) of the truth. Bespoke
    solvers are fitted on the spot, by their local and by their global error. A study that was killed goes on where it
    was when started again with the same options.

    Example: calogen solvers run/ --truth electrons.h5 -o solvers/
    """
    require_free_folder(output, overwrite)
    changes = differences(config, set_)
    import calogen.systems
    from calogen.report.folder import check_place
    from calogen.report.solvers import FILES, write_solvers
    from calogen.solver_study import SOLVERS, Request, flows_of, study

    check_place(output, overwrite, FILES)
    request = Request(
        showers=number,
        flows=flows,
        solvers=methods or SOLVERS,
        evaluations=evaluations,
        tolerances=tolerances,
        bespoke=bespoke,
        plan=_plan(fit_steps, fit_minutes),
        fit_showers=fit_showers,
        repeats=repeats,
        batch_size=batch_size,
        seed=seed,
    )
    use_threads(threads)
    path = read_state(state)
    system = calogen.systems.load(path, device=device)
    flows_of(system, flows)
    request = replace(request, options=sample_options(system, changes))
    true = _part(truth, system.detector, TEST, "truth")
    others = _part(train or truth, system.detector, TRAIN, "truth" if train is None else "train")
    folder = output.parent / f".{output.name}.solvers"
    with blamed_on_output(output):
        with progress("showers of all solvers", quiet=quiet) as report:
            made = study(
                *(system, true, others, request),
                folder=folder,
                names=(Path(state).name.removesuffix(".safetensors"), truth.name),
                progress=report,
                quiet=quiet,
            )
        page = write_solvers(made, output, overwrite=overwrite)
    shutil.rmtree(folder, ignore_errors=True)
    _print(made, quiet)
    say(f"page in {page}", quiet=quiet)


def _plan(steps: int | None, minutes: float | None) -> dict[str, object]:
    """Changes to the plan of each fit."""
    changes: dict[str, object] = {} if steps is None else {"steps": steps, "epochs": None}
    return changes if minutes is None else changes | {"max_minutes": minutes}


def _part(file: Path, detector: Detector, part: str, option: str) -> Showers:
    """The showers of one part of a file; all of them where it marks none.

    Raises:
        ValueError: the part is empty, or the other part of a file is wanted that marks none.
    """
    from calogen.data.formats import batches, open_source
    from calogen.data.showers import Showers

    with open_source(file, detector=detector) as source:
        marked = source.split is not None
    if not marked and (part, option) == (TRAIN, "truth"):
        raise ValueError(f"--truth {file}: marks no training part; give other Geant4 showers with --train FILE")
    split = part if marked else None
    showers = Showers.concatenate([points(batch) for batch in batches(file, detector=detector, split=split)])
    if not len(showers):
        raise ValueError(f"--{option} {file}: has no showers in its part {part!r}")
    return showers


def _print(made: SolverStudy, quiet: bool) -> None:
    from calogen.report.solvers import columns, floor_text, row

    for flow in made.flows:
        rows = [row(score) for scores in made.of(flow).values() for score in scores]
        table(f"{flow}: {made.showers} showers, {made.features}", columns(), rows, quiet=quiet)
    say(floor_text(made), quiet=quiet)
    for note in made.notes:
        say(f"note: {note}", quiet=quiet)
