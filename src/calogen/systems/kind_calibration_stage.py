"""How the calibration by kind is fitted: sample, project, compare, correct."""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.systems.calibration import per_layer_after_projection
from calogen.systems.cloud_view import CloudView
from calogen.systems.drawing import ImpossibleProfileError
from calogen.systems.kind_calibration import KindCalibration, Quantity, Seen
from calogen.train import Plan, SolvedStage

SHOWERS = 1050
"""150 of each of seven kinds: shares seen / drawn are then known to a per cent."""
ROUNDS = 3
"""The third moves what the first two left by less than a per cent, in trained systems."""
STILL = 0.05
"""A factor that moves by more than this in the last round is reported."""


class Calibrated(Protocol):
    """What the stage needs of a system."""

    calibration: KindCalibration
    view: CloudView

    def sample(self, incident: Incident, *, seed: int) -> Showers:
        """See `System`."""
        ...


class KindCalibrateStage(SolvedStage):
    """Fit the factors on counts and energies so that hits and visible energy match Geant4 after projection.

    Args:
        system: the system.
        plan: of which the seed is used.
        energies: False leaves the energies as the points have them (systems that draw no layer energies).
    """

    name = "calibrate"

    def __init__(self, system: Calibrated, plan: Plan, *, energies: bool = True) -> None:
        self.system, self.plan, self.energies = system, plan, energies
        self.model = system.calibration

    def solve(self, train: Showers, validation: Showers | None) -> None:
        """A few rounds; a system whose layers cannot be drawn keeps factors of one, with a warning."""
        self.forget(train)
        try:
            self._solve(train)
        except ImpossibleProfileError as error:
            self.forget(train)
            warnings.warn(f"not calibrated: {error}", stacklevel=2)

    def forget(self, train: Showers) -> None:
        """Back to factors of one."""
        self.system.calibration.set_scale(train.incident)

    def known(self, incident: Incident) -> Incident:
        """The particles as the calibration tells them apart."""
        return incident

    def also(self, made: Showers, truth: Showers) -> None:
        """What else a system corrects in each round, from generated and true showers of the same particles."""

    def _solve(self, train: Showers) -> None:
        calibration = self.system.calibration
        chosen = np.random.default_rng(self.plan.seed).permutation(len(train))[:SHOWERS]
        truth = train[np.sort(chosen)]
        viewed, (hits, energy) = self.system.view(truth), per_layer_after_projection(truth)
        true = {"occupancy": Seen(viewed.counts_per_layer, hits), "energy": Seen(viewed.energy_per_layer, energy)}
        moved = 0.0
        for _ in range(ROUNDS):
            made = self.system.sample(truth.incident, seed=self.plan.seed)
            hits, energy = per_layer_after_projection(made)
            own = {"occupancy": (made.counts_per_layer, hits), "energy": (made.energy_per_layer, energy)}
            quantities: tuple[Quantity, ...] = ("occupancy", "energy") if self.energies else ("occupancy",)
            incident = self.known(truth.incident)
            factors = {q: calibration.factor(q, incident) for q in quantities}
            steps = [
                calibration.improve(q, incident, Seen(own[q][0] / factors[q], own[q][1]), true[q]) for q in quantities
            ]
            moved = max(steps)
            self.also(made, truth)
        if moved > STILL:
            warnings.warn(
                f"calibration still moved by {moved:.0%} (limit {STILL:.0%}) after {ROUNDS} rounds: train longer",
                stacklevel=2,
            )
