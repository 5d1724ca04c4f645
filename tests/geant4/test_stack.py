"""Stacks: positions, named ones against the catalog, a user's TOML, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from calogen.detector.catalog import CATALOG
from calogen.geant4.stack import Material, Slab, Stack, place, stack_from_dict, stack_to_dict
from calogen.geant4.stacks import STACKS, detector_of, stack_named

SANDWICH = """
name = "sandwich"
cell_mm = 10.0
subcells = 2
field_tesla = [0, 0, 1]
[materials.foam]
density_g_cm3 = 0.1
fractions = { C = 0.9, H = 0.1 }
[[slab]]
material = "G4_Pb"
thickness_mm = 5
[[slab]]
material = "G4_Si"
thickness_mm = 0.5
layer = 0
[[slab]]
material = "foam"
thickness_mm = 2
[[slab]]
material = "G4_Si"
thickness_mm = 0.5
layer = 1
"""


@pytest.mark.parametrize("name", STACKS)
def test_named_stacks_put_their_sensors_where_the_catalog_has_them(name: str) -> None:
    stack = stack_named(name)
    detector = CATALOG[stack.detector]
    middles: dict[int, list[float]] = {}
    for front, thickness, layer in stack.sensors():
        middles.setdefault(layer, []).append(front + thickness / 2)
    z = np.array([np.mean(middles[layer]) for layer in range(detector.n_layers)])
    # A layer of CaloChallenge begins with tungsten: its silicon lies behind the layer's middle, within the layer.
    tolerance = 1.0 if name.startswith("calochallenge") else 1e-3
    np.testing.assert_allclose(z, detector.z_mm, atol=tolerance)


@pytest.mark.parametrize("name", STACKS)
def test_description_round_trips(name: str) -> None:
    stack = stack_named(name)
    again = stack_from_dict(stack_to_dict(stack))
    assert stack_to_dict(again) == stack_to_dict(stack)
    assert again.slabs == stack.slabs


def test_users_stack_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "sandwich.toml"
    path.write_text(SANDWICH)
    stack = stack_named(str(path))
    assert stack.sensors() == ((5.0, 0.5, 0), (7.5, 0.5, 1))
    assert stack.field_tesla == (0.0, 0.0, 1.0)
    detector = detector_of(stack)
    np.testing.assert_allclose(detector.z_mm, [5.25, 7.75])
    assert detector.name == "sandwich"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("thickness_mm = 5", "thickness_mm = -5"), "not positive"),
        (("layer = 1", "layer = 3"), "none missing"),
        (("cell_mm", "cells_mm"), "unknown key"),
        (("thickness_mm = 2", "depth_mm = 2"), "depth_mm"),
        (("density_g_cm3 = 0.1", "density_g_cm3 = 0"), "g/cm3"),
        (("[[slab]]", "[[slab"), "TOML"),
    ],
)
def test_a_wrong_toml_gets_one_line_with_its_name(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(SANDWICH.replace(*change))
    with pytest.raises(ValueError, match=message) as refusal:
        stack_named(str(path))
    assert "wrong.toml" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_unknown_stack_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="ild-ecal"):
        stack_named("ild-hcal")


def test_overlapping_slabs_are_refused() -> None:
    with pytest.raises(ValueError, match="inside the one before"):
        place([(0.0, Slab("G4_W", 2.0)), (1.0, Slab("G4_Si", 0.5, 0))])


def test_air_fills_the_gaps() -> None:
    slabs = place([(1.0, Slab("G4_W", 2.0)), (4.0, Slab("G4_Si", 0.5, 0))])
    assert [slab.material for slab in slabs] == ["G4_AIR", "G4_W", "G4_AIR", "G4_Si"]
    assert sum(slab.thickness_mm for slab in slabs) == pytest.approx(4.5)


def test_a_stack_needs_a_sensor_and_a_material_positive_fractions() -> None:
    with pytest.raises(ValueError, match="sensitive"):
        Stack("dead", (Slab("G4_W", 1.0),), (), ())
    with pytest.raises(ValueError, match="fractions"):
        Material(1.0, {"C": -1.0})
