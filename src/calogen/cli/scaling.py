"""`calogen scaling`: scaling laws of a token generator."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from calogen.cli.files import points
from calogen.cli.options import ConfigFile, Overwrite, Quiet, Set, Threads, differences, read_state, use_threads
from calogen.cli.output import require_free_folder
from calogen.cli.presets import CONFIG
from calogen.cli.screen import say, table

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.evaluate.scaling_scores import ScalingStudy
    from calogen.systems.omnijet import OmniJet

STAGE = "generator"
GIVEN_BY_SIZES = ("network.width", "network.blocks", "network.drafts")
TEST = "test"
PAGE_SECONDS = 60.0
"""At most so often the page of an unfinished study is written."""


def scaling(
    system: Annotated[str, Parameter(metavar="SYSTEM", help="omnijet: the system that draws tokens.")],
    *,
    data: Annotated[list[Path], Parameter(metavar="FILE", negative="", help="Showers to learn from; may be repeated.")],
    truth: Annotated[
        Path,
        Parameter(metavar="FILE", help="Showers of Geant4 to compare with; of a file that marks parts, its test part."),
    ],
    output: Annotated[
        Path, Parameter(name=("--output", "-o"), metavar="DIR", help="Directory of all runs and of the page.")
    ],
    sizes: Annotated[
        tuple[str, ...],
        Parameter(metavar="WxB", negative="", consume_multiple=True, help="Generators, as width x blocks."),
    ] = ("32x2", "64x2", "96x3", "128x4"),
    data_fractions: Annotated[
        tuple[float, ...],
        Parameter(
            metavar="SHARE", negative="", consume_multiple=True, help="Parts of the data, each in the next larger."
        ),
    ] = (0.25, 0.5, 1.0),
    steps: Annotated[int | None, Parameter(metavar="N", help="Steps of each generator; default: the preset's.")] = None,
    preset: Annotated[
        str | None, Parameter(metavar="NAME", help="Where to start from; default: the system's first.")
    ] = None,
    from_: Annotated[
        str | None,
        Parameter(name="--from", metavar="STATE", help="Take the tokenizer of this state, instead of training one."),
    ] = None,
    number: Annotated[
        int,
        Parameter(
            name=("--number", "-n"),
            metavar="N",
            help="Showers each run draws for the distance, of 20 or more; 0: none.",
        ),
    ] = 200,
    validation: Annotated[
        float,
        Parameter(metavar="SHARE", help="Part of the data for losses, where the file does not mark one (0 to 1)."),
    ] = 0.1,
    batch_size: Annotated[int, Parameter(metavar="N", help="Showers drawn together.")] = 64,
    seed: Annotated[int, Parameter(help="Of weights, parts of the data and drawn showers.")] = 0,
    threads: Threads = None,
    set_: Set = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train generators of several sizes on several amounts of data, and fit how the loss falls, on one page.

    All share one tokenizer. Incident energies are in GeV, losses in nats a token. A study that was killed goes on where
    it was when started again with the same options.

    Example: calogen scaling omnijet --data train.h5 --truth truth.h5 --sizes 64x2 96x3 128x4 -o scaling/
    """
    from calogen.report.scaling import FILES, write_scaling
    from calogen.scaling_study import Request, Size, study
    from calogen.scaling_study.request import plan_of_runs
    from calogen.scaling_study.study import RUNS, SETTINGS, TOKENIZER
    from calogen.systems import SYSTEMS
    from calogen.systems.omnijet import OmniJet

    if SYSTEMS.get(system) is not OmniJet:
        raise ValueError(f"system {system!r}: only omnijet draws tokens, whose loss scales; give omnijet")
    if not 0 < validation < 1:
        raise ValueError(f"--validation {validation}: give a share above 0 and below 1")
    request = Request(
        sizes=tuple(Size.read(name) for name in sizes),
        fractions=data_fractions,
        showers=number,
        batch_size=batch_size,
        seed=seed,
    )
    changes = differences(config, set_)
    members, start = _members(system, preset, from_, changes, steps, seed)
    asked = frozenset(key.split(".")[-1] for key in changes if key.split(".")[0] in (STAGE, "*"))
    members[STAGE] = plan_of_runs(members[STAGE], asked)
    if not (output / SETTINGS).is_file() or overwrite:
        require_free_folder(output, overwrite)
    use_threads(threads)
    showers, held_out = _data(data, validation)
    true = _truth(truth, showers)
    if overwrite:
        _clear(output, (SETTINGS, *FILES), (TOKENIZER, RUNS))
    made = study(
        members.pop(CONFIG),
        members,
        showers,
        held_out,
        true,
        request,
        folder=output,
        start=start,
        names=(", ".join(file.name for file in data), truth.name),
        tell=_Teller(output, quiet),
        quiet=quiet,
    )
    page = write_scaling(made, output)
    _print(made, quiet)
    say(f"page in {page}", quiet=quiet)


def _members(
    system: str, preset: str | None, from_: str | None, changes: dict[str, object], steps: int | None, seed: int
) -> tuple[dict[str, Any], OmniJet | None]:
    """Configuration and plans, and the state whose tokenizer is taken.

    Raises:
        ValueError: no such state, key or preset; or a key that is given by the sizes.
    """
    from calogen.cli.train import resolve
    from calogen.systems import load
    from calogen.systems.omnijet import OmniJet

    for key in changes:
        if key.removeprefix(f"{CONFIG}.") in GIVEN_BY_SIZES:
            raise ValueError(f"--set {key}: --sizes gives width and blocks, and there are no drafts; leave it out")
    start = None if from_ is None else load(read_state(from_))
    if start is not None and not isinstance(start, OmniJet):
        raise ValueError(f"--from {from_}: a state of {start.name!r}; give one of {system!r}")
    if start is not None and any(key.removeprefix(f"{CONFIG}.").startswith("code.") for key in changes):
        raise ValueError(f"--from {from_}: its tokenizer is taken as it is; leave out --set code...")
    more: dict[str, object] = {} if steps is None else {f"{STAGE}.steps": steps, f"{STAGE}.epochs": None}
    return resolve(system, preset, changes | more, seed, None, start), start


def _data(files: list[Path], validation: float) -> tuple[Showers, float | Showers]:
    """Showers to learn from, and those that losses are of or their share.

    Raises:
        ValueError: files of several detectors.
    """
    from calogen.cli.train import by_detector, read_parts

    if len(by_detector(files)) > 1:
        raise ValueError("--data: showers of several detectors; a generator is for one")
    return read_parts(files, validation)


def _truth(file: Path, showers: Showers) -> Showers:
    from calogen.data.formats import batches, open_source
    from calogen.data.showers import Showers

    with open_source(file, detector=showers.detector) as source:
        split = None if source.split is None else TEST
    parts = [points(batch) for batch in batches(file, detector=showers.detector, split=split)]
    if not parts:
        raise ValueError(f"--truth {file}: has no showers" + (f" in its part {TEST!r}" if split else ""))
    return Showers.concatenate(parts)


def _clear(folder: Path, files: tuple[str, ...], folders: tuple[str, ...]) -> None:
    """Delete what a study has left, and nothing else."""
    for name in files:
        (folder / name).unlink(missing_ok=True)
    for name in folders:
        shutil.rmtree(folder / name, ignore_errors=True)


class _Teller:
    """Says what each run came to, and brings the page up to date now and then."""

    def __init__(self, folder: Path, quiet: bool) -> None:
        self.folder, self.quiet, self.written = folder, quiet, time.monotonic()

    def __call__(self, made: ScalingStudy) -> None:
        run = made.runs[-1]
        distance = "" if run.distance is None else f", distance {run.distance:.3f}"
        say(f"{len(made.runs)} of {made.planned}: {run.label}: loss {run.loss:.4f}{distance}", quiet=self.quiet)
        if time.monotonic() - self.written > PAGE_SECONDS:
            from calogen.report.scaling import write_scaling

            write_scaling(made, self.folder)
            self.written = time.monotonic()


def _print(made: ScalingStudy, quiet: bool) -> None:
    from calogen.report.scaling import columns, findings, fit_rows, row

    shown = (0, 1, 2, 4, 6, 7, 8, 9, 10)
    head, rows = columns(), [row(made, run) for run in made.runs]
    table("Runs", [head[k] for k in shown], [[cells[k] for k in shown] for cells in rows], quiet=quiet)
    if fits := fit_rows(made):
        table("Fits", ("law", "", "value"), [cells[:3] for cells in fits], left=True, quiet=quiet)
    for text in (*findings(made), *made.notes):
        say(f"note: {text}", quiet=quiet)
