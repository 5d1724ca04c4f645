"""Runs: the same result for any number of workers and shards, and after a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from calogen.bench import geant4_seconds
from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.detector.catalog import BOX_30
from calogen.geant4.run import WorkerDied, make_request, run_shards, simulate
from calogen.geant4.shards import shard_path
from calogen.geant4.stack import Slab, Stack

N, ENERGY_GEV, SEED, SHARD = 12, 2.0, 4, 2

KILLED = f"""
import sys
from calogen.bench import geant4_seconds
from calogen.data.incident import Incident
from calogen.geant4.run import simulate
incident = Incident.gun({N}, energy={ENERGY_GEV}, angles="barrel")
simulate("ild-ecal", incident, seed={SEED}, shard_size={SHARD}, shard_dir=sys.argv[1])
"""


def particles() -> Incident:
    return Incident.gun(N, energy=ENERGY_GEV, angles="barrel")


@pytest.fixture(scope="module")
def one_worker(geant4: Path) -> Showers:
    return simulate("ild-ecal", particles(), seed=SEED, shard_size=N)


def assert_same(a: Showers, b: Showers) -> None:
    for column in ("x", "y", "layer", "energy", "offsets"):
        np.testing.assert_array_equal(getattr(a, column), getattr(b, column))


def test_two_workers_and_other_shards_give_the_same_showers(one_worker: Showers) -> None:
    heard: list[tuple[int, int]] = []
    two = simulate(
        "ild-ecal", particles(), seed=SEED, shard_size=5, workers=2, progress=lambda *done: heard.append(done)
    )
    assert_same(one_worker, two)
    assert heard[0] == (0, N)
    assert heard[-1] == (N, N)
    assert len(one_worker) == N
    assert one_worker.counts.min() > 10


def test_another_seed_gives_other_showers(one_worker: Showers) -> None:
    other = simulate("ild-ecal", particles()[:2], seed=SEED + 1)
    assert not np.array_equal(other.counts, one_worker.counts[:2])


def test_a_run_killed_in_the_middle_goes_on_where_it_was(one_worker: Showers, tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    first = shard_path(tmp_path, 0)
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    written = first.stat().st_mtime_ns
    resumed = simulate("ild-ecal", particles(), seed=SEED, shard_size=SHARD, shard_dir=tmp_path, workers=2)
    assert first.stat().st_mtime_ns == written
    assert_same(one_worker, resumed)


def test_a_dead_worker_is_reported(one_worker: Showers, tmp_path: Path) -> None:
    request = make_request("ild-ecal", particles(), seed=SEED, shard_size=1)
    shards = run_shards(request, shard_dir=tmp_path)
    next(shards)
    for worker in children():
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="killed by signal 9") as report:
        list(shards)
    assert "run again to resume" in str(report.value)


def children() -> list[int]:
    """Worker processes of this process."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "calogen.geant4.worker" in line]


def test_geant4s_refusal_reaches_the_caller(geant4: Path, tmp_path: Path) -> None:
    stack = Stack("odd", (Slab("G4_UNOBTAINIUM", 1.0, 0),), (5.0,), (5,))
    with pytest.raises(ValueError, match="neither a NIST name"):
        simulate(stack, particles(), seed=1, shard_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_particles_give_no_showers(geant4: Path) -> None:
    assert len(simulate("ild-ecal", Incident.gun(0), seed=1)) == 0


def test_shards_carry_their_cpu_time(one_worker: Showers) -> None:
    (shard,) = run_shards(make_request("ild-ecal", particles()[:3], seed=SEED, shard_size=3))
    assert shard.cpu_s.shape == (3,)
    assert np.all(shard.cpu_s > 0)
    assert_same(one_worker[:3], shard.showers)


def test_a_box_takes_the_time_of_the_detector_it_is_cut_from(geant4: Path) -> None:
    assert 0 < geant4_seconds(BOX_30, Incident.gun(1, energy=0.5), 1) < 60
