"""`calogen simulate` end to end on a few showers."""

from pathlib import Path

import numpy as np
import pytest

from calogen import CATALOG, Voxels, read
from calogen.cli import main
from calogen.data.formats import open_source


@pytest.fixture(autouse=True)
def geant4_data(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEANT4_DATA_DIR", str(shared / "geant4-data"))


def test_showers_with_provenance_and_like(tmp_path: Path) -> None:
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    gun = ["--energy", "1:5", "--spectrum", "log", "--angles", "barrel", "-n", "3", "--seed", "4"]
    assert main(["simulate", *gun, "-o", str(first), "-q"]) == 0
    assert main(["simulate", "--like", str(first), "--seed", "4", "--workers", "2", "-o", str(second), "-q"]) == 0
    a, b = read(first), read(second)
    assert len(a) == 3
    assert np.array_equal(a.energy, b.energy)
    assert np.array_equal(a.incident.direction, b.incident.direction)
    with open_source(first) as source:
        assert source.provenance["cpu_s_per_shower"] > 0
        assert source.provenance["seed"] == 4
        assert "versions" in source.provenance
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.h5", "second.h5"]


def test_voxels_of_a_calochallenge_detector(tmp_path: Path) -> None:
    out = tmp_path / "voxels.h5"
    arguments = ["--detector", "calochallenge-2", "--pdg", "11", "--energy", "2", "-n", "2", "--voxels"]
    assert main(["simulate", *arguments, "-o", str(out), "-q"]) == 0
    voxels = read(out)
    assert isinstance(voxels, Voxels)
    assert voxels.detector == CATALOG["calochallenge-2"]
    assert np.all(np.abs(voxels.energy.sum(axis=1) / 2 - 1) < 0.5)
