"""The demonstration runs on what is shipped and leaves what it promises."""

import json
from importlib import resources
from pathlib import Path

import pytest

from calogen.cli import main

MAX_SAMPLE_BYTES = 6_000_000
MIN_SHOWERS = 500


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-o", str(tmp_path / "demo"), "-q"]) == 0
    page = (tmp_path / "demo" / "index.html").read_text()
    scores = json.loads((tmp_path / "demo" / "scores.json").read_text())
    (model,) = scores["models"]
    assert model["n_showers"] == scores["truth"]["n_showers"] >= MIN_SHOWERS
    assert model["same_incidents"]
    assert "Geant4" in page
    assert 'src="http' not in page
    assert capsys.readouterr().out == ""


def test_shipped_sample_is_small_and_says_its_cost() -> None:
    from calogen.cli.demo import GEANT4_COST, SAMPLE
    from calogen.data.formats import open_source

    with resources.as_file(resources.files("calogen") / SAMPLE) as path:
        assert path.stat().st_size <= MAX_SAMPLE_BYTES
        with open_source(path) as source:
            assert source.n_showers >= MIN_SHOWERS
            assert float(source.provenance[GEANT4_COST]) > 0
