"""Linearity and resolution of generated showers against Geant4 in windows of incident energy.

    python benchmarks/windows.py GENERATED.h5 TRUTH.h5 [--at 15 50 85] [--half-width 5]

Visible (after projection) over incident energy of the showers within the half width of each energy, GeV: mean and
sigma / mean of the central 90 % (`calogen.evaluate.response`), the generated over Geant4's, with errors from drawing
showers again. Both files should have the same particles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import calogen
from calogen.data.projection import project
from calogen.evaluate.response import resolution

DRAWS = 200


def fractions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Incident energy [N] GeV and visible over incident energy [N]."""
    showers = project(calogen.read(path)).showers
    return showers.incident.energy, showers.visible_energy / showers.incident.energy


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--at", type=float, nargs="+", default=[15.0, 50.0, 85.0])
    parser.add_argument("--half-width", type=float, default=5.0)
    options = parser.parse_args()
    samples = [fractions(path) for path in (options.generated, options.truth)]
    rng = np.random.default_rng(0)
    print(f"{'GeV':>6}{'showers':>9}{'mean ratio':>20}{'sigma/mean ratio':>22}{'Geant4 sigma/mean':>19}")
    for energy in options.at:
        parts = [visible[np.abs(e - energy) <= options.half_width] for e, visible in samples]
        draws = [[resolution(rng.choice(part, len(part))) for part in parts] for _ in range(DRAWS)]
        cells = f"{energy:6g}{len(parts[1]):9d}"
        found = [resolution(part) for part in parts]
        for name, width in (("mean", 12), ("value", 14)):
            ratio = getattr(found[0], name) / getattr(found[1], name)
            spread = np.std([getattr(a, name) / getattr(b, name) for a, b in draws])
            cells += f"{ratio:{width}.3f} +- {spread:.3f}"
        print(cells + f"{found[1].value:15.3f}", flush=True)


if __name__ == "__main__":
    main()
