"""What scoring costs: CPU time of the same showers with and without the sensitive detector.

    GEANT4_DATA_DIR=... python benchmarks/geant4_scoring.py --showers 30 --energy 30

Every round runs both in fresh processes (Geant4 is one object a process), one after the other; the cost is the
median over rounds of (with - without) / with, merging into points included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np

import calogen.geant4.geometry as geometry_module
from calogen.data.incident import Incident
from calogen.geant4.engine import Engine, event_seed
from calogen.geant4.scoring import merge, subcell_mm
from calogen.geant4.setup import Setup
from calogen.geant4.stacks import stack_named


def cpu_seconds(n: int, energy_gev: float, scored: bool) -> float:
    """CPU seconds of `n` photons in the ILD ECal."""
    if not scored:
        geometry_module.sensor = lambda g4, recorder, setup: [g4.G4MultiFunctionalDetector("idle")]
    stack = stack_named("ild-ecal")
    engine = Engine(Setup(stack))
    sizes = subcell_mm(stack)
    incident = Incident.gun(n, energy=energy_gev)
    started = time.process_time()
    for steps in engine.shoot(incident, [event_seed(1, i) for i in range(n)]):
        merge(steps, sizes, np.array([0.5, 0.5]))
    return time.process_time() - started


def child(n: int, energy_gev: float, scored: bool) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--showers", str(n), "--energy", str(energy_gev), "--child", str(int(scored))]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(out.split()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--showers", type=int, default=30)
    parser.add_argument("--energy", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(cpu_seconds(options.showers, options.energy, bool(options.child)), flush=True)
        return
    costs = []
    for _ in range(options.rounds):
        with_, without = (child(options.showers, options.energy, scored) for scored in (True, False))
        costs.append(1 - without / with_)
        a, b = with_ / options.showers, without / options.showers
        print(f"with {a:.3f} s, without {b:.3f} s a shower: {100 * costs[-1]:.1f} %", flush=True)
    print(f"scoring costs {100 * float(np.median(costs)):.1f} % of the time")


if __name__ == "__main__":
    main()
