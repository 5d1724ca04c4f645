"""Evaluations against quality and time: the samplers of a trained state of point clouds, side by side.

    OMP_NUM_THREADS=1 python benchmarks/samplers.py STATE TRUTH.h5 [-n 600] [--repeats 3] \
        --way solver=bespoke --way solver=midpoint,steps=2 ...

Each way is a set of options of the system's `sample` and makes a shower for each of the first n particles of the
truth, one thread, batches of 16; ways take turns in rounds, and the least CPU time of the rounds counts. AUC is that of
the five observables of CaloHadronic (hits, centre of gravity, visible over incident energy) by a network of 64 and 64,
mean and spread over the repeats; hits and energy are the model's mean over Geant4's, after projection. Where the
truth's file says what Geant4 took, the last column is that over the sampler's time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import calogen
from calogen.cli.demo import GEANT4_COST
from calogen.cli.options import read_state
from calogen.cli.sample import sample_options
from calogen.data.formats import open_source
from calogen.data.projection import project
from calogen.data.showers import Showers
from calogen.evaluate.classifier import classify_repeats
from calogen.evaluate.classifier_settings import PRESETS
from calogen.evaluate.observables import Binning, observe
from calogen.evaluate.shower_features import shower_features
from calogen.systems import load

ROUND = 32
"""Showers of a timing round."""


def five(showers: Showers) -> np.ndarray:
    """The five observables of each shower."""
    return shower_features(observe(project(showers), Binning.of(showers.detector)), "calohadronic")[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state")
    parser.add_argument("truth", type=Path)
    parser.add_argument("-n", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", action="append", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    system = load(read_state(args.state))
    with open_source(args.truth) as source:
        cost = source.provenance.get(GEANT4_COST)
    truth = calogen.read(args.truth)[: args.n]
    ways = {way: sample_options(system, dict(part.split("=") for part in way.split(","))) for way in args.way}
    least = dict.fromkeys(ways, np.inf)
    rng = np.random.default_rng(0)
    for _ in range(3):
        some = truth.incident[rng.permutation(len(truth))[:ROUND]]
        for way, options in ways.items():
            start = time.process_time()
            system.sample(some, seed=1, batch_size=16, **options)
            least[way] = min(least[way], (time.process_time() - start) / ROUND)
    real, hits = five(truth), project(truth).showers
    print(f"{'way':40s} {'ms':>7s} {'AUC':>6s} {'+-':>6s} {'hits':>6s} {'energy':>6s} {'Geant4/':>8s}")
    for way, options in ways.items():
        made = system.sample(truth.incident, seed=2, batch_size=16, **options)
        aucs = [c.auc for c in classify_repeats(five(made), real, PRESETS["fast"], repeats=args.repeats)]
        own = project(made).showers
        ratios = own.n_points / hits.n_points, own.visible_energy.sum() / hits.visible_energy.sum()
        faster = "" if cost is None else f"{float(cost) / least[way]:8.1f}"
        print(
            f"{way:40s} {1e3 * least[way]:7.1f} {np.mean(aucs):6.3f} {np.std(aucs):6.3f} "
            f"{ratios[0]:6.3f} {ratios[1]:6.3f} {faster}",
            flush=True,
        )


if __name__ == "__main__":
    main()
