"""Time of CaloClouds3's two networks per shower, beside a plain re-implementation of how the authors run them.

    OMP_NUM_THREADS=1 python benchmarks/networks.py [--points 2940] [--repeats 20]

The authors' way, for comparison in the same run on the same machine: padded batches [N, max points, 4] through
all layers at once, gates multiplied onto every point, autograd on, the condition concatenated in every layer; the flow
step by step with all log-determinants (without pyro's own objects, which cost more). Weights are random, published
sizes. Process CPU time of one thread, the least of the repeats (other work on the machine only adds).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from calogen.methods.consistency import ConsistencyModel
from calogen.methods.coupling_flow import CouplingFlow
from calogen.methods.edm import boundary_scalings
from calogen.networks.pointwise import NEGATIVE_SLOPE, PointwiseNet

POINTS = 2940
"""Points of a 50 GeV photon before the occupancy factor, the size the authors' code was timed at."""

BATCHES = (1, 16, 64)


def padded_point_model(model: ConsistencyModel, x: Tensor, c: Tensor) -> Tensor:
    """One step from noise for padded x [N, L, 4], every layer for the whole batch."""
    network = model.network
    assert isinstance(network, PointwiseNet)
    sigma = torch.full((len(x), 1, 1), model.sigma_max)
    scalings = boundary_scalings(sigma, model.sigma_data, model.sigma_min)
    t = network.fourier(sigma[:, 0, 0].log() / 4)
    u = torch.cat([F.leaky_relu(network.time(t), NEGATIVE_SLOPE), c], dim=-1)[:, None]
    x = model.sigma_max * x
    h = scalings.c_in * x
    for k, layer in enumerate(network.layers):
        h = layer.map(h) * torch.sigmoid(layer.gate(u)) + layer.shift(u)
        if k < len(network.layers) - 1:
            h = F.leaky_relu(h, NEGATIVE_SLOPE)
    return scalings.c_out * h + scalings.c_skip * x


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """Least process CPU time of a call."""
    times = []
    for _ in range(repeats + 2):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e3 * min(times[2:])


def compare(points: int, repeats: int) -> list[tuple[str, int, float, float]]:
    """(network, batch, authors' ms per shower, ours) for every batch size."""
    torch.manual_seed(0)
    flow, model = CouplingFlow(60, 4).eval(), ConsistencyModel(PointwiseNet()).eval()
    rows = []
    for n in BATCHES:
        c, z, noise = torch.randn(n, 4), torch.randn(n, 60), torch.randn(n, points, 4)
        counts, packed = torch.full((n,), points), noise.flatten(0, 1)
        difference = padded_point_model(model, noise, c).flatten(0, 1) - model.sample(c, counts=counts, noise=packed)
        assert float(difference.detach().abs().max()) < 1e-3  # the same work
        pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "flow": (partial(flow, z, c), partial(flow.sample, c, noise=z)),
            "points": (
                partial(padded_point_model, model, noise, c),
                partial(model.sample, c, counts=counts, noise=packed),
            ),
        }
        for name, (theirs, ours) in pairs.items():
            rows.append((name, n, milliseconds(theirs, repeats) / n, milliseconds(ours, repeats) / n))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':8} {'batch':>5} {'authors ms':>11} {'calogen ms':>11} {'ratio':>6}")
    for name, batch, theirs, ours in compare(options.points, options.repeats):
        print(f"{name:8} {batch:5d} {theirs:11.3f} {ours:11.3f} {theirs / ours:6.1f}")


if __name__ == "__main__":
    main()
