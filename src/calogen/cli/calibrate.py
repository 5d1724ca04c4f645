"""`calogen calibrate`: the factors of a trained state, fitted again to showers of its detector."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from calogen.cli.options import Device, Output, Overwrite, Quiet, Seed, Threads, read_state, use_threads
from calogen.cli.output import require_free
from calogen.cli.screen import say
from calogen.cli.train import read_data

if TYPE_CHECKING:
    from calogen.data.showers import Showers
    from calogen.train import SolvedStage

NOT_DONE = "not calibrated"
"""How a system says that its factors are as if never fitted; in a training that is a warning, here it is the end."""


def calibrate(
    state: Annotated[
        str,
        Parameter(
            help="Name of a shipped state (caloclouds3), the path of your own, or the directory of its training."
        ),
    ],
    *,
    data: Annotated[
        list[Path], Parameter(metavar="FILE", negative="", help="Showers to match (GeV, mm); may be repeated.")
    ],
    output: Output,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Fit the factors of a trained state to other showers; its networks stay as they are.

    Showers are sampled for the particles of the data, projected into cells and compared (GeV, mm), as at the end of a
    training.

    Example: calogen calibrate run/ --data truth.h5 -o calibrated.safetensors
    """
    require_free(output, overwrite)
    showers = read_data(data)
    import calogen.systems
    from calogen.provenance import provenance
    from calogen.train import SolvedStage

    use_threads(threads)
    path = read_state(state)
    system = calogen.systems.load(path, detector=showers.detector, device=device)
    stages = [stage for stage in system.stages() if isinstance(stage, SolvedStage)]
    if not stages:
        raise ValueError(f"{path}: a state of {system.name}, which has no factors to fit")
    _fit(stages, showers, seed, device)
    system.to("cpu")
    facts = provenance(state=state, data=[file.name for file in data], showers=len(showers), seed=seed)
    system.provenance = {**system.provenance, "calibration": facts}
    system.save(output, overwrite=overwrite)
    say(f"{system.name} calibrated with {len(showers)} showers: {output}", quiet=quiet)


def _fit(stages: list[SolvedStage], showers: Showers, seed: int, device: str) -> None:
    from calogen.train import fit

    for stage in stages:
        stage.plan = replace(stage.plan, seed=seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(stages, showers, run_dir=folder, device=device, progress=False)
    for warning in said:
        if str(warning.message).startswith(NOT_DONE):
            raise ValueError(f"--data: {warning.message}")
        warnings.warn(warning.message, stacklevel=2)
