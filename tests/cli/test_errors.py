"""A mistake in a request ends with one line, exit code 2 and nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calogen.cli import main

Bad = tuple[list[str], str]

MISTAKES: dict[str, Bad] = {
    "no such command": (["smaple"], "sample"),
    "no such option": (["simulate", "--enrgy", "1:10", "-o", "{new}"], "--energy"),
    "no output": (["simulate", "-n", "3"], "--output"),
    "not a number": (["simulate", "-n", "three", "-o", "{new}"], "three"),
    "negative number": (["simulate", "-n", "-5", "-o", "{new}"], "at least 1"),
    "no number": (["simulate", "-o", "{new}"], "-n"),
    "reversed energies": (["simulate", "-n", "3", "--energy", "90:10", "-o", "{new}"], "LOW <= HIGH"),
    "energies in words": (["simulate", "-n", "3", "--energy", "ten", "-o", "{new}"], "GeV"),
    "energy that looks like MeV": (["simulate", "-n", "3", "--energy", "5e6", "-o", "{new}"], "MeV"),
    "unknown pdg": (["simulate", "-n", "3", "--pdg", "99999", "-o", "{new}"], "PDG"),
    "pdg in words": (["simulate", "-n", "3", "--pdg", "photon", "-o", "{new}"], "22"),
    "unknown angles": (["simulate", "-n", "3", "--angles", "sideways", "-o", "{new}"], "barrel"),
    "angles outwards": (["simulate", "-n", "3", "--angles", "cone:120", "-o", "{new}"], "degrees"),
    "negative seed": (["simulate", "-n", "3", "--seed", "-1", "-o", "{new}"], "seed"),
    "unknown spectrum": (["simulate", "-n", "3", "--spectrum", "flat", "-o", "{new}"], "uniform"),
    "unknown detector": (["simulate", "-n", "3", "--detector", "ild-ecla", "-o", "{new}"], "ild-ecal"),
    "a detector without materials": (["simulate", "-n", "3", "--detector", "box-30", "-o", "{new}"], "--voxels box-30"),
    "unknown physics": (["simulate", "-n", "3", "--physics", "FTFP_BRET", "-o", "{new}"], "did you mean FTFP_BERT"),
    "times of voxels": (
        ["simulate", "-n", "3", "--detector", "calochallenge-2", "--voxels", "--keep-time", "-o", "{new}"],
        "no times",
    ),
    "bad field": (["simulate", "-n", "3", "--field-tesla", "3.5", "-o", "{new}"], "tesla"),
    "negative cut": (["simulate", "-n", "3", "--cut-mm", "-1", "-o", "{new}"], "positive"),
    "no workers": (["simulate", "-n", "3", "--workers", "0", "-o", "{new}"], "workers"),
    "hadrons without hadronic physics": (["simulate", "-n", "3", "--pdg", "211", "-o", "{new}"], "FTFP_BERT"),
    "existing output": (["simulate", "-n", "3", "-o", "{showers}"], "--overwrite"),
    "output is a directory": (["simulate", "-n", "3", "-o", "{folder}"], "directory"),
    "output in no directory": (["simulate", "-n", "3", "-o", "{folder}/none/x.h5"], "does not exist"),
    "output below a file": (["simulate", "-n", "3", "-o", "{text}/x.h5"], "does not exist"),
    "like a missing file": (["simulate", "--like", "{folder}/none.h5", "-o", "{new}"], "no such file"),
    "like a text": (["simulate", "--like", "{text}", "-o", "{new}"], "HDF5"),
    "more than the file": (["simulate", "--like", "{showers}", "-n", "99", "-o", "{new}"], "holds 3"),
    "unknown state": (["sample", "caloclouds4", "-n", "3", "-o", "{new}"], "caloclouds"),
    "missing state": (["sample", "{folder}/none.safetensors", "-n", "3", "-o", "{new}"], "no such file"),
    "not a state": (["sample", "{text}", "-n", "3", "-o", "{new}"], "{text}"),
    "no batch": (["sample", "caloclouds3", "-n", "3", "--batch-size", "0", "-o", "{new}"], "at least 1"),
    "no threads": (["sample", "caloclouds3", "-n", "3", "--threads", "0", "-o", "{new}"], "at least 1"),
    "missing TOML": (["sample", "caloclouds3", "-n", "3", "--config", "{folder}/no.toml", "-o", "{new}"], "no such"),
    "not TOML": (["sample", "caloclouds3", "-n", "3", "--config", "{text}", "-o", "{new}"], "TOML"),
    "set without value": (["sample", "caloclouds3", "-n", "3", "--set", "steps", "-o", "{new}"], "KEY=VALUE"),
    "info of nothing": (["info", "{folder}/none.h5"], "no such file"),
    "info of a text": (["info", "{text}"], "HDF5"),
    "info of an empty file": (["info", "{empty}"], "empty"),
    "info of half a file": (["info", "{half}"], "{half}"),
    "info, wrong detector": (["info", "{showers}", "--detector", "ild"], "ild-ecal"),
    "picture exists": (["info", "{showers}", "--plot", "{text}"], "--overwrite"),
    "convert to unknown": (["convert", "{showers}", "{new}", "--format", "calogn"], "calogen"),
    "convert onto a file": (["convert", "{showers}", "{text}"], "--overwrite"),
    "convert without output": (["convert", "{showers}"], "no name for the new file"),
    "convert into two files": (["convert", "{showers}", "{new}", "-o", "{new}2"], "not both"),
    "weights into two files": (["convert-weights", "{showers}", "{new}", "-o", "{new}2"], "not both"),
    "convert a text": (["convert", "{text}", "{new}"], "HDF5"),
    "event too far": (["show", "{showers}", "--event", "3", "-o", "{new}"], "0 to 2"),
    "event below zero": (["show", "{showers}", "--event", "-1", "-o", "{new}"], "0 to 2"),
    "unknown preset": (["presets", "ild-photon-desk"], "ild-photons-desk"),
    "train an unknown system": (["train", "calocluds", "--data", "{showers}", "-o", "{new}"], "caloclouds"),
    "train on nothing": (["train", "caloclouds3", "--data", "{folder}/none.h5", "-o", "{new}"], "no such file"),
    "train an unknown preset": (
        ["train", "caloclouds3", "--data", "{showers}", "--preset", "ild-photon-desk", "-o", "{new}"],
        "ild-photons-desk",
    ),
    "train with an unknown key": (
        ["train", "caloclouds3", "--data", "{showers}", "--set", "flow.stpes=3", "-o", "{new}"],
        "steps",
    ),
    "train into a file": (["train", "caloclouds3", "--data", "{showers}", "-o", "{text}"], "directory"),
    "judge nothing": (["evaluate", "{folder}/none.h5", "{showers}", "-o", "{new}"], "no such file"),
    "judge a file against itself": (["evaluate", "{showers}", "{showers}", "-o", "{new}"], "given twice"),
    "judge into a full directory": (["evaluate", "{showers}", "{showers}", "-o", "{folder}"], "not empty"),
    "weights of nothing": (["convert-weights", "{folder}/none.npz", "{new}"], "none.npz"),
    "weights of a text": (["convert-weights", "{text}", "{new}"], "{text}"),
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_code_2_nothing_written(
    mistake: str, places: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = MISTAKES[mistake]
    folder = Path(places["folder"])
    before = snapshot(folder)
    code = main([argument.format(**places) for argument in arguments])
    out, err = capfd.readouterr()
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("calogen: error: ")
    assert expected.format(**places) in lines[0]
    assert not out
    assert snapshot(folder) == before


def test_missing_geant4_data_is_one_line(places: dict[str, str]) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GEANT4_", "G4"))}
    command = [sys.executable, "-m", "calogen", "simulate", "-n", "1", "-o", places["new"]]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("calogen: error: ")
    assert "GEANT4_DATA_DIR" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not Path(places["new"]).exists()


def test_a_folder_without_permission_is_one_line(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    assert main(["simulate", "-n", "1", "-o", places["new"]]) == 2
    assert "no permission" in capsys.readouterr().err


def test_interrupt_leaves_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("calogen.data.formats.info", interrupted)
    assert main(["info", "x.h5"]) == 130
    assert capsys.readouterr().err == "calogen: interrupted\n"


def test_a_bug_says_how_to_see_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("inside")

    monkeypatch.setattr("calogen.data.formats.info", broken)
    assert main(["info", "x.h5"]) == 1
    quiet = capsys.readouterr().err
    assert "CALOGEN_TRACEBACK=1" in quiet
    assert "Traceback" not in quiet
    monkeypatch.setenv("CALOGEN_TRACEBACK", "1")
    assert main(["info", "x.h5"]) == 1
    assert "Traceback" in capsys.readouterr().err
