"""`calogen reconstruct`: showers through the autoencoder (or tokens) of a trained state and back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from calogen.cli.files import points
from calogen.cli.options import Device, Output, Overwrite, Quiet, Threads, read_state, use_threads
from calogen.cli.output import blamed_on_output, require_free
from calogen.cli.screen import progress, say

if TYPE_CHECKING:
    from calogen.data.formats.source import Source
    from calogen.data.incident import Incident
    from calogen.data.showers import Showers
    from calogen.systems.system import System


def reconstruct(
    state: Annotated[str, Parameter(help="Name of a shipped state, or the path of your own.")],
    source: Annotated[Path, Parameter(name="in", metavar="IN", help="Showers of the state's detector and particles.")],
    *,
    output: Output,
    seed: Annotated[int, Parameter(help="Of the noise in the code; the same seed gives the same file.")] = 0,
    batch_size: Annotated[int, Parameter(metavar="N", help="Showers computed together.")] = 64,
    threads: Threads = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Encode showers as a trained state does, and decode them again: what its code loses, before anything is drawn.

    A run that was killed goes on where it was when started again with the same options. Judge the result as any other
    sample, against the file it was made of.

    Examples:

    calogen reconstruct run/state.safetensors truth.h5 -o reconstructed.h5

    calogen evaluate reconstructed.h5 --truth truth.h5
    """
    require_free(output, overwrite)
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: give a number of at least 1")
    state = read_state(state)
    import calogen.systems
    from calogen.data.formats import batches, open_source
    from calogen.data.incident import Incident
    from calogen.scale import generate

    use_threads(threads)
    system = calogen.systems.load(state, device=device)
    incident = Incident.concatenate([part.incident for part in batches(source, detector=system.detector)])
    with (
        open_source(source, detector=system.detector) as opened,
        blamed_on_output(output),
        progress("reconstruct", quiet=quiet) as report,
    ):
        made = generate(
            _Reconstruction(system, opened),
            incident,
            output,
            seed=seed,
            about={"state": state, "source": source.name, "source_hash": _hash(source)},
            batch_size=batch_size,
            overwrite=overwrite,
            progress=report,
        )
    say(f"{made.showers} showers in {output}", quiet=quiet)


class _Reconstruction:
    """A system as a generator of the showers of a file: number `first + i` is the file's, through the code and back."""

    def __init__(self, system: System, source: Source) -> None:
        self.system, self.source = system, source
        self.detector, self.events = system.detector, system.events

    def sample(self, incident: Incident, *, seed: int, batch_size: int, first: int) -> Showers:
        showers = points(self.source.load(first, first + len(incident)))
        return self.system.reconstruct(showers, seed=seed, batch_size=batch_size, first=first)


def _hash(path: Path) -> str:
    """Of the bytes of a file: shards of another one are no part of this run."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
