"""How far the published CaloClouds3 point model is from Geant4, on our truth, by our judge.

    python benchmarks/published_caloclouds3.py WEIGHTS.npz TRUTH.h5

WEIGHTS holds the published one-step model under `student_ema/` (the authors' names), TRUTH perpendicular photons in the
ILD ECal. Their ShowerFlow is not published, so each layer gets the points and energy that Geant4 gave it: a
perfect flow. Then theirs: occupancy factor, truncation, one step, sorting by depth, energy factor, no CoG shift
(their mean offset is removed). What is left is the error of the point model itself.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from calogen import ILD_ECAL, Showers, read
from calogen.evaluate import evaluate
from calogen.systems import PRESETS
from calogen.systems.caloclouds import CaloClouds
from calogen.systems.layer_counts import assign_layers, rescale
from calogen.systems.published_weights import point_net_from_caloclouds3

OCCUPANCY = 0.64789  # fitted by the authors after cell projection (calculate_coef notebook)
ENERGY = 0.97584  # the same for the energy
BATCH = 64


def sample(system: CaloClouds, truth: Showers, seed: int) -> Showers:
    """One shower of the published point model for each true one, with its layers' points and energies."""
    torch.manual_seed(seed)
    counts = (truth.counts_per_layer * OCCUPANCY).astype(np.int64)
    parts = []
    for start in range(0, len(truth), BATCH):
        here = slice(start, min(start + BATCH, len(truth)))
        n = counts[here]
        latent = system.distillation.target.sample(
            system.conditioner(truth.incident[here]), counts=torch.from_numpy(n.sum(1))
        )
        x, y, depth, energy = (v.numpy() for v in system.points.decode(latent))
        order, layer = assign_layers(depth, n)
        energy = rescale(energy[order], n, truth.energy_per_layer[here] * ENERGY)
        offsets = np.concatenate([[0], np.cumsum(n.sum(1))])
        parts.append(Showers(x[order], y[order], layer, energy, offsets, truth.incident[here], ILD_ECAL))
    generated = Showers.concatenate(parts)
    shift = [float(np.average(v, weights=generated.energy)) for v in (generated.x, generated.y)]
    g = generated
    return Showers(g.x - shift[0], g.y - shift[1], g.layer, g.energy, g.offsets, g.incident, g.detector)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("truth")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    system = CaloClouds(PRESETS["caloclouds3"]["published"].config, ILD_ECAL)
    with np.load(options.weights, allow_pickle=False) as data:
        names = [name for name in data.files if name.startswith("student_ema/")]
        network = {name.partition("/")[2]: data[name] for name in names}
    system.distillation.target.network.load_state_dict(point_net_from_caloclouds3(network))
    truth = read(options.truth)
    with torch.inference_mode():
        generated = sample(system, truth, options.seed)
    result = evaluate(generated, truth)
    print(f"{'row':24} {'JSD':>9} {'+-':>8} {'floor':>9} {'excess':>9}")
    for row in result.scores:
        s = row.jsd
        print(f"{row.observable:24} {s.value:9.5f} {s.error:8.5f} {s.floor:9.5f} {s.excess:9.5f}")


if __name__ == "__main__":
    main()
