"""A stack as Geant4 geometry: a box a slab, materials, sensors and the magnetic field."""

from __future__ import annotations

from typing import Any

from calogen.geant4.deposits import Recorder, sensor
from calogen.geant4.setup import Setup
from calogen.geant4.stack import AIR, Stack

HALF_SIZE_MM = 2000.0
"""Half width of the slabs: beyond the positions that are kept, so that no edge is seen."""


def geometry(g4: Any, setup: Setup, recorder: Recorder) -> Any:
    """Geant4's detector construction: slabs from z = 0 in a world of air, sensors that feed the recorder, field."""
    stack = setup.stack

    class Geometry(g4.G4VUserDetectorConstruction):
        def __init__(self) -> None:
            super().__init__()
            self.kept: list[Any] = []
            self.sensitive: list[Any] = []
            self.materials: dict[str, Any] = {}

        def box(self, name: str, half_xy: float, half_z: float, material: str, z: float, mother: Any) -> Any:
            solid = g4.G4Box(name, half_xy, half_xy, half_z)
            logical = g4.G4LogicalVolume(solid, self.material(material), name)
            placed = g4.G4PVPlacement(None, g4.G4ThreeVector(0, 0, z), logical, name, mother, False, 0, False)
            self.kept += [solid, logical, placed]
            return logical, placed

        def material(self, name: str) -> Any:
            if name not in self.materials:
                self.materials[name] = _material(g4, stack, name)
            return self.materials[name]

        def Construct(self) -> Any:
            world, placed = self.box("world", HALF_SIZE_MM, stack.depth_mm + 1.0, AIR, 0.0, None)
            for front, slab in zip(stack.fronts_mm(), stack.slabs, strict=True):
                if slab.material == AIR and slab.layer is None:
                    continue
                half = slab.thickness_mm / 2
                logical, _ = self.box("slab", HALF_SIZE_MM, half, slab.material, front + half, world)
                if slab.layer is not None:
                    self.sensitive.append(logical)
            return placed

        def ConstructSDandField(self) -> None:
            parts = sensor(g4, recorder, setup)
            self.kept += parts
            for logical in self.sensitive:
                self.SetSensitiveDetector(logical, parts[-1])
            if any(setup.field):
                self.kept.append(_switch_on_field(g4, setup.field))

    return Geometry()


def _switch_on_field(g4: Any, field_tesla: tuple[float, float, float]) -> Any:
    magnet = g4.G4UniformMagField(g4.G4ThreeVector(*(component * g4.tesla for component in field_tesla)))
    manager = g4.G4TransportationManager.GetTransportationManager().GetFieldManager()
    manager.SetDetectorField(magnet)
    manager.CreateChordFinder(magnet)
    return magnet


def _material(g4: Any, stack: Stack, name: str) -> Any:
    nist = g4.G4NistManager.Instance()
    if name not in stack.materials:
        found = nist.FindOrBuildMaterial(name)
        if found is None:
            raise ValueError(f"material {name!r} is neither a NIST name (G4_...) nor in the stack's materials")
        return found
    mixture = stack.materials[name]
    total = sum(mixture.fractions.values())
    made = g4.G4Material(name, mixture.density_g_cm3 * g4.g / g4.cm3, len(mixture.fractions))
    for part, fraction in mixture.fractions.items():
        if part.startswith("G4_"):
            made.AddMaterial(nist.FindOrBuildMaterial(part), fraction / total)
        else:
            made.AddElement(nist.FindOrBuildElement(part), fraction / total)
    return made
