"""Stack: a calorimeter as slabs of material one behind the other, some of them sensitive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

AIR = "G4_AIR"

TOUCH_MM = 1e-6
"""Slabs closer than this touch: above the rounding of positions summed in mm, below any real gap."""


class StackError(ValueError):
    """A stack that cannot be built, said in one line."""


@dataclass(frozen=True)
class Material:
    """A mixture: density in g/cm3 and mass fractions by NIST name (``G4_...``) or element symbol.

    Fractions are normalised to one. Raises StackError on a density or a fraction that is not positive.
    """

    density_g_cm3: float
    fractions: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.density_g_cm3 > 0:
            raise StackError(f"material density {self.density_g_cm3} g/cm3 is not positive; give g/cm3")
        if not self.fractions or any(not f > 0 for f in self.fractions.values()):
            raise StackError(f"material fractions {dict(self.fractions)} must all be positive mass fractions")


# Materials that Geant4's NIST list lacks. Densities as in the note on the shared showers; compositions are
# the usual ones of glass-epoxy laminate and of cured carbon-fibre laminate.
MATERIALS: dict[str, Material] = {
    "PCB": Material(1.7, {"G4_SILICON_DIOXIDE": 0.6, "C": 0.27, "H": 0.03, "O": 0.10}),
    "CARBON_FIBRE": Material(1.5, {"C": 0.9, "H": 0.02, "O": 0.08}),
}


@dataclass(frozen=True)
class Slab:
    """One plate across the whole calorimeter: material name, thickness in mm, sensitive layer (or None).

    Several slabs may carry the same layer: their deposits are summed (CaloChallenge 2 and 3).
    """

    material: str
    thickness_mm: float
    layer: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.thickness_mm < float("inf"):
            raise StackError(f"slab of {self.material}: thickness {self.thickness_mm} mm is not positive")
        if self.layer is not None and self.layer < 0:
            raise StackError(f"slab of {self.material}: layer {self.layer} is negative; layers count from 0")


@dataclass(frozen=True)
class Stack:
    """Slabs from the front face (z = 0) inwards, and what a run needs to know about them.

    ``cell_mm [L]`` readout pitch and ``subcells [L]`` merging sub-cells per pitch, of every layer;
    ``front_mm`` distance of the front face from the interaction point (0: none);
    ``field_tesla`` default magnetic field in the local frame (x along the beam);
    ``detector`` name of the catalog detector these layers belong to ("" for a user's own);
    ``response`` factor from deposit to recorded energy.
    """

    name: str
    slabs: tuple[Slab, ...]
    cell_mm: tuple[float, ...]
    subcells: tuple[int, ...]
    front_mm: float = 0.0
    field_tesla: tuple[float, float, float] = (0.0, 0.0, 0.0)
    detector: str = ""
    response: float = 1.0
    materials: Mapping[str, Material] = field(default_factory=lambda: MATERIALS)

    def __post_init__(self) -> None:
        found = {slab.layer for slab in self.slabs if slab.layer is not None}
        if not found:
            raise StackError(f"stack {self.name}: no slab is sensitive; give at least one slab a layer")
        if found != set(range(len(found))):
            raise StackError(f"stack {self.name}: layers {sorted(found)} must be 0..{len(found) - 1}, none missing")
        if len(self.cell_mm) != len(found) or len(self.subcells) != len(found):
            raise StackError(f"stack {self.name}: {len(found)} layers need {len(found)} cell sizes and sub-cells")
        order = [slab.layer for slab in self.slabs if slab.layer is not None]
        if order != sorted(order):
            raise StackError(f"stack {self.name}: layers must grow with depth, got {order}")

    @property
    def n_layers(self) -> int:
        """Number of sensitive layers."""
        return len(self.cell_mm)

    @property
    def depth_mm(self) -> float:
        """Total thickness in mm."""
        return sum(slab.thickness_mm for slab in self.slabs)

    def fronts_mm(self) -> tuple[float, ...]:
        """Front of every slab in mm behind the front face."""
        z, fronts = 0.0, []
        for slab in self.slabs:
            fronts.append(z)
            z += slab.thickness_mm
        return tuple(fronts)

    def sensors(self) -> tuple[tuple[float, float, int], ...]:
        """Sensitive slabs from the front: (front in mm, thickness in mm, layer)."""
        return tuple(
            (z, slab.thickness_mm, slab.layer)
            for z, slab in zip(self.fronts_mm(), self.slabs, strict=True)
            if slab.layer is not None
        )


def place(parts: Sequence[tuple[float, Slab]]) -> tuple[Slab, ...]:
    """Slabs at given fronts (mm) as one gapless list, air between them; refuses overlaps."""
    slabs: list[Slab] = []
    z = 0.0
    for front, slab in sorted(parts, key=lambda part: part[0]):
        if front < z - TOUCH_MM:
            raise StackError(f"slab of {slab.material} at {front:.3f} mm begins inside the one before ({z:.3f} mm)")
        if front > z + TOUCH_MM:
            slabs.append(Slab(AIR, front - z))
        slabs.append(slab)
        z = front + slab.thickness_mm
    return tuple(slabs)


def stack_to_dict(stack: Stack) -> dict[str, Any]:
    """Plain description of a stack (JSON), with only the mixtures it uses."""
    used = {slab.material for slab in stack.slabs}
    return {
        "name": stack.name,
        "slabs": [[slab.material, slab.thickness_mm, slab.layer] for slab in stack.slabs],
        "cell_mm": list(stack.cell_mm),
        "subcells": list(stack.subcells),
        "front_mm": stack.front_mm,
        "field_tesla": list(stack.field_tesla),
        "detector": stack.detector,
        "response": stack.response,
        "materials": {
            name: {"density_g_cm3": m.density_g_cm3, "fractions": dict(m.fractions)}
            for name, m in sorted(stack.materials.items())
            if name in used
        },
    }


def stack_from_dict(d: Mapping[str, Any]) -> Stack:
    """The inverse of `stack_to_dict`."""
    x, y, z = d["field_tesla"]
    return Stack(
        name=d["name"],
        slabs=tuple(Slab(*slab) for slab in d["slabs"]),
        cell_mm=tuple(d["cell_mm"]),
        subcells=tuple(d["subcells"]),
        front_mm=d["front_mm"],
        field_tesla=(x, y, z),
        detector=d["detector"],
        response=d["response"],
        materials={name: Material(**m) for name, m in d["materials"].items()},
    )
