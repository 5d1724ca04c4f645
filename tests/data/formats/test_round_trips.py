"""What is written comes back, for each format."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from calogen import ILD, ILD_ECAL, Showers
from calogen.data import formats
from calogen.data.formats import events, frames, native

sys.path.insert(0, str(Path(__file__).parent))
from samples import any_showers, same, showers, voxels

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
POSITION_MM = 0.0501  # half of 0.1 mm, and the rounding of float32 at 1.5 m
ENERGY = 5e-4


@FEW
@given(any_showers(zero=True))
def test_native_is_lossless(tmp_path: Path, sample: Showers) -> None:
    formats.write(tmp_path / "a.h5", sample, overwrite=True)
    same(sample, formats.read(tmp_path / "a.h5"))


@FEW
@given(any_showers(timed=True, zero=True))
def test_native_compact_keeps_its_promise(tmp_path: Path, sample: Showers) -> None:
    formats.write(tmp_path / "a.h5", sample, overwrite=True, precision="compact") if _codable(sample) else None
    if _codable(sample):
        back = formats.read(tmp_path / "a.h5")
        same(sample, back, position_mm=POSITION_MM, energy=ENERGY)
        np.testing.assert_array_equal(sample.energy == 0, back.energy == 0)


def _codable(sample: Showers) -> bool:
    positive = sample.energy[sample.energy > 0]
    return bool(positive.min(initial=1.0) >= 1e-15)


@FEW
@given(any_showers())
def test_showerdata(tmp_path: Path, sample: Showers) -> None:
    formats.write(tmp_path / "a.h5", sample, format="showerdata", overwrite=True)
    same(sample, formats.read(tmp_path / "a.h5", detector=ILD))


@FEW
@given(any_showers(timed=True))
def test_calohadronic(tmp_path: Path, sample: Showers) -> None:
    if sample.n_points:
        formats.write(tmp_path / "a.h5", sample, format="calohadronic", overwrite=True)
        assert formats.sniff(tmp_path / "a.h5") == "calohadronic"
        same(sample, formats.read(tmp_path / "a.h5"))


@FEW
@given(any_showers())
def test_caloclouds(tmp_path: Path, sample: Showers) -> None:
    if sample.n_points:
        formats.write(tmp_path / "a.h5", sample, format="caloclouds", overwrite=True)
        same(sample, formats.read(tmp_path / "a.h5", detector=ILD, format="caloclouds"))


@FEW
@given(any_showers())
def test_compact_layout(tmp_path: Path, sample: Showers) -> None:
    formats.write(tmp_path / "a.h5", sample, format="compact", overwrite=True)
    same(sample, formats.read(tmp_path / "a.h5"), position_mm=POSITION_MM, energy=1e-6)


@pytest.mark.parametrize(
    ("format", "name"),
    [("calogen", "calochallenge-2"), ("getting-high", "box-30"), ("compact", "calochallenge-3")]
    + [("calochallenge", f"calochallenge-{s}") for s in ("1-photons", "1-pions", "2", "3")],
)
def test_voxels(tmp_path: Path, format: str, name: str) -> None:
    sample = voxels(name, 4)
    formats.write(tmp_path / "a.h5", sample, format=format)
    assert formats.sniff(tmp_path / "a.h5") == format
    back = formats.read(tmp_path / "a.h5", detector=sample.detector)
    np.testing.assert_allclose(back.energy, sample.energy, rtol=1e-6)
    np.testing.assert_array_equal(back.incident.pdg, sample.incident.pdg)
    np.testing.assert_allclose(back.incident.energy, sample.incident.energy, rtol=1e-6)


@pytest.mark.parametrize("format", ["calogen", "compact", "showerdata", "calohadronic", "caloclouds"])
def test_batches_and_conversion_agree_with_reading_whole(tmp_path: Path, format: str) -> None:
    sample = showers(17, seed=3)
    formats.write(tmp_path / "a.h5", sample, format=format)
    whole = formats.read(tmp_path / "a.h5", detector=ILD)
    parts = list(formats.batches(tmp_path / "a.h5", 5, detector=ILD))
    assert [len(p) for p in parts] == [5, 5, 5, 2]
    same(whole, Showers.concatenate(parts))
    assert formats.convert(tmp_path / "a.h5", tmp_path / "b.h5", detector=ILD, showers_per_batch=4) == 17
    same(whole, formats.read(tmp_path / "b.h5"))
    same(whole[3:9], formats.read(tmp_path / "b.h5", start=3, stop=9))


def test_points_of_many_frames_are_read_anywhere(tmp_path: Path) -> None:
    sample = showers(60, seed=5, widest=8000)
    assert sample.n_points > 2 * frames.MAX_VALUES
    formats.write(tmp_path / "a.h5", sample)
    same(sample, formats.read(tmp_path / "a.h5"))
    for i in (0, 17, 59):
        same(sample[i : i + 1], formats.read(tmp_path / "a.h5", start=i, stop=i + 1))


@pytest.mark.parametrize("precision", ["exact", "compact"])
def test_appending_shards_equals_writing_at_once(tmp_path: Path, precision: str) -> None:
    shards = [showers(20, seed=i, widest=6000) for i in range(3)]
    for shard in shards:
        with native.Writer(tmp_path / "a.h5", ILD, append=True, precision=precision) as w:
            w.append(shard)
    formats.write(tmp_path / "b.h5", Showers.concatenate(shards), precision=precision)
    same(formats.read(tmp_path / "a.h5"), formats.read(tmp_path / "b.h5"))


def test_appending_voxels(tmp_path: Path) -> None:
    sample = voxels("calochallenge-2", 6)
    for part in (sample[:2], sample[2:]):
        with native.Writer(tmp_path / "a.h5", sample.detector, append=True) as w:
            w.append(part)
    np.testing.assert_array_equal(formats.read(tmp_path / "a.h5").energy, sample.energy)


def test_header_keeps_detector_and_provenance(tmp_path: Path) -> None:
    formats.write(tmp_path / "a.h5", showers(2, detector=ILD_ECAL), provenance={"seed": 7, "command": "x"})
    found = formats.info(tmp_path / "a.h5")
    assert found.detector == "ild-ecal"
    assert found.provenance["seed"] == 7
    assert found.precision == "exact"
    assert found.format == "calogen"


def test_info_counts(tmp_path: Path) -> None:
    sample = showers(11, seed=2)
    formats.write(tmp_path / "a.h5", sample, format="showerdata")
    found = formats.info(tmp_path / "a.h5", showers_per_batch=3)
    assert (found.n_showers, found.n_points) == (11, sample.n_points)
    assert sum(found.particles.values()) == 11
    assert found.ranges["x"].highest == pytest.approx(float(sample.x.max()))


def test_columns_on_grids_and_of_few_values() -> None:
    rng = np.random.default_rng(0)
    for values in (
        rng.integers(-3000, 3000, 5000) / np.float32(10),
        np.round(rng.normal(0, 40, 5000) * 1024) / 1024,
        rng.choice(rng.normal(0, 1, 50), 5000),
        np.full(5000, np.pi),
        rng.normal(0, 1, 5000),
        np.zeros(1),
    ):
        column = np.asarray(values, np.float32)
        for effort in range(3):
            back = np.empty_like(column)
            frames.decode(memoryview(frames.encode(column, effort=effort)), back)
            np.testing.assert_array_equal(back, column)


def test_depth_in_mm_from_the_face_or_the_beam_line() -> None:
    z = ILD.z_mm.astype(np.float32)
    layers = np.arange(ILD.n_layers)
    np.testing.assert_array_equal(events.layer_of(z, ILD), layers)
    np.testing.assert_array_equal(events.layer_of(z + 1804.0, ILD), layers)
    np.testing.assert_array_equal(events.layer_of(layers + 0.5, ILD), layers)
    with pytest.raises(ValueError, match="neither layers"):
        events.layer_of(np.array([5000.0]), ILD)


def test_splits_of_the_compact_layout(tmp_path: Path) -> None:
    import h5py

    formats.write(tmp_path / "a.h5", showers(10), format="compact")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["split"] = np.array([0] * 6 + [1] * 3 + [2], dtype=np.uint8)
    assert [len(formats.read(tmp_path / "a.h5", split=s)) for s in ("train", "validation", "test")] == [6, 3, 1]
    formats.write(tmp_path / "b.h5", showers(10))
    with pytest.raises(ValueError, match="no splits"):
        formats.read(tmp_path / "b.h5", split="train")
