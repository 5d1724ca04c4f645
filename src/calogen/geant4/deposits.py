"""Deposits of an event: recorded in Geant4's loop at the least cost, turned into steps by numpy."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calogen.geant4.scoring import Steps
from calogen.geant4.setup import Setup
from calogen.units import GEV_PER_MEV

UNQUENCHED = frozenset({"G4_Si"})
"""Sensitive materials whose signal is charge: Birks' law does not apply to them."""

LIGHT = frozenset({"G4_Si", "G4_POLYSTYRENE", "G4_PLASTIC_SC_VINYLTOLUENE"})
"""Sensitive materials in which photons themselves deposit next to nothing: binding energies below 2 keV."""


class Recorder:
    """Deposits of the event under way as one flat array of doubles."""

    def __init__(self, setup: Setup) -> None:
        self.values = array("d")
        self.timed = setup.time_cut_ns is not None or setup.birks_mm_per_mev is not None or setup.keep_time
        self._setup = setup
        self._sensors = _Sensors(setup)

    @property
    def width(self) -> int:
        """Numbers a deposit: x, y, z, energy (MeV), and where asked for time (ns) and step length (mm)."""
        return 6 if self.timed else 4

    def clear(self) -> None:
        """Forget the deposits: a new event begins."""
        del self.values[:]

    def steps(self) -> Steps:
        """The event's deposits in GeV, quenched and cut in time as the setup says."""
        setup = self._setup
        columns = np.array(self.values, dtype=np.float64).reshape(-1, self.width).T
        x, y, z, energy = columns[:4]
        hit = self._sensors.at(z)
        if setup.birks_mm_per_mev is not None:
            energy = _quench(energy, columns[5], setup.birks_mm_per_mev * self._sensors.quenched[hit])
        energy = energy * (GEV_PER_MEV * setup.stack.response)
        steps = Steps(x, y, self._sensors.layer[hit], energy, columns[4] if setup.keep_time else None)
        if setup.time_cut_ns is None:
            return steps
        early = columns[4] <= setup.time_cut_ns
        return Steps(*(None if column is None else column[early] for column in steps))  # type: ignore[arg-type]


def _quench(energy: NDArray[Any], length: NDArray[Any], birks: NDArray[Any]) -> NDArray[Any]:
    """Birks' law, dE / (1 + kB dE/dx), where a step has a length."""
    density = np.divide(energy, length, out=np.zeros_like(energy), where=length > 0)
    return energy / (1.0 + birks * density)


class _Sensors:
    """The sensitive slab of a depth: the nearest one, so that steps on a surface find theirs."""

    def __init__(self, setup: Setup) -> None:
        sensors = setup.stack.sensors()
        middle = np.array([front + thickness / 2 for front, thickness, _ in sensors])
        self._bounds = (middle[1:] + middle[:-1]) / 2
        self.layer = np.array([layer for _, _, layer in sensors], dtype=np.int64)
        materials = [slab.material for slab in setup.stack.slabs if slab.layer is not None]
        self.quenched = np.array([material not in UNQUENCHED for material in materials], dtype=np.float64)

    def at(self, z: NDArray[Any]) -> NDArray[np.int64]:
        return np.searchsorted(self._bounds, z)


def _scorer(g4: Any, name: str, recorder: Recorder) -> Any:
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


def sensor(g4: Any, recorder: Recorder, setup: Setup) -> list[Any]:
    """The sensitive detector, last in the list of the objects that make it.

    Where all sensors are light it is fed by charged particles (and neutrons, whose recoils are too soft to be
    tracked) only, which Geant4 decides before it calls Python: three of four steps in silicon are photons',
    with 7e-5 of the energy (measured, 30 GeV photons in the ILD ECal).
    """
    filters: list[Any] = [None]
    if {slab.material for slab in setup.stack.slabs if slab.layer is not None} <= LIGHT:
        filters = [g4.G4SDChargedFilter("charged")]
        if setup.hadronic:
            filters.append(g4.G4SDParticleFilter("neutron", "neutron"))
    detector = g4.G4MultiFunctionalDetector("sensor")
    scorers = [_scorer(g4, f"deposits-{i}", recorder) for i in range(len(filters))]
    for scorer, chosen in zip(scorers, filters, strict=True):
        if chosen is not None:
            scorer.SetFilter(chosen)
        detector.RegisterPrimitive(scorer)
    return [*filters, *scorers, detector]
