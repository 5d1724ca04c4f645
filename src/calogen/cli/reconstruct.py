"""`calogen reconstruct`: showers through the autoencoder (or tokens) of a trained state and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from calogen.cli.files import points
from calogen.cli.options import Device, Output, Overwrite, Quiet, Threads, read_state, use_threads
from calogen.cli.output import blamed_on_output, require_free
from calogen.cli.screen import progress, say


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

    Judge the result as any other sample, against the file it was made of.

    Examples:

    calogen reconstruct run/state.safetensors truth.h5 -o reconstructed.h5

    calogen evaluate reconstructed.h5 --truth truth.h5
    """
    require_free(output, overwrite)
    if batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: give a number of at least 1")
    state = read_state(state)
    import calogen.systems
    from calogen.data.formats import SHOWERS_PER_BATCH, open_source
    from calogen.data.formats.native import Writer
    from calogen.data.projection import voxelize
    from calogen.provenance import provenance

    use_threads(threads)
    system = calogen.systems.load(state, device=device)
    facts = provenance(seed=seed, state=state, source=source.name)
    with open_source(source, detector=system.detector) as opened, progress("reconstruct", quiet=quiet) as report:
        n = opened.n_showers
        with blamed_on_output(output), Writer(output, system.detector, provenance=facts, overwrite=overwrite) as sink:
            for start in range(0, n, SHOWERS_PER_BATCH):
                stop = min(start + SHOWERS_PER_BATCH, n)
                showers = points(opened.load(start, stop))
                made = system.reconstruct(showers, seed=seed, batch_size=batch_size, first=start)
                sink.append(voxelize(made)[0] if system.events == "voxels" else made)
                report(stop, n)
    say(f"{n} showers in {output}", quiet=quiet)
