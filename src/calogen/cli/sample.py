"""`calogen sample`: showers from a trained state."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from calogen.cli.gun import Gun
from calogen.cli.options import (
    ConfigFile,
    Device,
    Output,
    Overwrite,
    Quiet,
    Set,
    Threads,
    differences,
    read_state,
    use_threads,
)
from calogen.cli.output import blamed_on_output, require_free
from calogen.cli.screen import progress, say

if TYPE_CHECKING:
    from calogen.systems.system import System

COMMON = frozenset({"incident", "seed", "batch_size", "progress", "first"})
"""Arguments of every system's `sample` that have command line options of their own."""


def sample(
    state: Annotated[
        str,
        Parameter(
            help="Name of a shipped state (caloclouds3), the path of your own, or the directory of its training."
        ),
    ],
    *,
    output: Output,
    gun: Gun = Gun(),  # noqa: B008 - frozen
    batch_size: Annotated[
        int, Parameter(metavar="N", help="Showers computed together; the showers depend on it by round-off only.")
    ] = 64,
    threads: Threads = None,
    device: Device = "cpu",
    set_: Set = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Draw showers from a trained state, for particles of a gun or of a file.

    A run that was killed goes on where it was when started again with the same options.

    Examples:

    calogen sample caloclouds3 --pdg 22 --energy 10:90 -n 1000 --seed 1 -o photons.h5

    calogen sample run/state.safetensors --like truth.h5 -o generated.h5
    """
    require_free(output, overwrite)
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: give a number of at least 1")
    state, incident, changes = read_state(state), gun.incident(), differences(config, set_)
    import calogen.systems
    from calogen.scale import generate

    use_threads(threads)
    system = calogen.systems.load(state, device=device)
    options = sample_options(system, changes)
    with blamed_on_output(output), progress("sample", quiet=quiet) as report:
        made = generate(
            system,
            incident,
            output,
            seed=gun.seed,
            options=options,
            about={"state": state},
            batch_size=batch_size,
            overwrite=overwrite,
            progress=report,
        )
    each = "" if made.seconds_per_shower is None else f", {1e3 * made.seconds_per_shower:.3g} ms each"
    say(f"{made.showers} showers in {output}{each}", quiet=quiet)


def sample_options(system: System, changes: Mapping[str, object]) -> dict[str, Any]:
    """`changes` as arguments of the system's own `sample`, checked against its types.

    Raises:
        ValueError: an option the system does not have (naming the nearest), or a value of another type.
    """
    from calogen.overrides import override

    known = inspect.signature(system.sample, eval_str=True).parameters.values()
    own = [(p.name, p.annotation, field(default=p.default)) for p in known if p.name not in COMMON]
    options = override(make_dataclass("Options", own, frozen=True)(), changes)
    return {key.partition(".")[0]: getattr(options, key.partition(".")[0]) for key in changes}
