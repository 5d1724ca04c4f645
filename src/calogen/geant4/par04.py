"""The calorimeter of CaloChallenge 2 and 3: 90 slabs of tungsten and silicon (Geant4's example Par04)."""

from __future__ import annotations

from calogen.geant4.stack import Slab, Stack

SLABS = 90
TUNGSTEN_MM = 1.4
SILICON_MM = 0.3
"""Geometry of the data sets (arXiv:2410.21611, section on data sets 2 and 3)."""

SLABS_PER_LAYER = 2
"""A layer of the data sets' cells is two slabs deep: 45 layers of 3.4 mm."""

SAMPLING_FRACTION = 0.033
"""Silicon deposits are divided by it (Par04 reads all energy; note on the shared showers)."""

SUBCELL_MM = 1.0
"""Merging sub-cell where points are asked for; voxels are summed from the deposits themselves."""


def calochallenge(name: str) -> Stack:
    """The stack under the name of one of the two detectors, which differ in their cells only; no field."""
    slabs: list[Slab] = []
    for i in range(SLABS):
        slabs += [Slab("G4_W", TUNGSTEN_MM), Slab("G4_Si", SILICON_MM, i // SLABS_PER_LAYER)]
    layers = SLABS // SLABS_PER_LAYER
    return Stack(
        name,
        tuple(slabs),
        cell_mm=(SUBCELL_MM,) * layers,
        subcells=(1,) * layers,
        detector=name,
        response=1 / SAMPLING_FRACTION,
    )
