"""STACKS: the named stacks, and a user's own from a TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calogen.detector.catalog import BOX_30, CATALOG
from calogen.detector.geometry import CartesianCells, Detector, Layer
from calogen.geant4.ild import ild, ild_ecal
from calogen.geant4.par04 import calochallenge
from calogen.geant4.scoring import HALF_WIDTH_MM
from calogen.geant4.stack import MATERIALS, Material, Slab, Stack, StackError
from calogen.overrides import nearest

STACKS: dict[str, Callable[[], Stack]] = {
    "ild-ecal": ild_ecal,
    "ild": ild,
    "calochallenge-2": lambda: calochallenge("calochallenge-2"),
    "calochallenge-3": lambda: calochallenge("calochallenge-3"),
}

CUT_FROM = {BOX_30.name: "ild-ecal"}
"""Detectors that are some of the cells of another, which has a stack."""

DEFAULT_CELL_MM = 5.0
"""Readout pitch of a user's stack that gives none."""

DEFAULT_SUBCELLS = 5


def stack_named(name: str | os.PathLike[str]) -> Stack:
    """A stack by name, or from a user's `.toml` file.

    Raises ValueError for an unknown name, naming the known ones, or a file that does not describe a stack.
    """
    text = os.fspath(name)
    if text in STACKS:
        return STACKS[text]()
    if text.lower().endswith(".toml"):
        return stack_from_toml(text)
    can = f"Geant4 can simulate {', '.join(STACKS)}, or a .toml file with [[slab]] tables"
    if text in CATALOG:
        whole = CUT_FROM.get(text)
        instead = f"; simulate {whole} and convert with --voxels {text}" if whole else ""
        raise ValueError(f"detector {text!r} is known by its cells only, not by its materials: {can}{instead}")
    raise ValueError(f"no detector named {text!r}; {nearest(text, STACKS)}; {can}")


def stack_from_toml(path: str | os.PathLike[str]) -> Stack:
    """A user's stack.

    ``[[slab]]`` tables from the front: ``material`` (NIST ``G4_...``, "PCB", "CARBON_FIBRE", or own),
    ``thickness_mm``, ``layer`` where sensitive. ``[materials.NAME]``: ``density_g_cm3`` and
    ``fractions``. Top level: ``name``, ``cell_mm``, ``subcells``, ``field_tesla``.

    Raises ValueError naming the file and what is wrong with it.
    """
    where = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            d = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StackError(f"{where}: not a readable TOML file ({error})") from error
    try:
        return _stack(d, Path(path).stem)
    except (KeyError, TypeError, AttributeError) as error:
        raise StackError(
            f"{where}: {type(error).__name__} {error}; see [[slab]] material, thickness_mm, layer"
        ) from None
    except StackError as error:
        raise StackError(f"{where}: {error}") from error


def _stack(d: dict[str, Any], name: str) -> Stack:
    unknown = sorted(set(d) - {"name", "slab", "materials", "cell_mm", "subcells", "field_tesla"})
    if unknown:
        raise StackError(f"unknown key {unknown[0]!r}; known: name, slab, materials, cell_mm, subcells, field_tesla")
    own = {key: Material(**value) for key, value in d.get("materials", {}).items()}
    slabs = tuple(Slab(**slab) for slab in d["slab"])
    n_layers = len({slab.layer for slab in slabs} - {None})
    x, y, z = (float(component) for component in d.get("field_tesla", (0, 0, 0)))
    return Stack(
        name=str(d.get("name", name)),
        slabs=slabs,
        cell_mm=(float(d.get("cell_mm", DEFAULT_CELL_MM)),) * n_layers,
        subcells=(int(d.get("subcells", DEFAULT_SUBCELLS)),) * n_layers,
        field_tesla=(x, y, z),
        materials={**MATERIALS, **own},
    )


def detector_of(stack: Stack) -> Detector:
    """The detector a stack's showers belong to: the catalog's, or one with the stack's own layers."""
    if stack.detector:
        return CATALOG[stack.detector]
    spans: dict[int, tuple[float, float]] = {}
    for front, thickness, layer in stack.sensors():
        low = spans.get(layer, (front, 0.0))[0]
        spans[layer] = (low, front + thickness)
    return Detector(
        stack.name,
        tuple(
            Layer((low + high) / 2, high - low, "ecal", CartesianCells.centred(stack.cell_mm[i], HALF_WIDTH_MM))
            for i, (low, high) in sorted(spans.items())
        ),
    )
