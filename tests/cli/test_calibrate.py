"""`calogen calibrate`: the factors change, the networks do not."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from calogen import ILD, Showers, load, read, write
from calogen.cli import main
from calogen.systems.state import State

STATE = "caloclouds3"


@pytest.fixture(scope="module")
def truth() -> Showers:
    with resources.as_file(resources.files("calogen") / "samples/photons.h5") as path:
        return read(path, stop=60)


def test_factors_follow_the_showers_and_networks_stay(truth: Showers, tmp_path: Path) -> None:
    brighter = Showers(truth.x, truth.y, truth.layer, 1.2 * truth.energy, truth.offsets, truth.incident, truth.detector)
    data, out = tmp_path / "brighter.h5", tmp_path / "new.safetensors"
    write(data, brighter)
    assert main(["calibrate", STATE, "--data", str(data), "-o", str(out), "-q", "--threads", "1"]) == 0
    before, after = State.read(_shipped()), State.read(out)
    changed = {name for name in before.tensors if not np.array_equal(before.tensors[name], after.tensors[name])}
    assert changed
    assert {name.partition("/")[0] for name in changed} == {"calibration"}
    assert after.provenance["calibration"]["showers"] == 60
    visible = load(out).sample(truth.incident, seed=1).visible_energy.sum()
    assert visible / truth.visible_energy.sum() == pytest.approx(1.2, rel=0.03)


def _shipped() -> Path:
    from calogen.systems import WEIGHTS

    return WEIGHTS / f"{STATE}.safetensors"


def test_what_cannot_be_matched_is_refused(truth: Showers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "other.h5", tmp_path / "new.safetensors"
    write(data, Showers(truth.x, truth.y, truth.layer, truth.energy, truth.offsets, truth.incident, ILD))
    assert main(["calibrate", STATE, "--data", str(data), "-o", str(out)]) == 2
    assert "trained for detector 'ild-ecal'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other.h5"]
