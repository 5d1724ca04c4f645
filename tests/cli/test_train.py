"""`calogen train`: refusals leave nothing behind, and times may be missing."""

from pathlib import Path

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers, write
from calogen.cli import main

N = 40


def showers_of(pdg: int | list[int], *, timed: bool = False) -> Showers:
    rng = np.random.default_rng(1)
    points = 20
    return Showers(
        rng.normal(0, 10, N * points),
        rng.normal(0, 10, N * points),
        rng.integers(0, 30, N * points),
        rng.exponential(1e-3, N * points),
        np.arange(N + 1) * points,
        Incident.gun(N, pdg=pdg),
        ILD_ECAL,
        rng.random(N * points) if timed else None,
    )


def test_mixed_particles_are_refused_and_the_folder_stays_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed, folder = tmp_path / "mixed.h5", tmp_path / "run"
    write(mixed, showers_of([22, 11]))
    assert main(["train", "caloclouds3", "--data", str(mixed), "-o", str(folder), "-q", "--threads", "1"]) == 2
    assert "particles [11, 22]" in capsys.readouterr().err
    assert not folder.exists()


def test_files_with_and_without_times_are_joined_without() -> None:
    from calogen.cli.train import _joined

    with pytest.warns(UserWarning, match="times"):
        assert _joined([showers_of(22), showers_of(22, timed=True)]).time is None
    assert _joined([showers_of(22, timed=True)] * 2).time is not None
