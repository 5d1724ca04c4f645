"""The engine: Geant4 with one setup, shooting particles one by one; one engine a process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.geant4.deposits import Recorder
from calogen.geant4.environment import prepare
from calogen.geant4.geometry import geometry
from calogen.geant4.scoring import Steps
from calogen.geant4.setup import Setup
from calogen.units import MEV_PER_GEV

_SEED_BITS = 62  # the default engine (MixMax) takes a signed 64-bit seed, not 0


def event_seed(seed: int, event: int) -> int:
    """Seed of one event: depends on the run's seed and the event's number alone."""
    state = np.random.SeedSequence((seed, event)).generate_state(1, np.uint64)[0]
    return max(1, int(state) >> (64 - _SEED_BITS))


class Engine:
    """Geant4 with one setup. Geant4 allows one such object a process."""

    def __init__(self, setup: Setup) -> None:
        prepare(setup.hadronic)
        import geant4_pybind as g4

        self._setup = setup
        self._recorder = Recorder(setup)
        self._kept: list[Any] = []  # Geant4 holds bare pointers: Python must keep the objects alive
        self._manager = g4.G4RunManagerFactory.CreateRunManager(g4.G4RunManagerType.Serial)
        self._initialise(geometry(g4, setup, self._recorder))
        self._initialise(_physics(g4, setup))
        self._gun = _gun(g4)  # Geant4 wants the physics list first
        self._initialise(_actions(g4, self._gun))
        commands = g4.G4UImanager.GetUIpointer()
        for command in ("/process/em/verbose 0", "/process/had/verbose 0", "/run/verbose 0", "/tracking/verbose 0"):
            commands.ApplyCommand(command)
        self._manager.Initialize()
        self._manager.BeamOn(0)  # builds the physics tables, which would else be charged to the first shower

    def _initialise(self, part: Any) -> None:
        self._manager.SetUserInitialization(part)
        self._kept.append(part)

    def shoot(self, incident: Incident, seeds: Sequence[int]) -> Iterator[Steps]:
        """Simulate the particles one by one and yield their deposits; `seeds [N]` one per event."""
        self._setup.check(incident)
        for i, seed in enumerate(seeds):
            self._recorder.clear()
            self._gun.load(int(incident.pdg[i]), float(incident.energy[i]), incident.direction[i], seed)
            self._manager.BeamOn(1)
            yield self._recorder.steps()


def _physics(g4: Any, setup: Setup) -> Any:
    physics = _reference_list(g4, setup.physics) if setup.hadronic else _em_physics(g4)
    physics.SetVerboseLevel(0)
    physics.SetDefaultCutValue(setup.cut_mm * g4.mm)
    return physics


def _reference_list(g4: Any, name: str) -> Any:
    """A stock physics list. Geant4's factory cannot hand one over to the run manager from Python: use its class."""
    return vars(g4)[name]()


def _em_physics(g4: Any) -> Any:
    class Electromagnetic(g4.G4VModularPhysicsList):
        def __init__(self) -> None:
            super().__init__()
            self.kept = g4.G4EmStandardPhysics()
            self.RegisterPhysics(self.kept)

    return Electromagnetic()


def _gun(g4: Any) -> Any:
    class Gun(g4.G4VUserPrimaryGeneratorAction):
        """One particle an event from the origin, the middle of the front face."""

        def __init__(self) -> None:
            super().__init__()
            self.gun = g4.G4ParticleGun(1)
            self.seed = 0

        def load(self, pdg: int, energy_gev: float, direction: NDArray[Any], seed: int) -> None:
            particle = g4.G4ParticleTable.GetParticleTable().FindParticle(pdg)
            if particle is None:
                raise ValueError(f"pdg {pdg} is unknown to this physics list")
            self.gun.SetParticleDefinition(particle)
            self.gun.SetParticleEnergy(energy_gev * MEV_PER_GEV)
            self.gun.SetParticlePosition(g4.G4ThreeVector(0, 0, 0))
            self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(*(float(v) for v in direction)))
            self.seed = seed

        def GeneratePrimaries(self, event: Any) -> None:
            g4.HepRandom.setTheSeed(self.seed)
            self.gun.GeneratePrimaryVertex(event)

    return Gun()


def _actions(g4: Any, gun: Any) -> Any:
    class Actions(g4.G4VUserActionInitialization):
        def Build(self) -> None:
            self.SetUserAction(gun)

    return Actions()
