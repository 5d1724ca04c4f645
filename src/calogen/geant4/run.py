"""simulate: incident particles and a stack to showers, in shards, by worker processes, resumable."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.catalog import CATALOG
from calogen.detector.geometry import Detector
from calogen.geant4.environment import Geant4Unavailable, prepare
from calogen.geant4.scoring import Lost
from calogen.geant4.setup import EM, Setup
from calogen.geant4.shards import Request, forget_run, open_run, shard_path
from calogen.geant4.stack import Stack
from calogen.geant4.stacks import detector_of, stack_named
from calogen.geant4.worker import DONE, READY, REFUSED

LARGEST_SHARD = 50
"""Most events a shard: half a minute of one core, which is what a kill can cost."""

FEWEST_SHARDS = 16
"""Shards of a run that is not large: enough to keep some workers busy to the end."""

Progress = Callable[[int, int], None]
"""Called with (finished showers, all showers)."""


class WorkerDied(RuntimeError):
    """A worker process ended before its work; the message holds its last words."""


class Shard(NamedTuple):
    """Finished showers of one shard, CPU seconds of each `[n]`, voxels where they were asked for, and what these (or
    else the points) did not keep `[n]` (NaN in shards made before it was counted).
    """

    showers: Showers
    cpu_s: NDArray[np.float64]
    voxels: Voxels | None
    lost: Lost


def simulate(
    stack: Stack | Detector | str,
    incident: Incident,
    *,
    seed: int,
    physics: str = EM,
    field_tesla: tuple[float, float, float] | None = None,
    cut_mm: float = 0.7,
    time_cut_ns: float | None = None,
    birks_mm_per_mev: float | None = None,
    keep_time: bool = False,
    subcells: Sequence[int] | None = None,
    workers: int = 1,
    shard_size: int | None = None,
    shard_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Showers:
    """Showers of the incident particles in a stack, simulated by Geant4.

    Args:
        stack: a `Stack`, or the name of one (see `STACKS`), or a catalog detector that has one.
        incident: N particles; each starts at the middle of the front face.
        seed: same seed, same showers, whatever the number of workers.
        physics: "em", or any Geant4 reference list such as "FTFP_BERT".
        field_tesla: magnetic field in the local frame (None: the stack's own, 3.5 T along x for ILD).
        cut_mm: Geant4's production cut.
        time_cut_ns: deposits later are dropped (None: none).
        birks_mm_per_mev: Birks' constant of sensitive materials that scintillate (None: no quenching).
        keep_time: give each point the time of its highest deposit, in ns since the particle entered.
        subcells: sub-cells along a readout cell's side, one number a layer (None: 5 in ECal, 3 in HCal).
        workers: processes.
        shard_size: events a shard (None: by their number, at most 50); it does not change the showers.
        shard_dir: folder where finished shards stay; started again with the same arguments after a kill,
            the run goes on where it was (None: a temporary folder).
        progress: called with (finished, all) showers.

    Raises:
        Geant4Unavailable: Geant4 or its data are missing; the message names the remedy.
        ValueError: an option out of range, or a shard folder that holds another run.
        OSError: the shards cannot be written.
        WorkerDied: a worker process ended early (killed, out of memory, Geant4 aborted).
    """
    request = make_request(
        stack,
        incident,
        seed=seed,
        physics=physics,
        field_tesla=field_tesla,
        cut_mm=cut_mm,
        time_cut_ns=time_cut_ns,
        birks_mm_per_mev=birks_mm_per_mev,
        keep_time=keep_time,
        subcells=subcells,
        shard_size=shard_size,
    )
    parts = [shard.showers for shard in run_shards(request, workers=workers, shard_dir=shard_dir, progress=progress)]
    return Showers.concatenate(parts) if parts else Showers.empty(detector_of(request.setup.stack))


def make_request(
    stack: Stack | Detector | str,
    incident: Incident,
    *,
    seed: int,
    physics: str = EM,
    field_tesla: tuple[float, float, float] | None = None,
    cut_mm: float = 0.7,
    time_cut_ns: float | None = None,
    birks_mm_per_mev: float | None = None,
    keep_time: bool = False,
    subcells: Sequence[int] | None = None,
    shard_size: int | None = None,
    voxels: bool = False,
) -> Request:
    """The checked request of a run, for `run_shards`; arguments as `simulate`, and ``voxels``: sum deposits
    also straight into the cells of the stack's detector (catalog detectors only).
    """
    chosen = stack if isinstance(stack, Stack) else stack_named(stack if isinstance(stack, str) else stack.name)
    setup = Setup(chosen, physics, field_tesla, cut_mm, time_cut_ns, birks_mm_per_mev, keep_time)
    setup.check(incident)
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; give an integer of at least 0")
    size = shard_size_for(len(incident)) if shard_size is None else shard_size
    if size < 1:
        raise ValueError(f"shard size {shard_size} must be at least 1 event")
    if voxels and keep_time:
        raise ValueError("voxels have no times: leave out one of the two")
    if voxels and chosen.detector not in CATALOG:
        raise ValueError(f"stack {chosen.name} has no catalog detector to sum voxels in; simulate points instead")
    numbers = chosen.subcells if subcells is None else tuple(int(n) for n in subcells)
    if len(numbers) != chosen.n_layers or min(numbers) < 1:
        raise ValueError(f"sub-cells: {chosen.n_layers} numbers of at least 1 are needed, one a layer, got {numbers}")
    return Request(setup, incident, seed, numbers, size, voxels)


def shard_size_for(n: int) -> int:
    """Events a shard of a run of `n` events.

    >>> [shard_size_for(n) for n in (0, 3, 100, 10_000)]
    [1, 1, 7, 50]
    """
    return max(1, min(LARGEST_SHARD, -(-n // FEWEST_SHARDS)))


def run_shards(
    request: Request,
    *,
    workers: int = 1,
    shard_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Iterator[Shard]:
    """Run what is not yet on disk and yield all shards in order, as soon as each is there.

    Holds one shard in memory at a time. Raises as `simulate`.
    """
    if workers < 1:
        raise ValueError(f"workers {workers} must be at least 1 process")
    prepare(request.setup.hadronic)
    with contextlib.ExitStack() as stack:
        if shard_dir is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="calogen-geant4-")))
        else:
            folder = Path(shard_dir)
        open_run(folder, request)
        try:
            yield from _in_order(request, folder, workers, progress)
        except (Geant4Unavailable, ValueError, OSError):
            forget_run(folder)
            raise


def _in_order(request: Request, folder: Path, workers: int, progress: Progress | None) -> Iterator[Shard]:
    todo = [shard for shard in range(request.n_shards) if not shard_path(folder, shard).exists()]
    finished = set(range(request.n_shards)) - set(todo)
    showers = sum(len(request.events(shard)) for shard in finished)
    following = 0
    with contextlib.closing(_finish(folder, todo, workers)) as news:
        while following < request.n_shards:
            if progress is not None:
                progress(showers, len(request.incident))
            while following in finished:
                yield load_shard(request, folder, following)
                following += 1
            if following < request.n_shards:
                shard = next(news)
                finished.add(shard)
                showers += len(request.events(shard))


def load_shard(request: Request, folder: Path, shard: int) -> Shard:
    """A finished shard from the run's folder; it can be read while the run goes on."""
    detector = detector_of(request.setup.stack)
    with np.load(shard_path(folder, shard)) as c:
        incident = Incident(c["energy_gev"], c["direction"], c["pdg"])
        time = c["time"] if request.setup.keep_time else None
        showers = Showers(c["x"], c["y"], c["layer"], c["energy"], c["offsets"], incident, detector, time)
        voxels = Voxels(c["voxels"], incident, detector) if request.voxels else None
        lost = Lost(
            *(c[name] if name in c else np.full(len(incident), np.nan) for name in ("outside_gev", "faint_gev"))
        )
        return Shard(showers, c["cpu_s"], voxels, lost)


class _Worker:
    """A worker process seen from the parent: give it a shard, hear that it is done."""

    def __init__(self, folder: Path) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        command = [sys.executable, "-m", "calogen.geant4.worker", str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1
        )
        self.shard: int | None = None

    def give(self, shard: int) -> None:
        """Start a shard. A worker that is already dead is found out when it is heard."""
        self.shard = shard
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{shard}\n")
            self.process.stdin.flush()

    def hear(self) -> tuple[str, str]:
        """The next message: its kind and the rest. Raises WorkerDied at the end of the stream."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerDied(self._last_words())
        kind, _, rest = line.strip().partition(" ")
        return kind, rest

    def _last_words(self) -> str:
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        doing = "while starting" if self.shard is None else f"in shard {self.shard}"
        self.log.seek(0)
        words = last_words(self.log.read().decode(errors="replace"))
        quoted = f"; its last words: {words}" if words else ""
        return f"Geant4 worker {self.process.pid} {how} {doing}{quoted}; finished shards are kept, run again to resume"

    def stop(self) -> None:
        """End the process, at once if it is at work."""
        if self.shard is not None:
            self.process.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def last_words(log: str) -> str:
    """What a dead worker said last: the cause of a Geant4 exception if there is one, else its last line.

    >>> last_words("*** G4Exception : em0003\\n  issued by : X\\nfile br47 is not opened\\n*** Aborting ***")
    'file br47 is not opened'
    """
    lines = [line.strip() for line in log.splitlines() if line.strip(" -*\t")]
    causes = [after for line, after in itertools.pairwise(lines) if line.startswith("issued by")]
    return (causes or lines or [""])[-1]


def _finish(folder: Path, todo: Sequence[int], workers: int) -> Generator[int, None, None]:
    """Simulate the shards, yield the number of each when its file is there."""
    waiting = deque(todo)
    crew = [_Worker(folder) for _ in range(min(workers, len(todo)))]
    try:
        with selectors.DefaultSelector() as voices:
            for worker in crew:
                assert worker.process.stdout is not None
                voices.register(worker.process.stdout, selectors.EVENT_READ, worker)
            open_shards = len(waiting)
            while open_shards:
                for key, _ in voices.select():
                    done = _attend(key.data, waiting)
                    if done is not None:
                        open_shards -= 1
                        yield done
    finally:
        for worker in crew:
            worker.stop()


def _refusal(kind: str, why: str) -> Exception:
    if kind == OSError.__name__:
        number, _, path = why.partition(" ")
        return OSError(int(number), os.strerror(int(number)), path)
    return ValueError(why) if kind == ValueError.__name__ else Geant4Unavailable(why)


def _attend(worker: Any, waiting: deque[int]) -> int | None:
    """Hear a worker, give it its next shard, and return the shard it has finished, if any."""
    kind, rest = worker.hear()
    if kind == REFUSED:
        raise _refusal(*rest.split(" ", 1))
    finished = worker.shard if kind == DONE else None
    assert kind in (READY, DONE), kind
    worker.shard = None
    if waiting:
        worker.give(waiting.popleft())
    return finished
