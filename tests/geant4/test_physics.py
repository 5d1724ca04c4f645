"""Simulated showers against published histograms and textbook formulae; errors allow for the small samples."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.geant4.ild import PLATES_MM
from calogen.geant4.run import make_request, run_shards, simulate
from calogen.geant4.stack import Slab, Stack
from calogen.geant4.stacks import stack_named

REFERENCE_SHOWERS = 100_000
CORE = slice(9, 20)
"""Layers around the shower maximum, where 24 showers know the energy to 8 %."""

X0_MM = {"G4_W": 3.504, "G4_Si": 93.7, "G4_Cu": 14.36, "PCB": 194.0, "CARBON_FIBRE": 285.0, "G4_AIR": 3.04e5}
CRITICAL_GEV = {"G4_W": 8.0e-3, "G4_Si": 40e-3, "G4_Cu": 19.4e-3, "PCB": 45e-3, "CARBON_FIBRE": 82e-3, "G4_AIR": 88e-3}
IRON_PION_LENGTH_MM = 204.2
POLYSTYRENE_PION_LENGTH_MM = 1072.0
"""Radiation lengths, critical energies and pion interaction lengths of the PDG's table of material properties."""


def reference_layers(shared: Path) -> NDArray[np.float64]:
    """Energy per layer and shower (GeV) of 100,000 photons in the full ILD."""
    with np.load(shared / "reference" / "ild_geant4_histograms.npz") as histograms:
        return histograms["counts_3"] / REFERENCE_SHOWERS


def weighted(showers: Showers) -> NDArray[np.float64]:
    """Energy seen by each shower, each layer weighted with the tungsten in front of it."""
    return showers.energy_per_layer @ (np.array(PLATES_MM) / PLATES_MM[0])


def test_visible_energy_and_layers_agree_with_the_full_ild(perpendicular: Showers, shared: Path) -> None:
    layers = perpendicular.energy_per_layer.mean(axis=0)
    reference = reference_layers(shared)
    assert layers.sum() == pytest.approx(reference.sum(), rel=0.02)  # 1 % with more showers: see benchmarks
    np.testing.assert_allclose(layers[CORE] / reference[CORE], 1.0, atol=0.20)
    depth = np.arange(len(layers))
    assert depth @ layers / layers.sum() == pytest.approx(depth @ reference / reference.sum(), abs=0.6)


def test_odd_layers_see_more_than_even_ones_as_in_the_full_ild(perpendicular: Showers, shared: Path) -> None:
    def odd_to_even(layers: NDArray[np.float64]) -> float:
        neighbours = (layers[4:20:2] + layers[6:22:2]) / 2
        return float(np.mean(layers[5:21:2] / neighbours))

    layers = perpendicular.energy_per_layer.mean(axis=0)
    assert odd_to_even(layers) == pytest.approx(odd_to_even(reference_layers(shared)), abs=0.04)


def test_response_is_linear(perpendicular: Showers) -> None:
    ratio = weighted(perpendicular) / perpendicular.incident.energy
    low, high = ratio[:12].mean(), ratio[12:].mean()
    assert high / low == pytest.approx(1.0, abs=0.03)


def test_resolution_is_that_of_silicon_and_tungsten(perpendicular: Showers) -> None:
    energy = perpendicular.incident.energy
    ratio = weighted(perpendicular) / energy
    spread = np.std((ratio / ratio.mean() - 1) * np.sqrt(energy))
    assert 0.11 < spread < 0.23  # 16 to 17 %/sqrt(E), known to 15 % with 24 showers


def test_shower_maximum_follows_the_pdg_formula(perpendicular: Showers) -> None:
    slabs = stack_named("ild-ecal").slabs
    lengths = np.array([slab.thickness_mm / X0_MM[slab.material] for slab in slabs])
    critical_gev = np.average([CRITICAL_GEV[slab.material] for slab in slabs], weights=lengths)
    behind = np.cumsum(lengths)
    x0 = np.array([depth for depth, slab in zip(behind, slabs, strict=True) if slab.layer is not None])
    layers = perpendicular.energy_per_layer.mean(axis=0)
    pairs = (layers[0::2] + layers[1::2]) / 2

    def profile(t: NDArray[np.float64], scale: float, a: float, b: float) -> NDArray[np.float64]:
        return scale * t ** (a - 1) * np.exp(-b * t)

    depth = (x0[0::2] + x0[1::2]) / 2
    (_, a, b), _ = curve_fit(profile, depth, pairs, p0=(0.01, 5.0, 0.5))
    mean_log_energy = np.average(np.log(perpendicular.incident.energy), weights=perpendicular.incident.energy)
    expected = mean_log_energy - np.log(critical_gev) + 0.5  # PDG: photons
    assert (a - 1) / b == pytest.approx(expected, abs=1.2)


@pytest.mark.parametrize("material", ["G4_Pb", "G4_POLYSTYRENE"])
def test_energy_is_conserved_in_a_calorimeter_that_sees_all(geant4: Path, material: str) -> None:
    depth_mm = {"G4_Pb": 300.0, "G4_POLYSTYRENE": 12000.0}[material]  # 53 and 29 radiation lengths
    block = Stack("block", (Slab(material, depth_mm, 0),), (10.0,), (1,))
    showers = simulate(block, Incident.gun(8, energy=0.3), seed=1, shard_size=8)
    assert showers.visible_energy.mean() == pytest.approx(0.3, rel=0.02)
    assert showers.visible_energy.max() <= 0.3 * 1.001


def test_pions_interact_after_their_interaction_length(geant4: Path) -> None:
    """Pions that leave no more than a track in any tile have not interacted."""
    tiles, iron_mm, tile_mm = 10, 20.0, 3.0
    slabs = tuple(s for i in range(tiles) for s in (Slab("G4_Fe", iron_mm), Slab("G4_POLYSTYRENE", tile_mm, i)))
    stack = Stack("tiles", slabs, (30.0,) * tiles, (1,) * tiles)
    n = 240
    pions = Incident.gun(n, pdg=211, energy=4.0)
    showers = simulate(stack, pions, seed=5, physics="FTFP_BERT", shard_size=n)
    tile_gev = showers.energy_per_layer
    track_gev = 0.5e-3  # most probable loss of a track in 3 mm
    behind = tile_gev[:, -3:]
    is_track = (np.median(tile_gev, axis=1) < 2 * track_gev) & (np.median(behind, axis=1) < 2 * track_gev)
    through = is_track & (behind > 0.5 * track_gev).all(axis=1)
    survivors = through.mean()
    expected = np.exp(-tiles * (iron_mm / IRON_PION_LENGTH_MM + tile_mm / POLYSTYRENE_PION_LENGTH_MM))
    assert survivors == pytest.approx(expected, abs=0.10)


def test_calochallenge_voxels_come_straight_from_the_deposits(geant4: Path) -> None:
    request = make_request("calochallenge-2", Incident.gun(4, pdg=11, energy=5.0), seed=3, shard_size=4, voxels=True)
    (shard,) = run_shards(request)
    assert shard.voxels is not None
    assert shard.voxels.energy.shape == (4, 6480)
    ratio = shard.voxels.energy.sum(axis=1) / shard.showers.visible_energy
    assert np.all((ratio > 0.8) & (ratio <= 1.001))  # the rest lies outside the rings or below threshold
    assert shard.showers.visible_energy.mean() == pytest.approx(5.0, rel=0.15)


def test_stack_named_is_what_simulate_takes_for_a_detector(perpendicular: Showers) -> None:
    assert perpendicular.detector.name == stack_named("ild-ecal").detector
    assert np.abs(perpendicular.x).max() <= 1500
