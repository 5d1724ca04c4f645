"""Shards change nothing, and a killed run goes on where it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers, read
from calogen.scale import generate


class Counting:
    """Showers of one point whose energy says which shower of which seed it is; counts its calls."""

    detector = ILD_ECAL

    def __init__(self, fail_from: int | None = None) -> None:
        self.calls: list[int] = []
        self.fail_from = fail_from

    def sample(self, incident: Incident, *, seed: int, batch_size: int, first: int, scale: float = 1.0) -> Showers:
        if self.fail_from is not None and first >= self.fail_from:
            raise KeyboardInterrupt
        self.calls.append(first)
        n = len(incident)
        energy = scale * (seed + 1e-3 * (first + np.arange(n)))
        zeros = np.zeros(n)
        return Showers(zeros, zeros, zeros, energy, np.arange(n + 1), incident, ILD_ECAL)


def run(system: Any, path: Path, **options: Any) -> Showers:
    generate(system, Incident.gun(25, seed=1), path, seed=3, **options)
    return read(path)


@pytest.mark.parametrize("shard_size", [1, 7, 25, 100])
def test_shards_change_nothing(tmp_path: Path, shard_size: int) -> None:
    whole = Counting().sample(Incident.gun(25, seed=1), seed=3, batch_size=64, first=0)
    showers = run(Counting(), tmp_path / "x.h5", shard_size=shard_size)
    assert np.array_equal(showers.energy, whole.energy)
    assert np.array_equal(showers.incident.energy, whole.incident.energy)
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt):
        run(Counting(fail_from=10), path, shard_size=5)
    assert not path.exists()
    system = Counting()
    assert len(run(system, path, shard_size=5)) == 25
    assert system.calls == [10, 15, 20]


def test_other_options_do_not_mix_with_shards_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt):
        run(Counting(fail_from=10), path, shard_size=5)
    with pytest.raises(ValueError, match="unfinished run of other options"):
        run(Counting(), path, shard_size=5, options={"scale": 2.0})


def test_nothing_is_left_of_a_request_that_was_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Counting(fail_from=0), tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(Counting(), tmp_path / "x.h5", shard_size=10, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 25), (20, 25), (25, 25)]
