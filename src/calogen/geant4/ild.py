"""The regularised ILD calorimeters as slabs: published sensor positions, no gaps between sensors.

Sensors and plates alternate in two kinds of gap. In a short gap two sensors sit back to back on one tungsten
plate; a long gap holds, from the front, a thin board, the next plate, air, and the boards of the next sensor.

What is published: the fronts and the thickness of the sensors (CaloClouds3 metadata) and the plates (ILD
Interim Design Report, arXiv:2003.01116: 20 of 2.1 mm, then 10 of 4.2 mm). What is not published in a form that
slabs can copy is the passive material around them. It was fitted by hand to one public set of histograms, the energy
per layer and the visible energy of 100,000 perpendicular photons in the full ILD (CaloClouds3 code): two
thicknesses decide, `INSULATION` behind the first sensor of a pair, which stops electrons scattered back from
the plate (odd/even ratio), and `BOARDS` in front of it (the same ratio, and the visible energy).
"""

from __future__ import annotations

from collections.abc import Sequence

from calogen.detector.catalog import (
    ILD_ECAL_BOTTOM_MM,
    ILD_ECAL_PITCH_MM,
    ILD_ECAL_THICKNESS_MM,
    ILD_FRONT_MM,
    ILD_HCAL_BOTTOM_MM,
    ILD_HCAL_LAYERS,
    ILD_HCAL_PERIOD_MM,
    ILD_HCAL_PITCH_MM,
    ILD_HCAL_THICKNESS_MM,
)
from calogen.geant4.stack import Slab, Stack, place

Placed = tuple[float, Slab]
"""A slab and where it begins, in mm behind the front face."""

FIELD_TESLA = (3.5, 0.0, 0.0)
"""ILD's solenoid, along the beam (arXiv:2003.01116)."""

PLATES_MM = (2.1,) * 20 + (4.2,) * 10
"""Tungsten in front of each ECal sensor (arXiv:2003.01116)."""

FRONT = (Slab("CARBON_FIBRE", 0.6),)
"""Front face, before the first plate (assumed)."""

FIRST_BOARDS = (Slab("CARBON_FIBRE", 0.6), Slab("G4_Cu", 0.4), Slab("PCB", 1.9))
"""Between the first plate and the first sensor, against the sensor (assumed)."""

BOARDS = (Slab("CARBON_FIBRE", 1.0), Slab("G4_Cu", 0.8), Slab("PCB", 3.8))
"""In front of the first sensor of a pair, against it (thickness of the PCB fitted)."""

INSULATION = (Slab("PCB", 0.2),)
"""Behind the first sensor of a pair, against it (fitted)."""

REAR_BOARD = (Slab("PCB", 0.6),)
"""Behind the second sensor of a pair, against it and the next plate (assumed)."""

HCAL_IRON_MM = 20.0
"""Absorber of an HCal layer (note on the shared ILD showers)."""

HCAL_BOARD = (Slab("PCB", 0.7),)
"""Electronics behind an HCal tile (note on the shared ILD showers)."""

ECAL_SUBCELLS = 5
HCAL_SUBCELLS = 3
"""Sub-cells along a readout cell's side in which deposits are merged (CaloClouds3 5, CaloHadronic 3)."""


def ild_ecal() -> Stack:
    """The ECal alone: 30 layers of silicon behind tungsten."""
    n = len(ILD_ECAL_BOTTOM_MM)
    return _stack("ild-ecal", _ecal(), (ILD_ECAL_PITCH_MM,) * n, (ECAL_SUBCELLS,) * n)


def ild() -> Stack:
    """ECal and HCal: 30 layers of silicon, then 48 of polystyrene tiles behind iron."""
    n = len(ILD_ECAL_BOTTOM_MM)
    cells = (ILD_ECAL_PITCH_MM,) * n + (ILD_HCAL_PITCH_MM,) * ILD_HCAL_LAYERS
    return _stack("ild", _ecal() + _hcal(n), cells, (ECAL_SUBCELLS,) * n + (HCAL_SUBCELLS,) * ILD_HCAL_LAYERS)


def _stack(name: str, parts: list[Placed], cell_mm: tuple[float, ...], subcells: tuple[int, ...]) -> Stack:
    return Stack(name, place(parts), cell_mm, subcells, ILD_FRONT_MM, FIELD_TESLA, detector=name)


def _ecal() -> list[Placed]:
    """Sensors, plates and boards of the ECal."""
    fronts = [bottom - ILD_FRONT_MM for bottom in ILD_ECAL_BOTTOM_MM]
    parts = [(z, Slab("G4_Si", ILD_ECAL_THICKNESS_MM, layer)) for layer, z in enumerate(fronts)]
    parts += _behind(0.0, (*FRONT, _plate(0))) + _before(fronts[0], FIRST_BOARDS)
    for layer in range(1, len(fronts)):
        back = fronts[layer - 1] + ILD_ECAL_THICKNESS_MM
        if layer % 2:
            parts += _short_gap(layer, back, fronts[layer])
        else:
            parts += _behind(back, (*REAR_BOARD, _plate(layer))) + _before(fronts[layer], BOARDS)
    return parts + _behind(fronts[-1] + ILD_ECAL_THICKNESS_MM, REAR_BOARD)


def _short_gap(layer: int, begin: float, end: float) -> list[Placed]:
    """Insulation, then the plate in the middle of the room that is left."""
    insulation = sum(slab.thickness_mm for slab in INSULATION)
    room = end - begin - insulation - PLATES_MM[layer]
    return [*_behind(begin, INSULATION), (begin + insulation + room / 2, _plate(layer))]


def _plate(layer: int) -> Slab:
    return Slab("G4_W", PLATES_MM[layer])


def _hcal(first_layer: int) -> list[Placed]:
    """Iron, tile and board of every HCal layer."""
    parts: list[Placed] = []
    for i in range(ILD_HCAL_LAYERS):
        front = ILD_HCAL_BOTTOM_MM - ILD_FRONT_MM + i * ILD_HCAL_PERIOD_MM
        tile = Slab("G4_POLYSTYRENE", ILD_HCAL_THICKNESS_MM, first_layer + i)
        parts += _before(front, (Slab("G4_Fe", HCAL_IRON_MM),)) + _behind(front, (tile, *HCAL_BOARD))
    return parts


def _behind(z: float, slabs: Sequence[Slab]) -> list[Placed]:
    """Slabs one after the other from `z` on."""
    parts = []
    for slab in slabs:
        parts.append((z, slab))
        z += slab.thickness_mm
    return parts


def _before(z: float, slabs: Sequence[Slab]) -> list[Placed]:
    """Slabs one after the other up to `z`."""
    return _behind(z - sum(slab.thickness_mm for slab in slabs), slabs)
