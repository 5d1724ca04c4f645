"""Time and peak memory of the distances between two samples of 50,000 showers with 362 features (CaloChallenge, DS2).

OMP_NUM_THREADS=1 python benchmarks/frechet.py [SHOWERS] [FEATURES]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from calogen.bench import peak_mb
from calogen.evaluate.frechet import fpd, kpd
from calogen.evaluate.frechet_scores import frechet_score, kernel_score
from calogen.evaluate.memorisation import memorisation
from calogen.evaluate.neighbours import prdc
from calogen.evaluate.sliced import sliced_score

SHOWERS, FEATURES = 50_000, 362
FEW = 10_000
"""Showers of those whose time grows with the square: the CaloChallenge's batch of the KPD."""

CALLS = {
    "samples": lambda a, b: None,
    "fpd": fpd,
    "kpd": kpd,
    "frechet_score": frechet_score,
    "kernel_score": kernel_score,
    "sliced_score": sliced_score,
    f"prdc, {FEW:,}": lambda a, b: prdc(a[:FEW], b[:FEW]),
    f"memorisation, {FEW:,}": lambda a, b: memorisation(b[:FEW], a[FEW:], a[:FEW]),
}


def sample(n: int, d: int, seed: int) -> NDArray[np.float32]:
    """Correlated features, from a matrix that both samples share."""
    mix = np.random.default_rng(0).normal(size=(d, d)) / np.sqrt(d)
    return (np.random.default_rng(seed).normal(size=(n, d)) @ mix).astype(np.float32)


def one(name: str, n: int, d: int) -> None:
    a, b = sample(n, d, 1), sample(n, d, 2)
    before, elapsed, cpu = peak_mb(), time.perf_counter(), time.process_time()
    found = CALLS[name](a, b)
    elapsed, cpu = time.perf_counter() - elapsed, time.process_time() - cpu
    print(f"{name:20} {elapsed:8.1f} s {cpu:8.1f} s CPU {peak_mb():8.0f} MB ({before:.0f} MB before)", found or "")


def main() -> None:
    if len(sys.argv) > 3:
        one(sys.argv[3], int(sys.argv[1]), int(sys.argv[2]))
        return
    n, d = (int(v) for v in (sys.argv + [str(SHOWERS), str(FEATURES)][len(sys.argv) - 1 :])[1:3])
    print(f"{n:,} x {d}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    for name in CALLS:  # Each in a process of its own, for its own peak.
        subprocess.run([sys.executable, __file__, str(n), str(d), name], check=True)


if __name__ == "__main__":
    main()
