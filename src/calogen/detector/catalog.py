"""Known detectors, each number with its source, and detectors read from a user's TOML or a CaloChallenge XML."""

from __future__ import annotations

import os
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from calogen.detector.geometry import CartesianCells, Detector, Layer, PolarCells
from calogen.units import GEV_PER_MEV

# ---- ILD: depths of the sensors' front sides in the barrel as published with CaloClouds3
# (arXiv:2511.01460, `layer_bottom_pos` of its metadata, distance from the beam line in mm). ----
ILD_FRONT_MM = 1804.0  # front face of the barrel ECal, from the ShowerData shift convention
ILD_ECAL_BOTTOM_MM = (
    1811.34020996, 1814.46508789, 1823.81005859, 1826.93505859, 1836.2800293, 1839.4050293,
    1848.75, 1851.875, 1861.2199707, 1864.3449707, 1873.68994141, 1876.81494141,
    1886.16003418, 1889.28503418, 1898.63000488, 1901.75500488, 1911.09997559, 1914.22497559,
    1923.56994629, 1926.69494629, 1938.14001465, 1943.36499023, 1954.81005859, 1960.03503418,
    1971.47998047, 1976.70495605, 1988.15002441, 1993.375, 2004.81994629, 2010.04504395,
)  # fmt: skip
ILD_ECAL_THICKNESS_MM = 0.5250244140625  # `thickness` of the CaloClouds3 metadata
ILD_ECAL_PITCH_MM = 5.0883331298828124  # twice `half_cell` of the CaloClouds3 metadata
ILD_ECAL_THRESHOLD_GEV = 0.1 * GEV_PER_MEV  # half a MIP, CaloClouds3 section 3; ShowerData's ECal threshold

# HCal: front side of layer k at 2081.0 + 26.5 k (ShowerData geometry table), 3 mm scintillator,
# 30 mm tiles, threshold 0.25 MeV (ShowerData).
ILD_HCAL_LAYERS = 48
ILD_HCAL_BOTTOM_MM = 2081.0
ILD_HCAL_PERIOD_MM = 26.5
ILD_HCAL_THICKNESS_MM = 3.0
ILD_HCAL_PITCH_MM = 30.0
ILD_HCAL_THRESHOLD_GEV = 0.25 * GEV_PER_MEV

# Readout kept around the entry point. Points farther out are counted as outside, never lost silently.
ILD_HALF_WIDTH_MM = 1500.0


def _ild_ecal_layers(cells: CartesianCells) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            bottom + ILD_ECAL_THICKNESS_MM / 2 - ILD_FRONT_MM,
            ILD_ECAL_THICKNESS_MM,
            "ecal",
            cells,
            ILD_ECAL_THRESHOLD_GEV,
        )
        for bottom in ILD_ECAL_BOTTOM_MM
    )


def _ild_hcal_layers() -> tuple[Layer, ...]:
    cells = CartesianCells.centred(ILD_HCAL_PITCH_MM, ILD_HALF_WIDTH_MM)
    first = ILD_HCAL_BOTTOM_MM + ILD_HCAL_THICKNESS_MM / 2 - ILD_FRONT_MM
    return tuple(
        Layer(first + k * ILD_HCAL_PERIOD_MM, ILD_HCAL_THICKNESS_MM, "hcal", cells, ILD_HCAL_THRESHOLD_GEV)
        for k in range(ILD_HCAL_LAYERS)
    )


_ECAL_CELLS = CartesianCells.centred(ILD_ECAL_PITCH_MM, ILD_HALF_WIDTH_MM)
ILD_ECAL = Detector("ild-ecal", _ild_ecal_layers(_ECAL_CELLS))
ILD = Detector("ild", _ild_ecal_layers(_ECAL_CELLS) + _ild_hcal_layers())

# ---- The box of OmniJet-alpha_C and Getting High: 30 x 30 cells in the 30 ILD ECal layers ----
BOX_30_CELLS = 30
BOX_30 = Detector(
    "box-30",
    _ild_ecal_layers(
        CartesianCells(
            ILD_ECAL_PITCH_MM,
            -BOX_30_CELLS / 2 * ILD_ECAL_PITCH_MM,
            -BOX_30_CELLS / 2 * ILD_ECAL_PITCH_MM,
            BOX_30_CELLS,
            BOX_30_CELLS,
        )
    ),
)

# ---- CaloChallenge (arXiv:2410.21611): data sets 2 and 3 are 45 layers of 3.4 mm (two slabs of 1.4 mm W and
# 0.3 mm Si each), 9 (18) rings up to 41.85 mm, 16 (50) sectors; voxel threshold 15.15 keV. ----
DS23_LAYERS = 45
DS23_LAYER_MM = 3.4
DS23_RADIUS_MM = 41.85
DS23_THRESHOLD_GEV = 0.5e-3 / 0.033 * GEV_PER_MEV  # 0.5 keV of silicon over the sampling fraction
DS1_THRESHOLD_GEV = 1.0 * GEV_PER_MEV  # the challenge's cut on data set 1


def _rings(n_r: int, n_alpha: int) -> PolarCells:
    return PolarCells(tuple(round(DS23_RADIUS_MM / n_r * i, 6) for i in range(n_r + 1)), n_alpha)


def _ds23(name: str, cells: Sequence[PolarCells]) -> Detector:
    return Detector(
        name,
        tuple(
            Layer((i + 0.5) * DS23_LAYER_MM, DS23_LAYER_MM, "ecal", c, DS23_THRESHOLD_GEV) for i, c in enumerate(cells)
        ),
    )


CALOCHALLENGE_2 = _ds23("calochallenge-2", [_rings(9, 16)] * DS23_LAYERS)
CALOCHALLENGE_3 = _ds23("calochallenge-3", [_rings(18, 50)] * DS23_LAYERS)

# Data set 1 (ATLAS-like): rings in mm from the challenge's binning_dataset_1_*.xml. The challenge gives no
# depths; layers stand at 1, 2, 3, ... times a nominal spacing, enough to order and to draw them.
DS1_NOMINAL_SPACING_MM = 100.0
_DS1_PHOTON_RINGS: dict[int, tuple[tuple[float, ...], int]] = {
    0: ((0, 5, 10, 30, 50, 100, 200, 400, 600), 1),
    1: ((0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200), 10),
    2: ((0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350, 400), 10),
    3: ((0, 50, 100, 200, 400, 600), 1),
    12: ((0, 100, 200, 400, 1000, 2000), 1),
}
_DS1_PION_RINGS: dict[int, tuple[tuple[float, ...], int]] = {
    0: ((0, 5, 10, 30, 50, 100, 200, 400, 600), 1),
    1: ((0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200), 10),
    2: ((0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400), 10),
    3: ((0, 50, 100, 200, 400, 600), 1),
    12: ((0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 1000, 2000), 10),
    13: ((0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400, 600, 1000, 2000), 10),
    14: ((0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000), 1),
}
DS1_FIRST_HADRONIC_LAYER = 4  # calorimeter samplings 0-3 are electromagnetic (presampler, EM1-3)


def _ds1(name: str, rings: dict[int, tuple[tuple[float, ...], int]]) -> Detector:
    layers = [
        Layer(
            (i + 1) * DS1_NOMINAL_SPACING_MM,
            DS1_NOMINAL_SPACING_MM,
            "ecal" if sampling < DS1_FIRST_HADRONIC_LAYER else "hcal",
            PolarCells(tuple(float(r) for r in edges), n_alpha),
            DS1_THRESHOLD_GEV,
        )
        for i, (sampling, (edges, n_alpha)) in enumerate(rings.items())
    ]
    return Detector(name, tuple(layers))


CALOCHALLENGE_1_PHOTONS = _ds1("calochallenge-1-photons", _DS1_PHOTON_RINGS)
CALOCHALLENGE_1_PIONS = _ds1("calochallenge-1-pions", _DS1_PION_RINGS)

CATALOG: dict[str, Detector] = {
    d.name: d
    for d in (
        ILD,
        ILD_ECAL,
        BOX_30,
        CALOCHALLENGE_1_PHOTONS,
        CALOCHALLENGE_1_PIONS,
        CALOCHALLENGE_2,
        CALOCHALLENGE_3,
    )
}

MAX_DESCRIPTION_BYTES = 4_000_000  # a description file larger than this is refused unread


def detector(name_or_path: str | os.PathLike[str]) -> Detector:
    """A detector by its catalog name, or from a user's `.toml` or a CaloChallenge binning `.xml`.

    >>> detector("ild-ecal").n_layers
    30

    Raises:
        ValueError: neither a known name nor a readable description.
    """
    text = os.fspath(name_or_path)
    if text in CATALOG:
        return CATALOG[text]
    suffix = Path(text).suffix.lower()
    if suffix not in (".toml", ".xml"):
        raise ValueError(f"unknown detector {text!r}; known: {', '.join(CATALOG)}, or a .toml or .xml file")
    if not Path(text).is_file():
        raise ValueError(f"detector file {text} does not exist")
    if Path(text).stat().st_size > MAX_DESCRIPTION_BYTES:
        raise ValueError(f"detector file {text} is larger than {MAX_DESCRIPTION_BYTES} bytes")
    return from_toml(text) if suffix == ".toml" else from_calochallenge_xml(text)


def from_toml(path: str | os.PathLike[str]) -> Detector:
    """A user's detector: `name`, `[[cells]]` and `[[layers]]` with the keys of `Detector.to_dict`.

    Raises:
        ValueError: not TOML, or keys or values that do not make a detector.
    """
    try:
        description = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{os.fspath(path)} is not TOML: {error}") from error
    return Detector.from_dict(description)


def from_calochallenge_xml(path: str | os.PathLike[str], particle: str | None = None) -> Detector:
    """The detector of a CaloChallenge binning file; `particle` chooses where it describes several.

    Depths, which the files do not hold, are those of the catalog (data sets 2 and 3: 3.4 mm a layer).

    Raises:
        ValueError: not such a file, or no such particle in it.
    """
    name = os.fspath(path)
    raw = Path(path).read_bytes()
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise ValueError(f"{name}: document type definitions are not accepted in a binning file")
    try:
        root = ElementTree.fromstring(raw)
        bins = [b for b in root.iter("Bin") if particle in (None, b.get("name"))]
        if not bins:
            raise ValueError(f"{name}: no binning for particle {particle!r}")
        rings = {
            int(layer.attrib["id"]): (
                tuple(float(r) for r in layer.attrib["r_edges"].split(",")),
                int(layer.attrib["n_bin_alpha"]),
            )
            for layer in bins[0].iter("Layer")
        }
    except (ElementTree.ParseError, KeyError) as error:
        raise ValueError(f"{name} is not a CaloChallenge binning file: {error}") from error
    used = {sampling: r for sampling, r in rings.items() if len(r[0]) > 1}
    if len(used) == DS23_LAYERS:
        return _ds23_from_rings(used)
    return _ds1(f"calochallenge-1-{bins[0].get('name', 'unknown')}s", used)


def _ds23_from_rings(rings: dict[int, tuple[tuple[float, ...], int]]) -> Detector:
    cells = [PolarCells(edges, n_alpha) for edges, n_alpha in rings.values()]
    known = (d for d in (CALOCHALLENGE_2, CALOCHALLENGE_3) if d.layers[0].cells == cells[0])
    return _ds23(next((d.name for d in known), "calochallenge-custom"), cells)
