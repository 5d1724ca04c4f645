"""The demonstration runs on what is shipped and leaves what it promises."""

import json
from importlib import resources
from pathlib import Path

import pytest

from calogen.cli import main
from calogen.cli.demo import GEANT4_COST, SAMPLES
from calogen.data.formats import open_source

MAX_SAMPLE_BYTES = 6_000_000
MIN_SHOWERS = {"caloclouds3": 500, "calohadronic": 200, "allshowers": 280, "calodream": 300, "omnijet": 100}


@pytest.mark.parametrize("system", SAMPLES)
def test_demo(system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--system", system, "-o", str(tmp_path / "demo"), "-q"]) == 0
    page = (tmp_path / "demo" / "index.html").read_text()
    scores = json.loads((tmp_path / "demo" / "scores.json").read_text())
    (model,) = scores["models"]
    assert model["n_showers"] == scores["truth"]["n_showers"] >= MIN_SHOWERS[system]
    assert model["same_incidents"] if "same_incidents" in model else model["findings"]
    assert "Geant4" in page
    assert 'src="http' not in page
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("system", "sample"), SAMPLES.items())
def test_shipped_sample_is_small_and_says_its_cost(system: str, sample: str) -> None:
    with resources.as_file(resources.files("calogen") / sample) as path:
        assert path.stat().st_size <= MAX_SAMPLE_BYTES
        with open_source(path) as source:
            assert source.n_showers >= MIN_SHOWERS[system]
            assert float(source.provenance[GEANT4_COST]) > 0


def test_a_system_without_a_shipped_state_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--system", "caloclouds"]) == 2
    assert "caloclouds3" in capsys.readouterr().err
