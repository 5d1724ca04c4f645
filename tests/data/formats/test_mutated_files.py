"""Readers survive any file: mutated ones are read or refused in one line, without traceback, hang or huge memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calogen.data import formats
from calogen.data.formats import BadFile

sys.path.insert(0, str(Path(__file__).parent))
from samples import showers, voxels

METADATA_BYTES = 8192  # most of what HDF5 interprets lies here in so small a file
MEMORY_MB = 200  # the files hold less than 1 MB
VOXELS = {"calochallenge": "calochallenge-1-photons", "getting-high": "box-30"}

mutations = st.lists(
    st.tuples(st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=20
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    found = {}
    for name in formats.FORMATS:
        sample: Any = voxels(VOXELS[name], 2) if name in VOXELS else showers(4)
        formats.write(folder / name, sample, format=name)
        found[name] = (folder / name).read_bytes()
    return found


@pytest.mark.parametrize("format", formats.FORMATS)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=mutations, keep=st.one_of(st.none(), st.floats(0, 1)))
def test_mutated(
    originals: dict[str, bytes],
    tmp_path: Path,
    format: str,
    changes: list[tuple[bool, float, int]],
    keep: float | None,
) -> None:
    content = bytearray(originals[format])
    for in_metadata, place, value in changes:
        content[int(place * (min(METADATA_BYTES, len(content)) if in_metadata else len(content)))] = value
    path = tmp_path / "mutated.h5"
    path.write_bytes(content if keep is None else content[: int(keep * len(content))])
    before, refusals = _peak_mb(), []
    for action in (formats.read, formats.info, formats.sniff):
        try:
            action(path)  # type: ignore[operator]
        except BadFile as error:
            refusals.append(str(error))
    assert not any("\n" in refusal for refusal in refusals)
    assert _peak_mb() - before < MEMORY_MB


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_conversion_blames_the_right_file(tmp_path: Path) -> None:
    formats.write(tmp_path / "a.h5", showers())
    with pytest.raises(ValueError, match="holds voxels") as caught:
        formats.convert(tmp_path / "a.h5", tmp_path / "b.h5", format="calochallenge")
    assert not isinstance(caught.value, BadFile)
    assert str(caught.value).startswith(str(tmp_path / "b.h5"))
