"""Time and memory per shower of a trained state: each configuration in a process of its own.

The timing protocol of the CaloChallenge (arXiv:2410.21611): milliseconds per shower at batch 1, 100 and 10,000, mean
and standard deviation over ten runs. `python -m calogen.bench` is the process that measures one configuration.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calogen.data.incident import Incident
from calogen.detector.geometry import Detector
from calogen.provenance import provenance

BATCHES = (1, 100, 10_000)
"""Batch sizes of the CaloChallenge."""
RUNS = 10
"""Runs of the CaloChallenge."""
SECONDS = 60.0
"""Time a configuration may take."""
WARM_UP_GROWTH = 4
"""Runs before the clock starts grow by this factor, up to the batch: each tells how long the next one takes."""
MEGABYTE = 1e6
HADRONIC = "FTFP_BERT"
"""Geant4's reference list where not all particles are electromagnetic."""
BUSY = 0.5
"""Share of the cores that other work may take, by the load of the last minute, before the numbers are marked."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Progress = Callable[[int, int], None]
"""Called with (finished configurations, all)."""


@dataclass(frozen=True)
class Measurement:
    """One configuration: milliseconds per shower, elapsed and of the processor (all threads), mean and standard
    deviation over `runs`; largest resident memory in MB (1e6 bytes) before and after the first shower was asked for.

    Where one run would take longer than the time given, there are no runs and no numbers, and `note` says how long.
    """

    batch: int
    threads: int
    runs: int
    ms_per_shower: float | None = None
    ms_std: float | None = None
    cpu_ms_per_shower: float | None = None
    peak_mb: float | None = None
    loaded_mb: float | None = None
    load_seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """All configurations of one state, and what Geant4 takes for such showers (CPU seconds), where that is known."""

    state: str
    system: str
    device: str
    processor: str
    cores: int
    particles: str
    measurements: tuple[Measurement, ...]
    geant4_s_per_shower: float | None
    provenance: Mapping[str, Any]
    load: float | None = None

    @property
    def busy(self) -> bool:
        """Whether the machine had other work when the measurement began (`load`: runnable processes, last minute)."""
        return self.load is not None and self.load > BUSY * self.cores

    def speed_up(self, m: Measurement) -> float | None:
        """How many times less processor time than Geant4's a shower takes; None where either is not known."""
        if self.geant4_s_per_shower is None or not m.cpu_ms_per_shower:
            return None
        return 1e3 * self.geant4_s_per_shower / m.cpu_ms_per_shower

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        speed = [asdict(m) | {"speed_up": self.speed_up(m)} for m in self.measurements]
        return asdict(replace(self, measurements=())) | {"measurements": speed}


def all_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bench(
    state: str | Path,
    incident: Incident | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] | None = None,
    runs: int = RUNS,
    seconds: float = SECONDS,
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    geant4_s_per_shower: float | None = None,
    progress: Progress | None = None,
) -> Bench:
    """Measure a state at several batch sizes and numbers of threads.

    Args:
        state: name of a shipped state, or a path.
        incident: particles that the runs take in turn, one after the other; photons of 10 to 90 GeV if there are none.
        batches: showers asked for, and computed, together.
        threads: of the process; 1 and all cores if not given.
        runs: of each configuration, fewer where `seconds` are over.
        seconds: time for the runs of one configuration. One run is always finished once begun; a configuration whose
            first run would take longer is not measured.
        seed: run r samples with seed + r.
        device: where to compute.
        options: further options of the system's `sample`.
        geant4_s_per_shower: CPU seconds Geant4 takes for such particles.
        progress: called after each configuration.

    Raises:
        ValueError: numbers below 1, a state that cannot be read, particles the state is not for.
    """
    cores = all_threads()
    counts = tuple(dict.fromkeys((1, cores))) if threads is None else tuple(threads)
    require(batches, counts, runs, seconds)
    particles = Incident.gun(max(batches), seed=seed) if incident is None else incident
    if not len(particles):
        raise ValueError("no incident particles to make showers for; give at least one")
    request = {
        "state": str(state),
        "incident": {"energy": particles.energy.tolist(), "direction": particles.direction.tolist()}
        | {"pdg": particles.pdg.tolist()},
        "runs": runs,
        "seconds": seconds,
        "seed": seed,
        "device": device,
        "options": dict(options or {}),
    }
    found, system, load = [], "", _load()
    configurations = [(batch, count) for count in counts for batch in batches]
    for done, (batch, count) in enumerate(configurations, 1):
        answer = _in_a_process(request | {"batch": batch, "threads": count})
        system = answer.pop("system")
        found.append(Measurement(batch, count, **answer))
        if progress is not None:
            progress(done, len(configurations))
    facts = provenance(seed=seed, runs=runs, seconds=seconds, options=dict(options or {}))
    about = (str(state), system, device, _processor(), cores, _described(particles))
    return Bench(*about, tuple(found), geant4_s_per_shower, facts, load)


def geant4_seconds(detector: Detector, incident: Incident, showers: int, *, seed: int = 0) -> float:
    """CPU seconds of Geant4 for a shower of such particles, on one core: the mean of `showers` made here.

    Electromagnetic physics where it describes all the particles, else FTFP_BERT. Where the detector is cut from
    another, it is that one's showers that are timed.

    Raises:
        ValueError: fewer than one shower, or a detector that Geant4 cannot simulate.
        calogen.geant4.environment.Geant4Unavailable: Geant4 or its data are missing.
    """
    from calogen.geant4.run import make_request, run_shards
    from calogen.geant4.setup import EM, EM_PDG
    from calogen.geant4.stacks import CUT_FROM

    if showers < 1:
        raise ValueError(f"{showers} showers of Geant4: give at least 1")
    chosen = incident[np.arange(showers) % len(incident)]
    physics = EM if EM_PDG.issuperset(chosen.pdg.tolist()) else HADRONIC
    shards = run_shards(make_request(CUT_FROM.get(detector.name, detector), chosen, seed=seed, physics=physics))
    return float(sum(shard.cpu_s.sum() for shard in shards)) / showers


def _load() -> float | None:
    """Runnable processes in the mean of the last minute, where the system tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def require(batches: Sequence[int], threads: Sequence[int] = (1,), runs: int = RUNS, seconds: float = SECONDS) -> None:
    """Refuse what `bench` cannot measure.

    Raises:
        ValueError: numbers below 1, or no time.
    """
    for name, values in (("batch", batches), ("threads", threads), ("runs", (runs,))):
        if not values or min(values) < 1:
            raise ValueError(f"{name} {', '.join(map(str, values)) or 'missing'}: give numbers of at least 1")
    if not 0 < seconds < math.inf:
        raise ValueError(f"{seconds} seconds a configuration: give a positive number")


def _described(incident: Incident) -> str:
    codes = ", ".join(str(code) for code in np.unique(incident.pdg))
    low, high = (f"{e:.4g}" for e in (incident.energy.min(), incident.energy.max()))
    return f"PDG {codes}, {low} GeV" if low == high else f"PDG {codes}, {low} to {high} GeV"


def _processor() -> str:
    """The model's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


# ---- the process of one configuration ----


class BenchError(Exception):
    """A measuring process that ended without an answer."""


def _in_a_process(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure in a new process, whose memory and threads are its own.

    Raises:
        ValueError: what the process refused.
        BenchError: it died.
    """
    environment = os.environ | {name: str(request["threads"]) for name in THREAD_VARIABLES}
    command = [sys.executable, "-m", "calogen.bench"]
    child = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, env=environment)
    if child.returncode < 0:
        # Mostly the kernel, for want of memory: the other configurations may still be measured.
        note = f"ended by signal {-child.returncode}, perhaps for want of memory"
        return {"system": "", "runs": 0, "note": note}
    if child.returncode:
        raise BenchError(f"the measuring process failed: {(child.stderr.strip() or 'no message').splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    if "refused" in answer:
        raise ValueError(answer["refused"])
    return answer


def _measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load the state, warm up, run."""
    import torch

    import calogen.systems

    torch.set_num_threads(request["threads"])
    start = time.perf_counter()
    system = calogen.systems.load(request["state"], device=request["device"])
    loaded = {"system": system.name, "load_seconds": time.perf_counter() - start, "loaded_mb": peak_mb()}
    pool = Incident(*(np.array(request["incident"][name]) for name in ("energy", "direction", "pdg")))
    parts = _parts(pool, request["batch"])

    def run(incident: Incident, seed: int) -> tuple[float, float]:
        elapsed, cpu = time.perf_counter(), time.process_time()
        system.sample(incident, seed=seed, batch_size=len(incident), **request["options"])
        if system.device.type == "cuda":
            torch.cuda.synchronize(system.device)
        return time.perf_counter() - elapsed, time.process_time() - cpu

    expected = _warm_up(run, pool, request["batch"], request["seconds"])
    if expected > request["seconds"]:
        note = f"not run: one run takes about {_duration(expected)}, {request['seconds']:g} s were given"
        return loaded | {"runs": 0, "note": note, "peak_mb": peak_mb()}
    times, begun = [], time.perf_counter()
    for r in range(request["runs"]):
        times.append(run(next(parts), request["seed"] + r))
        if time.perf_counter() - begun + times[-1][0] > request["seconds"]:
            break
    elapsed, cpu = ([1e3 * t[i] / request["batch"] for t in times] for i in range(2))
    return loaded | {
        "runs": len(times),
        "ms_per_shower": statistics.fmean(elapsed),
        "ms_std": statistics.stdev(elapsed) if len(times) > 1 else None,
        "cpu_ms_per_shower": statistics.fmean(cpu),
        "peak_mb": peak_mb(),
    }


def _parts(pool: Incident, batch: int) -> Iterator[Incident]:
    """Particles of one run after another; from the start again when the pool is at its end."""
    first = 0
    while True:
        yield pool[np.arange(first, first + batch) % len(pool)]
        first += batch


def _warm_up(run: Callable[[Incident, int], tuple[float, float]], pool: Incident, batch: int, seconds: float) -> float:
    """Ever larger runs, below the batch and as long as they are short: seconds the batch will take.

    A straight line through the last two: a shower alone takes longer than its share of a batch.
    """
    run(pool[:1], 0)  # The very first shower pays for PyTorch's start.
    size, taken, each = 1, run(pool[:1], 0)[0], 0.0
    while size * WARM_UP_GROWTH < batch and taken * WARM_UP_GROWTH < seconds:
        more = size * WARM_UP_GROWTH
        longer = run(next(_parts(pool, more)), 0)[0]
        size, taken, each = more, longer, max(longer - taken, 0.0) / (more - size)
    return taken * batch if size == 1 else taken + each * (batch - size)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds > 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def peak_mb() -> float:
    """Largest resident memory of this process, MB.

    Linux hands the parent's peak on to a child in `getrusage`; the status file knows the process alone.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / MEGABYTE
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / MEGABYTE if sys.platform == "darwin" else 1024 * peak / MEGABYTE


@contextmanager
def _stdout_for_the_answer() -> Iterator[None]:
    """Whatever libraries print goes to stderr."""
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = kept


def _main() -> None:
    with _stdout_for_the_answer():
        request = json.load(sys.stdin)
        try:
            answer = _measure(request)
        except (ValueError, OSError) as error:
            answer = {"refused": " ".join(str(error).split())}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
