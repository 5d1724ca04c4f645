"""Small showers and voxels for the tests of formats."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from calogen import CATALOG, ILD, Detector, Incident, Showers, Voxels
from calogen.data.formats.ragged import offsets_of


def showers(n: int = 3, *, seed: int = 0, detector: Detector = ILD, widest: int = 40, timed: bool = False) -> Showers:
    """Showers whose visible energy is a credible share of the incident energy."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, widest + 1, n)
    counts[0] = max(1, counts[0])
    p = int(counts.sum())
    incident = Incident.gun(n, pdg=[22, 211, 2112], energy=(1, 90), angles="barrel", seed=seed)
    return Showers(
        rng.normal(0, 40, p),
        rng.normal(0, 40, p),
        rng.integers(0, detector.n_layers, p),
        rng.exponential(1e-4, p) + 1e-9,
        offsets_of(counts),
        incident,
        detector,
        rng.exponential(5.0, p) if timed else None,
    )


def voxels(name: str, n: int = 3, *, seed: int = 0) -> Voxels:
    """Sparse voxels of a catalog detector, perpendicular."""
    detector = CATALOG[name]
    rng = np.random.default_rng(seed)
    incident = Incident.gun(n, pdg=11, energy=(1, 100), seed=seed)
    energy = rng.exponential(1e-3, (n, detector.n_cells)) * (rng.random((n, detector.n_cells)) < 0.05)
    return Voxels(energy, incident, detector)


@st.composite
def any_showers(draw: Any, *, timed: bool = False, zero: bool = False, reach_mm: float = 1500.0) -> Showers:
    """Any valid showers, extreme ones too: empty showers, tiny energies, the edge of the readout."""
    counts = np.array(draw(st.lists(st.integers(0, 12), min_size=1, max_size=6)))
    n, p = len(counts), int(counts.sum())
    floats = {"allow_nan": False, "allow_infinity": False, "width": 32}
    place = st.floats(-float(np.float32(reach_mm)), float(np.float32(reach_mm)), **floats)
    least = 0.0 if zero else float(np.float32(1e-14))
    share = st.floats(least, float(np.float32(0.1)), **floats)

    def column(values: Any) -> Any:
        return draw(st.lists(values, min_size=p, max_size=p))

    incident = Incident.gun(n, pdg=draw(st.sampled_from([22, 11, -211, 130])), energy=(5, 90), angles="barrel")
    return Showers(
        column(place),
        column(place),
        column(st.integers(0, ILD.n_layers - 1)),
        column(share),
        offsets_of(counts),
        incident,
        ILD,
        column(st.floats(0, 150, **floats)) if timed else None,
    )


def same(a: Showers, b: Showers, *, exact: bool = True, position_mm: float = 0.0, energy: float = 0.0) -> None:
    """Assert that two sets of showers agree (bit by bit, or within these tolerances)."""
    np.testing.assert_array_equal(a.offsets, b.offsets)
    np.testing.assert_array_equal(a.layer, b.layer)
    np.testing.assert_array_equal(a.incident.pdg, b.incident.pdg)
    np.testing.assert_array_equal(a.incident.energy, b.incident.energy)
    np.testing.assert_array_equal(a.incident.direction, b.incident.direction)
    assert a.detector == b.detector
    for name, tolerance in (("x", position_mm), ("y", position_mm)):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.energy, b.energy, rtol=energy, atol=0)
    assert (a.time is None) == (b.time is None)
    if a.time is not None and b.time is not None:
        np.testing.assert_array_equal(a.time, b.time)
