"""Energies of layers by each solver of a CaloDREAM state: how well a classifier tells their ratios from Geant4's.

    OMP_NUM_THREADS=1 python benchmarks/layer_energies.py STATE TRUTH.h5 [--repeats 5] [--full 50]

Draws the layers of the truth's particles with the stored bespoke solvers, with few steps of common ones and with the
published 50 steps of the 3/8 rule (200 evaluations of each layer). The classifier is the judge's small network on the
ratios u as the flow learns them, with the incident energy; its floor is two halves of the truth. Same noise for all.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import calogen
from calogen.cli.files import points
from calogen.data.formats import batches
from calogen.data.showers import Showers
from calogen.evaluate.classifier import classify_repeats
from calogen.evaluate.classifier_scores import classify_halves, mean_auc
from calogen.evaluate.classifier_settings import PRESETS
from calogen.systems.calodream import CaloDream
from calogen.systems.calodream_stages import in_batches

BATCH = 100


@torch.inference_mode()
def drawn(system: CaloDream, incident: NDArray[Any], **solver: Any) -> tuple[NDArray[np.float32], float]:
    """Standardised logits of the ratios [N, L] and process time of a shower in ms."""
    noise = np.random.default_rng(1).standard_normal((len(incident), system.detector.n_layers), dtype=np.float32)
    start, parts = time.process_time(), []
    for first in range(0, len(incident), BATCH):
        own = slice(first, first + BATCH)
        c = system.targets.scaled_incident(incident[own])
        x = system.energy_flow.sample(c, noise=torch.from_numpy(noise[own]), **solver)
        parts.append(ratios(system, system.targets.u(x)))
    return np.concatenate(parts), 1000 * (time.process_time() - start) / len(incident)


def ratios(system: CaloDream, u: torch.Tensor) -> NDArray[np.float32]:
    """Ratios as the flow learns them: those beyond 0 and 1 are at its ends, as they are after decoding."""
    return system.targets.energy(system.targets.energy_logit(u).float()).numpy()


def main() -> None:
    """Print one row for each solver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--full", type=int, default=50, help="steps of the 3/8 rule of the full solver")
    arguments = parser.parse_args()
    system = calogen.load(arguments.state)
    assert isinstance(system, CaloDream)
    showers = Showers.concatenate([points(part) for part in batches(arguments.truth, detector=system.detector)])
    incident = showers.incident.energy
    given = system.targets.scaled_incident(incident).numpy()
    true = np.concatenate([ratios(system, system.targets.shares(energy, e).u) for energy, e in in_batches(showers)])
    truth = np.concatenate([true, given], axis=1)
    settings = PRESETS["fast-high"]
    auc, error = mean_auc(classify_halves(truth, settings, repeats=arguments.repeats, seed=0), settings)
    print(f"{'Geant4, two halves':28} {'':>12} AUC {auc:.4f} +- {error:.4f}")
    solvers: dict[str, dict[str, Any]] = {
        f"bespoke, {n} evaluations": {"solver": system.energy_solvers.of(n)} for n in system.config.energy_evaluations
    }
    solvers |= {
        "midpoint, 4 evaluations": {"solver": "midpoint", "steps": 2},
        "midpoint, 16 evaluations": {"solver": "midpoint", "steps": 8},
        f"3/8 rule, {4 * arguments.full} evaluations": {"solver": "three_eighths", "steps": arguments.full},
    }
    for name, solver in solvers.items():
        x, ms = drawn(system, incident, **solver)
        sample = np.concatenate([x, given], axis=1)
        rows = classify_repeats(sample, truth, settings, repeats=arguments.repeats, seed=0)
        auc, error = mean_auc(rows, settings)
        print(f"{name:28} {ms:9.2f} ms AUC {auc:.4f} +- {error:.4f}", flush=True)


if __name__ == "__main__":
    main()
