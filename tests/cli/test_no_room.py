"""Outputs that cannot be written to the end: one line with the name that was asked for, and nothing left behind."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers, write
from calogen.cli import main

LIMIT_BYTES = 30_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Showers that take more than the limit in any format."""
    n, rng = 30_000, np.random.default_rng(1)
    places, energy = rng.normal(0, 10, (2, n)), rng.exponential(1e-3, n)
    layer = rng.integers(0, 30, n)
    showers = Showers(*places, layer, energy, [0, n // 3, n // 2, n], Incident.gun(3, angles="barrel"), ILD_ECAL)
    file = tmp_path_factory.mktemp("large") / "large.h5"
    write(file, showers)
    return file


def limited(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command that may not write files larger than the limit, as on a full disk."""
    return subprocess.run(
        [sys.executable, "-m", "calogen", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES)),
    )


@pytest.mark.parametrize("format", ["calogen", "compact", "showerdata", "caloclouds"])
def test_a_full_disk_is_one_line(
    large: Path, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.h5"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20 + 100))
    assert main(["convert", str(large), str(out), "--format", format, "-q"]) == 2
    expected = f"calogen: error: {out}: cannot be written: No space left on device; free some space, or write elsewhere"
    assert capfd.readouterr().err == expected + "\n"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_one_line(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, dir: Path, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(dir / ".out.h5.abc.partial"))

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    assert main(["convert", str(large), str(tmp_path / "out.h5"), "-q"]) == 2
    assert capfd.readouterr().err == f"calogen: error: {tmp_path / 'out.h5'}: cannot be written: Permission denied\n"


def test_a_full_disk_while_simulating_is_one_line(geant4_data: Path, large: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    result = limited("simulate", "--energy", 50, "-n", 1, "-o", out, "-q")
    expected = f"calogen: error: {out}: cannot be written: File too large; free some space, or write elsewhere\n"
    assert (result.returncode, result.stderr) == (2, expected)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def geant4_data(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(os.environ.get("GEANT4_DATA_DIR", shared / "geant4-data"))
    monkeypatch.setenv("GEANT4_DATA_DIR", str(folder))
    pytest.importorskip("geant4_pybind")
    return folder


def test_a_picture_that_cannot_be_written_names_the_picture(large: Path, tmp_path: Path) -> None:
    result = limited("info", large, "--plot", tmp_path / "picture.png")
    assert result.returncode == 2
    assert result.stderr.startswith(f"calogen: error: {tmp_path / 'picture.png'}: cannot be written: File too large")
    assert list(tmp_path.iterdir()) == []
