"""Time per CaloClouds3 shower, the whole way from incident photon to points, beside the authors' way of generating.

    OMP_NUM_THREADS=1 python benchmarks/generation.py [--energy 50] [--points 2940] [--repeats 8]

Both run in the same process on one thread with random weights of the published size; each flow is run in full, then
its answer is replaced by one layer profile, so that both make the same number of points (2940: a 50 GeV photon).

The authors' way, after the description of their code: flow by pyro (with `pip install pyro-ppl`; without it, our
own flow step by step, which is faster than theirs) drawn for the batch; the point model for the longest shower of
the batch with autograd on; per shower sorting by depth, nearest layer by a [points, layers] matrix, energies layer
by layer; everything in a float64 array padded to 30,000 points.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from networks import padded_point_model
from numpy.typing import NDArray
from torch import Tensor

from calogen import ILD_ECAL, Incident
from calogen.methods.consistency import ConsistencyModel
from calogen.methods.coupling_flow import CouplingFlow
from calogen.networks.pointwise import PointwiseNet
from calogen.systems.caloclouds import (
    PUBLISHED_POINT_MEAN,
    PUBLISHED_POINT_STD,
    CaloClouds,
    CaloCloudsConfig,
)
from calogen.systems.profile_targets import LayerProfile

BATCHES = (1, 16, 64)
PADDED_POINTS = 30_000  # `max_points` of the authors' configuration
FLOW_DIM = 60
LAYERS = 30
SHAPE, RATE = 6.5, 0.42  # of the gamma-like longitudinal profile, in layers; only its sum matters for the time


def layer_profile(points: int) -> NDArray[np.int64]:
    """`points` spread over 30 layers like a photon shower."""
    layer = np.arange(LAYERS) + 0.5
    share = layer ** (SHAPE - 1) * np.exp(-RATE * layer)
    counts = np.floor(share / share.sum() * points).astype(np.int64)
    counts[int(share.argmax())] += points - counts.sum()
    return counts


class FixedProfile(CaloClouds):
    """CaloClouds3 whose flow runs but whose layer profile is given."""

    counts: NDArray[np.int64]

    def _draw_profile(self, incident: Incident, condition: Tensor, streams: list[np.random.Generator]) -> LayerProfile:
        dim = self.profile.targets.dim
        noise = torch.from_numpy(np.stack([s.standard_normal(dim, dtype=np.float32) for s in streams]))
        drawn = self.profile.targets.decode(self.profile.draw(condition, noise), condition)
        self.profile.limits.broken(drawn, incident.energy, 0)
        n = len(incident)
        counts = np.tile(self.counts.astype(np.float64), (n, 1))
        return LayerProfile(counts, counts * 4e-4, np.zeros((n, 3)))

    def _calibrated_counts(self, profile: LayerProfile, incident: Incident, streams: Any) -> NDArray[np.int64]:
        super()._calibrated_counts(profile, incident, streams)
        return profile.counts.astype(np.int64)


class AuthorsWay:
    """Padded, with gradients, shower by shower in Python."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self.counts = counts
        self.model = ConsistencyModel(PointwiseNet())
        self.draw_flow, self.flow_name = _flow()

    def sample(self, incident: Incident) -> NDArray[np.float64]:
        """Showers [N, 30000, 4], padded with zeros."""
        n, total = len(incident), int(self.counts.sum())
        c = torch.cat([torch.from_numpy(incident.energy)[:, None] / 127, torch.from_numpy(incident.direction)], 1)
        self.draw_flow(c)
        points = padded_point_model(self.model, torch.randn(n, total, 4), c).detach().numpy()
        out = np.zeros((n, PADDED_POINTS, 4))
        centres = np.arange(LAYERS, dtype=np.float64)
        for i in range(n):
            shower = points[i].astype(np.float64)
            shower = shower[np.argsort(shower[:, 2])]
            shower[:, 2] = np.repeat(centres, self.counts)
            shower[:, 3] = np.exp(shower[:, 3] * 2 * PUBLISHED_POINT_STD[3] + PUBLISHED_POINT_MEAN[3])
            nearest = np.abs(shower[:, 2][:, None] - centres[None, :]).argmin(axis=1)
            for layer in range(LAYERS):
                here = nearest == layer
                total_energy = shower[here, 3].sum()
                shower[here, 3] *= 4e-4 * self.counts[layer] / total_energy if total_energy > 0 else 1.0
            for axis in (0, 1):
                shower[:, axis] = shower[:, axis] * 2 * PUBLISHED_POINT_STD[axis] + PUBLISHED_POINT_MEAN[axis]
            out[i, :total] = shower
        return out


def _flow() -> tuple[Callable[[Tensor], Tensor], str]:
    try:
        return _pyro_flow(), "pyro"
    except ImportError:
        flow = CouplingFlow(FLOW_DIM, 4)
        return lambda c: flow(torch.randn(len(c), FLOW_DIM), c)[0], "step by step (no pyro)"


def _pyro_flow() -> Callable[[Tensor], Tensor]:
    """ShowerFlow's layout out of pyro's own parts: blocks A P A P A P S P A P A P A P, twice."""
    import pyro.distributions as dist
    import pyro.distributions.transforms as parts
    from pyro.nn import ConditionalDenseNN, DenseNN

    transforms: list[Any] = []
    half = FLOW_DIM // 2
    for letter in "APAPAPSPAPAPAP" * 2:
        if letter == "A":
            net = ConditionalDenseNN(half, 4, [10 * FLOW_DIM] * 2, [FLOW_DIM - half] * 2)
            transforms.append(parts.ConditionalAffineCoupling(half, net))
        elif letter == "S":
            net = DenseNN(4, [4 * FLOW_DIM] * 2, [FLOW_DIM * 8, FLOW_DIM * 8, FLOW_DIM * 7, FLOW_DIM * 8])
            transforms.append(parts.ConditionalSpline(net, FLOW_DIM, 8, order="linear"))
        else:
            transforms.append(parts.Permute(torch.randperm(FLOW_DIM)))
    base = dist.Normal(torch.zeros(FLOW_DIM), torch.ones(FLOW_DIM))
    flow = dist.ConditionalTransformedDistribution(base, transforms)
    return lambda c: flow.condition(c).sample(torch.Size([len(c)]))


def alternately(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, NDArray[np.float64]]:
    """Process CPU time of each call in ms `[repeats]`, the ways in turn (a busy machine slows all alike)."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + WARM_UP):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: np.array(values[WARM_UP:]) for name, values in times.items()}


WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--energy", type=float, default=50.0, help="GeV")
    parser.add_argument("--points", type=int, default=2940)
    parser.add_argument("--repeats", type=int, default=8, help="calls at the largest batch; more at smaller ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    counts = layer_profile(options.points)
    ours = FixedProfile.create(CaloCloudsConfig(), ILD_ECAL)
    ours.counts = counts
    theirs = AuthorsWay(counts)
    print(f"flow of the authors' way: {theirs.flow_name}; {options.points} points, one thread, medians of CPU time")
    print(f"{'batch':>5} {'authors ms':>11} {'float32 ms':>11} {'ratio':>6} {'bfloat16 ms':>12} {'ratio':>6}")
    for n in BATCHES:
        incident = Incident.gun(n, energy=options.energy)
        ours.domain.fit(incident)
        runs: dict[str, Callable[[], object]] = {"authors": partial(theirs.sample, incident)}
        for precision in ("float32", "bfloat16"):
            runs[precision] = partial(ours.sample, incident, seed=1, batch_size=n, precision=precision)
        taken = alternately(runs, options.repeats * max(1, BATCHES[-1] // n // 8))
        line = f"{n:5d} {np.median(taken['authors']) / n:11.2f}"
        for precision, width in (("float32", 11), ("bfloat16", 12)):
            ratio = float(np.median(taken["authors"] / taken[precision]))
            line += f" {np.median(taken[precision]) / n:{width}.2f} {ratio:6.1f}"
        print(line)


if __name__ == "__main__":
    main()
