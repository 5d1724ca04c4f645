"""Places the tests of the command line point at."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calogen import ILD_ECAL, Incident, Showers, write


def few_showers(n: int = 3, points: int = 50, seed: int = 1) -> Showers:
    """Showers of `points` points each, their numbers drawn but not physical; the same particles for any seed."""
    rng = np.random.default_rng(seed)
    total = n * points
    return Showers(
        rng.normal(0, 10, total),
        rng.normal(0, 10, total),
        rng.integers(0, ILD_ECAL.n_layers, total),
        rng.exponential(1e-3, total),
        np.arange(n + 1) * points,
        Incident.gun(n, energy=(10.0, 90.0), seed=1),
        ILD_ECAL,
    )


@pytest.fixture
def draw() -> Callable[..., Showers]:
    """`few_showers`, for tests that need several files."""
    return few_showers


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Good and bad files by name, and `new`, which does not exist."""
    files = {name: tmp_path / name for name in ("new", "showers", "text", "empty", "half")}
    write(files["showers"], few_showers())
    files["text"].write_text("= not a file of showers\n")
    files["empty"].touch()
    whole = files["showers"].read_bytes()
    files["half"].write_bytes(whole[: len(whole) // 2])
    return {name: str(path) for name, path in files.items()} | {"folder": str(tmp_path)}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A file of enough showers to be judged."""
    file = tmp_path / "many.h5"
    write(file, few_showers(60))
    return file
