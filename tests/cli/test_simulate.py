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


def test_voxels_of_a_calochallenge_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "voxels.h5"
    arguments = ["--detector", "calochallenge-2", "--pdg", "11", "--energy", "2", "-n", "2", "--voxels"]
    assert main(["simulate", *arguments, "-o", str(out)]) == 0
    voxels = read(out)
    assert isinstance(voxels, Voxels)
    assert voxels.detector == CATALOG["calochallenge-2"]
    assert np.all(np.abs(voxels.energy.sum(axis=1) / 2 - 1) < 0.5)
    with open_source(out) as source:
        energy = source.provenance["energy"]
    assert energy["kept_gev"] == pytest.approx(voxels.energy.sum(), rel=1e-5)
    assert 0 <= energy["below_threshold_gev"] < 0.1 * energy["kept_gev"]
    assert 0 <= energy["outside_gev"] < 0.1 * energy["kept_gev"]
    assert "% of the energy outside the readout" in capsys.readouterr().out


def test_times_are_kept_where_asked_for(tmp_path: Path) -> None:
    plain, timed = tmp_path / "plain.h5", tmp_path / "timed.h5"
    arguments = ["simulate", "--energy", "1", "-n", "2", "-q"]
    assert main([*arguments, "-o", str(plain)]) == 0
    assert main([*arguments, "--keep-time", "-o", str(timed)]) == 0
    a, b = read(plain), read(timed)
    for name in ("x", "y", "layer", "energy", "offsets"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
    assert a.time is None
    light_mm_per_ns = 299.792
    sensor_front = b.detector.z_mm[b.layer] - b.detector.layers[0].thickness_mm
    assert np.all(b.time >= sensor_front / light_mm_per_ns)
    assert np.median(b.time - sensor_front / light_mm_per_ns) < 0.1
