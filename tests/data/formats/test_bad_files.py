"""Bad input gets one clear line, and nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from calogen import ILD, ILD_ECAL, Showers
from calogen.data import formats
from calogen.data.formats import BadFile, native

sys.path.insert(0, str(Path(__file__).parent))
from samples import showers, voxels


def _replace(name: str, data: Any, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data, **options)

    return change


def _edit(name: str, at: Any, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        values = file[name][...]
        values[at] = value
        del file[name]
        file[name] = values

    return change


def _delete(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def _link(name: str, link: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return change


def _huge(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, shape=(10**13,), dtype="f4", chunks=(1024,), compression="gzip")

    return change


def _external(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        n = file[name].shape
        del file[name]
        file.create_dataset(name, shape=n, dtype="f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])

    return change


CASES: list[tuple[str, str, Callable[[h5py.File], None]]] = [
    ("compact", "missing", _delete("layer")),
    ("compact", "missing", _delete("offsets")),
    ("compact", "rows", _replace("pdg", np.array([22], np.int32))),
    ("compact", "axes", _replace("direction", np.zeros(3, np.float32))),
    ("compact", "energy of point", _edit("energy_mev", 0, np.nan)),
    ("compact", "energy of point", _edit("energy_mev", 0, np.inf)),
    ("compact", "negative", _edit("energy_mev", 0, -1)),
    ("compact", "layers go", _edit("layer", 0, 99)),
    ("compact", "offsets", _edit("offsets", 1, 10**9)),
    ("compact", "offsets", _edit("offsets", 1, -5)),
    ("compact", "offsets", _edit("offsets", -1, 10**9)),
    ("compact", "PDG", _edit("pdg", 0, 123456789)),
    ("compact", "length", _edit("direction", 0, (0, 0, 2))),
    ("compact", "points out", _edit("direction", 0, (0, 0, -1))),
    ("compact", "positive and finite", _edit("energy_gev", 0, -3)),
    ("compact", "looks like MeV", _edit("energy_gev", slice(None), 5e5)),
    ("compact", "numbers", _replace("x_01mm", np.array([b"a", b"b"]))),
    ("compact", "numbers", _replace("energy_mev", np.zeros(3, [("a", "f4"), ("b", "i4")]))),
    ("compact", "numbers", _replace("layer", ["a", "b"], dtype=h5py.string_dtype())),
    ("compact", "can hold", _huge("energy_mev")),
    ("compact", "link", _link("energy_mev", h5py.ExternalLink("/etc/passwd", "/x"))),
    ("compact", "link", _link("energy_mev", h5py.SoftLink("/energy_gev"))),
    ("compact", "other files", _external("energy_mev")),
    ("showerdata", "missing", _delete("directions")),
    ("showerdata", "shape", _edit("shape", 1, 2)),
    ("showerdata", "shape", _edit("shape", 2, 9)),
    ("showerdata", "num_points", _edit("num_points", 0, 10**9)),
    ("showerdata", "expected", _replace("showers", np.zeros((3, 4), np.float32))),
    ("calochallenge", "no data set", _replace("showers", np.zeros((3, 77), np.float32))),
    ("calochallenge", "rows", _replace("showers", np.zeros((2, 6480), np.float32))),
    ("calochallenge", "look like GeV", _edit("incident_energies", slice(None), 50)),
    ("calochallenge", "negative", _edit("showers", (0, 0), -1)),
    ("calochallenge", "finite", _edit("showers", (0, 0), np.nan)),
    ("caloclouds", "no axis", _replace("events", np.zeros((3, 7, 9), np.float32))),
    ("caloclouds", "one energy", _replace("energy", np.ones((3, 2), np.float32))),
    ("calohadronic", "neither layers", _edit("events", (slice(None), 1), 1e6)),
    ("getting-high", "do not fit", _replace("30x30/layers", np.zeros((3, 30, 30, 29), np.float32))),
]


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Path]:
    def write(format: str) -> Path:
        path = tmp_path / f"{format}.h5"
        voxel = {"calochallenge": "calochallenge-2", "getting-high": "box-30"}
        sample: Any = voxels(voxel[format]) if format in voxel else showers()
        formats.write(path, sample, format=format)
        return path

    return write


@pytest.mark.parametrize(("format", "message", "change"), CASES)
def test_one_line_and_nothing_written(
    make: Callable[[str], Path], format: str, message: str, change: Callable[[h5py.File], None], tmp_path: Path
) -> None:
    path = make(format)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(BadFile, match=message) as caught:
        formats.read(path, format=format)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(BadFile):
        formats.convert(path, tmp_path / "out.h5", source_format=format)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_points_in_mev(tmp_path: Path) -> None:
    s = showers(20)
    mev = Showers(s.x, s.y, s.layer, s.energy * 1e6, s.offsets, s.incident, s.detector)
    formats.write(tmp_path / "a.h5", mev, format="showerdata")
    with pytest.raises(BadFile, match="look like MeV"):
        formats.read(tmp_path / "a.h5")


def test_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not at all")
    (tmp_path / "empty.h5").touch()
    for path, message in (("text.h5", "not an HDF5"), ("empty.h5", "empty"), ("none.h5", "no such"), (".", "regular")):
        with pytest.raises(BadFile, match=message):
            formats.read(tmp_path / path)


def test_truncated(tmp_path: Path) -> None:
    formats.write(tmp_path / "a.h5", showers(50))
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadFile, match="truncated"):
        formats.read(tmp_path / "b.h5")


def test_no_format_and_no_showers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["something"] = np.zeros(3)
    with pytest.raises(BadFile, match="none of the known formats"):
        formats.read(tmp_path / "a.h5")
    with native.Writer(tmp_path / "b.h5", ILD):
        pass
    with pytest.raises(BadFile, match="no showers"):
        formats.read(tmp_path / "b.h5")


def test_file_of_another_detector(tmp_path: Path) -> None:
    formats.write(tmp_path / "a.h5", showers(detector=ILD))
    with pytest.raises(BadFile, match="'ild-ecal' is expected"):
        formats.read(tmp_path / "a.h5", detector=ILD_ECAL)


def test_native_header(tmp_path: Path) -> None:
    for name, value, message in (
        ("detector", "{", "JSON"),
        ("detector", '{"name": "x"}', "detector"),
        ("detector", "[" * 100_000, "JSON"),
        ("precision", "rough", "precision"),
        ("format_version", 99, "version 99"),
    ):
        path = tmp_path / "a.h5"
        formats.write(path, showers(), overwrite=True)
        with h5py.File(path, "a") as file:
            file.attrs[name] = value
        with pytest.raises(BadFile, match=message):
            formats.read(path)


def test_damaged_points_fail_their_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    formats.write(path, showers(30))
    with h5py.File(path, "a") as file:
        file["points/x/bytes"][200] ^= 1
    with pytest.raises(BadFile, match="wrong checksum"):
        formats.read(path)


def test_existing_output_and_missing_folder(tmp_path: Path) -> None:
    formats.write(tmp_path / "a.h5", showers())
    before = (tmp_path / "a.h5").read_bytes()
    for format in ("calogen", "showerdata", "caloclouds", "compact"):
        with pytest.raises(ValueError, match="exists"):
            formats.write(tmp_path / "a.h5", showers(), format=format)
    assert (tmp_path / "a.h5").read_bytes() == before
    with pytest.raises(ValueError, match="does not exist"):
        formats.write(tmp_path / "no" / "a.h5", showers())


def test_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with native.Writer(tmp_path / "a.h5", ILD) as w:
            w.append(showers())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    s = showers()
    silent = Showers(s.x, s.y, s.layer, s.energy * 0, s.offsets, s.incident, s.detector)
    cases: list[tuple[Any, str, str]] = [
        (silent, "caloclouds", "zero energy"),
        (silent, "showerdata", "zero energy"),
        (showers(timed=True), "caloclouds", "times"),
        (showers(timed=True), "compact", "times"),
        (voxels("calochallenge-2"), "showerdata", "holds points"),
        (s, "calochallenge", "holds voxels"),
        (voxels("calochallenge-2"), "getting-high", "30, 30, 30"),
    ]
    for sample, format, message in cases:
        with pytest.raises(ValueError, match=message):
            formats.write(tmp_path / "a.h5", sample, format=format)
    far = Showers(s.x + 4000, s.y, s.layer, s.energy, s.offsets, s.incident, s.detector)
    with pytest.raises(ValueError, match="exact precision"):
        formats.write(tmp_path / "a.h5", far, precision="compact")
    assert list(tmp_path.iterdir()) == []
