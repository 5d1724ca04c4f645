"""The one place that touches Geant4: geometry, physics, gun and sensors of a stack, one engine a process."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.data.incident import Incident
from calogen.geant4.environment import prepare
from calogen.geant4.scoring import HALF_WIDTH_MM, Steps
from calogen.geant4.stack import AIR, Stack
from calogen.units import GEV_PER_MEV, MEV_PER_GEV

EM = "em"
"""Name of the electromagnetic-only physics (G4EmStandardPhysics, option 0)."""

EM_PDG = frozenset({22, 11, -11, 13, -13})
"""What electromagnetic physics alone describes; anything else needs a reference list with hadrons."""

HALF_SIZE_MM = 2000.0
"""Half width of the slabs: beyond the positions that are kept, so that no edge is seen."""

UNQUENCHED = frozenset({"G4_Si"})
"""Sensitive materials whose signal is charge: Birks' law does not apply to them."""

_SEED_BITS = 62  # the default engine (MixMax) takes a signed 64-bit seed, not 0


@dataclass(frozen=True)
class Setup:
    """What Geant4 simulates besides the particles.

    ``physics`` "em" or a reference list; ``field_tesla`` in the local frame (None: the stack's own);
    ``cut_mm`` production cut; ``time_cut_ns`` deposits later are dropped; ``birks_mm_per_mev`` Birks' constant
    of the sensitive materials that scintillate (polystyrene 0.126).
    """

    stack: Stack
    physics: str = EM
    field_tesla: tuple[float, float, float] | None = None
    cut_mm: float = 0.7
    time_cut_ns: float | None = None
    birks_mm_per_mev: float | None = None

    def __post_init__(self) -> None:
        for name in ("cut_mm", "time_cut_ns", "birks_mm_per_mev"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} {value} must be positive")

    @property
    def field(self) -> tuple[float, float, float]:
        """The magnetic field in tesla."""
        return self.stack.field_tesla if self.field_tesla is None else self.field_tesla

    @property
    def hadronic(self) -> bool:
        """Whether the physics list holds hadronic processes."""
        return self.physics != EM

    def check(self, incident: Incident) -> None:
        """Refuse particles the physics list does not describe."""
        unknown = sorted({int(code) for code in np.unique(incident.pdg)} - EM_PDG)
        if not self.hadronic and unknown:
            raise ValueError(
                f"physics 'em' does not describe pdg {unknown[0]}: choose a reference list such as FTFP_BERT"
            )


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
        self._recorder = _Recorder(timed=setup.time_cut_ns is not None or setup.birks_mm_per_mev is not None)
        self._kept: list[Any] = []  # Geant4 holds bare pointers: Python must keep the objects alive
        self._manager = g4.G4RunManagerFactory.CreateRunManager(g4.G4RunManagerType.Serial)
        self._initialise(_geometry(g4, setup, self._recorder))
        self._initialise(_physics(g4, setup))
        self._gun = _gun(g4)  # Geant4 wants the physics list first
        self._initialise(_actions(g4, self._gun))
        commands = g4.G4UImanager.GetUIpointer()
        for command in ("/process/em/verbose 0", "/process/had/verbose 0", "/run/verbose 0", "/tracking/verbose 0"):
            commands.ApplyCommand(command)
        self._manager.Initialize()
        self._manager.BeamOn(0)  # builds the physics tables, which would else be charged to the first shower
        self._layer = _LayerFinder(setup)

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
            yield self._steps()

    def _steps(self) -> Steps:
        setup, columns = self._setup, self._recorder.table()
        x, y, z, energy = columns.T[:4]
        slab = self._layer.slab(z)
        time = None
        if columns.shape[1] > 4:
            time, length = columns.T[4:]
            if setup.birks_mm_per_mev is not None:
                energy = _quench(energy, length, setup.birks_mm_per_mev * self._layer.quenched[slab])
        energy = energy * (GEV_PER_MEV * setup.stack.response)
        keep = _near(x, y)
        if setup.time_cut_ns is not None and time is not None:
            keep &= time <= setup.time_cut_ns
        return Steps(x[keep], y[keep], self._layer.layer[slab][keep], energy[keep])


def _near(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a deposit is within the kept positions."""
    return (np.abs(x) <= HALF_WIDTH_MM) & (np.abs(y) <= HALF_WIDTH_MM)


def _quench(energy: NDArray[Any], length: NDArray[Any], birks: NDArray[Any]) -> NDArray[Any]:
    """Birks' law, dE / (1 + kB dE/dx), where a step has a length."""
    density = np.divide(energy, length, out=np.zeros_like(energy), where=length > 0)
    return energy / (1.0 + birks * density)


class _LayerFinder:
    """The sensitive slab of a depth: the nearest one, so that steps on a surface find theirs."""

    def __init__(self, setup: Setup) -> None:
        sensors = setup.stack.sensors()
        middle = np.array([front + thickness / 2 for front, thickness, _ in sensors])
        self._bounds = (middle[1:] + middle[:-1]) / 2
        self.layer = np.array([layer for _, _, layer in sensors], dtype=np.int64)
        materials = [slab.material for slab in setup.stack.slabs if slab.layer is not None]
        self.quenched = np.array([material not in UNQUENCHED for material in materials], dtype=np.float64)

    def slab(self, z: NDArray[Any]) -> NDArray[np.int64]:
        return np.searchsorted(self._bounds, z)


@dataclass
class _Recorder:
    """Deposits of the event under way as one flat array of doubles."""

    timed: bool
    values: array[float] = field(default_factory=lambda: array("d"))

    @property
    def width(self) -> int:
        """Numbers a deposit: x, y, z, energy (MeV), and where asked for time (ns) and step length (mm)."""
        return 6 if self.timed else 4

    def clear(self) -> None:
        del self.values[:]

    def table(self) -> NDArray[np.float64]:
        """Deposits as `[S, width]`."""
        return np.array(self.values, dtype=np.float64).reshape(-1, self.width)


def _scorer(g4: Any, name: str, recorder: _Recorder) -> Any:
    """Scorer that records deposits.

    It is called for every step of an accepted particle in a sensor, and is the only Python in Geant4's loop:
    Geant4 reuses one step and one step point for a whole run, so their bound methods are looked up once.
    """
    extend = recorder.values.extend
    timed = recorder.timed

    class Scorer(g4.G4VPrimitiveScorer):
        def __init__(self) -> None:
            super().__init__(name)
            self.step: Any = None

        def ProcessHits(self, step: Any, history: Any) -> bool:
            if step is not self.step:
                self.step, self.point = step, step.GetPreStepPoint()
                self.deposit, self.length = step.GetTotalEnergyDeposit, step.GetStepLength
                self.position, self.time = self.point.GetPosition, self.point.GetGlobalTime
            energy = self.deposit()
            if energy:
                p = self.position()
                extend((p.x, p.y, p.z, energy, self.time(), self.length()) if timed else (p.x, p.y, p.z, energy))
            return True

    return Scorer()


def _geometry(g4: Any, setup: Setup, recorder: _Recorder) -> Any:
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
            parts = _sensor(g4, recorder, setup.hadronic)
            self.kept += parts
            for logical in self.sensitive:
                self.SetSensitiveDetector(logical, parts[-1])
            if any(setup.field):
                self.kept.append(_switch_on_field(g4, setup.field))

    return Geometry()


def _sensor(g4: Any, recorder: _Recorder, hadronic: bool) -> list[Any]:
    """The sensitive detector, last in the list of the objects that make it.

    It is fed by charged particles (and neutrons) only, which Geant4 decides before it calls Python: three of
    four steps in a sensor are photons', with 7e-5 of the energy (measured, 30 GeV photons in the ILD ECal).
    Neutrons leave recoils too soft to be tracked.
    """
    filters = [g4.G4SDChargedFilter("charged")]
    if hadronic:
        filters.append(g4.G4SDParticleFilter("neutron", "neutron"))
    sensor = g4.G4MultiFunctionalDetector("sensor")
    scorers = [_scorer(g4, f"deposits-{i}", recorder) for i in range(len(filters))]
    for scorer, chosen in zip(scorers, filters, strict=True):
        scorer.SetFilter(chosen)
        sensor.RegisterPrimitive(scorer)
    return [*filters, *scorers, sensor]


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


def _physics(g4: Any, setup: Setup) -> Any:
    physics = _reference_list(g4, setup.physics) if setup.hadronic else _em_physics(g4)
    physics.SetVerboseLevel(0)
    physics.SetDefaultCutValue(setup.cut_mm * g4.mm)
    return physics


def _reference_list(g4: Any, name: str) -> Any:
    """A stock physics list. Geant4's factory cannot hand one over to the run manager from Python: use its class."""
    found = vars(g4).get(name)
    if found is None or not g4.G4PhysListFactory().IsReferencePhysList(name):
        raise ValueError(f"physics {name!r} is not 'em' nor a Geant4 reference list such as FTFP_BERT")
    return found()


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
