"""Points a second through projection into 5 mm cells, one thread.

OMP_NUM_THREADS=1 python benchmarks/projection.py [FILE]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from calogen import read
from calogen.data.projection import project
from calogen.data.voxels import Voxels

SHIPPED = Path(__file__).resolve().parents[1] / "src" / "calogen" / "samples" / "photons.h5"
REPEATS = 5


def main() -> None:
    showers = read(sys.argv[1] if len(sys.argv) > 1 else SHIPPED)
    assert not isinstance(showers, Voxels)
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        project(showers)
        times.append(time.process_time() - start)
    print(f"{showers.n_points:,} points, {showers.n_points / min(times) / 1e6:.1f} million points a CPU second")


if __name__ == "__main__":
    main()
