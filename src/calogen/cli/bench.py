"""`calogen bench`: time and memory per shower of a trained state, Geant4's beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from calogen.cli.demo import GEANT4_COST, SAMPLES
from calogen.cli.gun import Gun
from calogen.cli.options import ConfigFile, Device, Overwrite, Quiet, Set, differences, read_state
from calogen.cli.output import require_free, whole
from calogen.cli.sample import sample_options
from calogen.cli.screen import say, table

if TYPE_CHECKING:
    from calogen.bench import Bench, Measurement
    from calogen.data.incident import Incident

PROTOCOL = (1, 100, 10_000)


def bench(
    state: Annotated[
        str,
        Parameter(
            help="Name of a shipped state (caloclouds3), the path of your own, or the directory of its training."
        ),
    ],
    *,
    batches: Annotated[
        tuple[int, ...],
        Parameter(metavar="N", negative="", consume_multiple=True, help="Showers asked for and computed together."),
    ] = PROTOCOL,
    threads: Annotated[
        tuple[int, ...] | None,
        Parameter(metavar="N", negative="", consume_multiple=True, help="Threads; default: 1, and all cores."),
    ] = None,
    seconds: Annotated[
        float, Parameter(metavar="S", help="Seconds for the ten runs of one configuration; fewer runs where they end.")
    ] = 60.0,
    geant4: Annotated[
        int, Parameter(metavar="N", help="Make N such showers with Geant4 too, on one core, and compare with these.")
    ] = 0,
    gun: Gun = Gun(),  # noqa: B008 - frozen
    device: Device = "cpu",
    set_: Set = None,
    config: ConfigFile = None,
    output: Annotated[
        Path | None, Parameter(name=("--output", "-o"), metavar="FILE.json", help="Keep the numbers as JSON.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Measure milliseconds per shower and memory, by the timing protocol of the CaloChallenge.

    Each batch size and number of threads is measured in a process of its own, ten runs or as many as the seconds
    allow. Without options of the gun the particles are those of the Geant4 showers shipped for the system; with --like
    those of a file. Where Geant4 made the file and says its CPU seconds per shower, they stand beside the state's;
    with --geant4 N they are measured here, for any particles.

    Example: calogen bench caloclouds3 --batches 1 100 --energy 50 --geant4 20 -o bench.json
    """
    if output is not None:
        require_free(output, overwrite)
    changes = differences(config, set_)
    import calogen.bench
    import calogen.systems
    from calogen.progress import progress_bar

    calogen.bench.require(batches, (1,) if threads is None else threads, seconds=seconds)
    path = read_state(state)
    system = calogen.systems.load(path)
    options = sample_options(system, changes)
    incident, cost = _particles(system.name, gun, max((*batches, 1)))
    if geant4:
        cost = calogen.bench.geant4_seconds(system.detector, incident, geant4, seed=gun.seed)
    total = len(batches) * len({1, calogen.bench.all_threads()} if threads is None else threads)
    with progress_bar("bench", total, "configurations", shown=not quiet) as advance:
        made = calogen.bench.bench(
            path,
            incident,
            batches=batches,
            threads=threads,
            seconds=seconds,
            seed=gun.seed,
            device=device,
            options=options,
            geant4_s_per_shower=cost,
            progress=lambda done, all_: advance(),
        )
    _print(made, quiet)
    if output is not None:
        with whole(output) as part:
            part.write_text(json.dumps(made.to_dict(), indent=1), encoding="utf-8")
        say(f"numbers in {output}", quiet=quiet)


def _particles(system: str, gun: Gun, most: int) -> tuple[Incident, float | None]:
    """The particles, and what Geant4 took for them if they come from a file of its showers."""
    if gun.number is not None:
        raise ValueError(f"-n {gun.number}: bench makes as many showers as --batches says; give that instead")
    if system in SAMPLES and replace(gun, seed=0) == Gun():
        with resources.as_file(resources.files("calogen") / SAMPLES[system]) as shipped:
            return replace(gun, like=shipped).incident(), _cost(shipped)
    if gun.like is not None:
        return gun.incident(), _cost(gun.like)
    return replace(gun, number=most).incident(), None


def _cost(path: Path) -> float | None:
    from calogen.data.formats import open_source

    with open_source(path) as source:
        cost = source.provenance.get(GEANT4_COST)
    return None if cost is None else float(cost)


def _print(made: Bench, quiet: bool) -> None:
    faster = made.geant4_s_per_shower is not None
    columns = ("batch", "threads", "runs", "ms per shower", "CPU ms per shower", "peak memory")
    rows = [(*_cells(m), *([_faster(made, m)] if faster else [])) for m in made.measurements]
    title = f"{made.state} on {made.processor} ({made.cores} cores), {made.particles}"
    table(title, (*columns, "Geant4 / model, CPU") if faster else columns, rows, quiet=quiet)
    for m in made.measurements:
        if m.note:
            say(f"batch {m.batch}, threads {m.threads}: {m.note}", quiet=quiet)
    if any(m.runs == 0 for m in made.measurements):
        say("more --seconds, or fewer showers with --batches, measure what was not run", quiet=quiet)
    if made.busy:
        say(
            f"note: the machine had other work (load {made.load:.1f} on {made.cores} cores): times are too long",
            quiet=quiet,
        )
    if made.geant4_s_per_shower is not None:
        say(f"Geant4: {1e3 * made.geant4_s_per_shower:.4g} ms of CPU per shower for these particles", quiet=quiet)


def _cells(m: Measurement) -> tuple[str, ...]:
    from calogen.report.numbers import with_error

    time = "-" if m.ms_per_shower is None else with_error(m.ms_per_shower, m.ms_std or 0.0)
    cpu = "-" if m.cpu_ms_per_shower is None else f"{m.cpu_ms_per_shower:.3g}"
    memory = "-" if m.peak_mb is None else f"{m.peak_mb:.0f} MB"
    return f"{m.batch:,}", str(m.threads), str(m.runs), time, cpu, memory


def _faster(made: Bench, m: Measurement) -> str:
    ratio = made.speed_up(m)
    return "-" if ratio is None else f"{ratio:.3g} x"
