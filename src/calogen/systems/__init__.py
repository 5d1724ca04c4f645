"""The published systems, one readable file each; what is installed here by name."""

from __future__ import annotations

from pathlib import Path

import torch

from calogen.detector.geometry import Detector
from calogen.systems import allshowers, caloclouds, calodream, calohadronic, omnijet
from calogen.systems import system as _system
from calogen.systems.allshowers import AllShowers
from calogen.systems.caloclouds import CaloClouds
from calogen.systems.calodream import CaloDream
from calogen.systems.calohadronic import CaloHadronic
from calogen.systems.omnijet import OmniJet
from calogen.systems.system import Preset, System

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
"""Where the shipped states are."""

SYSTEMS: dict[str, type[System]] = {
    system.name: system for system in (CaloClouds, CaloHadronic, AllShowers, CaloDream, OmniJet)
}

PRESETS: dict[str, dict[str, Preset]] = {
    CaloClouds.name: caloclouds.PRESETS,
    CaloHadronic.name: calohadronic.PRESETS,
    AllShowers.name: allshowers.PRESETS,
    CaloDream.name: calodream.PRESETS,
    OmniJet.name: omnijet.PRESETS,
}
"""The presets of each system, its default first."""


def load(name_or_path: str | Path, *, detector: Detector | None = None, device: str | torch.device = "cpu") -> System:
    """A fitted system: a bare name is the state shipped with the package, anything else a path.

    >>> load("caloclouds3").name
    'caloclouds3'

    Raises:
        ValueError: no such state, a damaged one, or one for another detector.
    """
    return _system.load(name_or_path, SYSTEMS, weights_dir=WEIGHTS, detector=detector, device=device)


__all__ = ["PRESETS", "SYSTEMS", "Preset", "System", "load"]
