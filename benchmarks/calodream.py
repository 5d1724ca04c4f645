"""A shower of the published CaloDREAM (data set 2) by the authors' way of sampling and by ours, part by part.

    OMP_NUM_THREADS=1 python benchmarks/calodream.py [--repeats 3] [--all]

The authors' way, rebuilt after the description of their code from torch's own parts with the same weights, in the same
run on the same machine (both compute the same: checked):

- energies: for each of the 45 layers torch's nn.Transformer, encoder too, on all layers before it, nothing kept; then
  50 steps of the 3/8 rule, 200 calls of the velocity. Measured: the transformer on 1, 23 and 45 layers (the mean of
  all by Simpson's rule, exact up to cubes) and `STEPS_RUN` of the 50 steps of one layer.
- shapes: 20 steps of the 3/8 rule, 80 calls of the vision transformer, all of it each time: positions, embeddings,
  what steers the blocks. Measured: one of the 80. What follows (cuts, energies of layers) is left out.

Ours: shapes are the binding of the network plus n times one evaluation, which is measured; "stored" keeps the blocks'
parameters in bfloat16, "scheduled" too, and computes what depends on time for all n evaluations at once. At batch 100
`sample` is run in one of the ways, in the others with --all (over a minute more). The weights are random: time does not
depend on them. One thread, no gradient, process CPU time, the least of the repeats (at batch 100 `CALLS_RUN` or one).
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen import Incident
from calogen.detector.catalog import CALOCHALLENGE_2
from calogen.methods.solvers import STEPS, Velocity, integrate
from calogen.networks.autoregressive_transformer import AutoregressiveTransformer
from calogen.networks.sequence_attention import SequenceBlock
from calogen.networks.steered_block import SteeredBlock
from calogen.networks.voxel_transformer import VoxelTransformer
from calogen.systems.calodream import PRESETS, CaloDream
from calogen.systems.drawing import Precision

LAYERS, ENERGY_STEPS, SHAPE_CALLS = 45, 50, 80
STEPS_RUN, CALLS_RUN = 5, 2
"""How many steps of the authors' are measured, and at least how many calls of a vision transformer, theirs or ours."""
PUBLISHED_MS = {1: 16_942.0, 100: 5_052.0}
"""A shower of the submission on the CPU of the CaloChallenge (arXiv:2410.21611)."""
ENERGY_EVALUATIONS, SHAPE_EVALUATIONS = (8, 4, 2, 1), PRESETS["published"].config.shape_evaluations
GRID, PATCH = (45, 16, 9), (3, 16, 1)
USUAL = "bfloat16, stored"
"""The way of ours that is run as a whole at batch 100."""


class AuthorsEnergies:
    """Contexts by the whole transformer on the layers so far, a velocity of one number by an MLP."""

    def __init__(self, network: AutoregressiveTransformer) -> None:
        first = cast(SequenceBlock, network.encoder[0])
        self.width, depth = network.width, (len(network.encoder), len(network.decoder))
        sizes = first.attention.heads, *depth, first.widen.out_features
        self.transformer = nn.Transformer(self.width, *sizes, dropout=0.0, batch_first=True).eval()
        layers = [*self.transformer.encoder.layers, *self.transformer.decoder.layers]
        for layer, own in zip(layers, [*network.encoder, *network.decoder], strict=True):
            layer.load_state_dict(_torch_names(own.state_dict()))
        self.transformer.encoder.norm = network.norm_memory
        self.transformer.decoder.norm = network.norm_context
        velocity = network.velocity
        parts: list[nn.Module] = [velocity.first, nn.SiLU()]
        for linear, norm in zip(velocity.maps, velocity.norms, strict=True):
            parts += [linear, norm, nn.Dropout(0.0), nn.SiLU()]
        self.mlp = nn.Sequential(*parts, velocity.last).eval()
        self.time = nn.Sequential(velocity.fourier, velocity.time)

    def context(self, x: Tensor, c: Tensor) -> Tensor:
        """Of the layer that follows those in x [N, L], given the incident energy c [N, 1] -> [N, width]."""
        n, length = len(x), x.shape[1] + 1
        places = torch.eye(length, LAYERS + 1).expand(n, -1, -1)
        tokens = torch.cat([F.pad(x, (1, 0))[:, :, None], places], dim=2)
        tokens = F.pad(tokens, (0, self.width - tokens.shape[2]))
        source = F.pad(torch.cat([c, torch.ones(n, 1)], dim=1), (0, self.width - 2))[:, None]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        return cast(Tensor, self.transformer(source, tokens, tgt_mask=mask)[:, -1])

    def velocity(self, context: Tensor) -> Velocity:
        """v(u [N, 1], t) in a context."""
        return lambda u, t: self.mlp(torch.cat([u, self.time(t.expand(len(u))), context], dim=1))


def _torch_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters of a `SequenceBlock` as torch's layers call them."""
    names = {"memory_attention": "multihead_attn", "norm_attention": "norm1", "attention": "self_attn"}
    names |= {"query_key_value.": "in_proj_", "output": "out_proj", "widen": "linear1", "narrow": "linear2"}
    names |= {"norm_feedforward": "norm3" if "norm_memory.weight" in state else "norm2", "norm_memory": "norm2"}
    out = {}
    for name, value in state.items():
        for own, theirs in names.items():
            name = name.replace(own, theirs)
        out[name] = value
    return out


def authors_shapes(network: VoxelTransformer, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """Voxels x [N, V], times t [N], conditions c [N, C] -> velocity [N, V]: all of it anew, for all showers at once."""
    n, tokens = len(x), len(network.patches)
    cut = [length for pair in zip(GRID, PATCH, strict=True) for length in (pair[0] // pair[1], pair[1])]
    patches = x.view(n, *cut).permute(0, 1, 3, 5, 2, 4, 6)
    h = network.embedding(patches.reshape(n, tokens, -1)) + network.positions(network.patches.coordinates)
    e = network.time(t) + network.context(c)
    for block in cast(list[SteeredBlock], network.blocks):
        m = block.modulation(F.silu(e))[:, None].chunk(6, dim=2)
        qkv = block.query_key_value(_modulated(h, m[0], m[1])).reshape(n, tokens, 3, block.heads, -1)
        seen = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        h = h + m[2] * block.output(seen.transpose(1, 2).reshape(n, tokens, -1))
        h = h + m[5] * block.narrow(F.gelu(block.widen(_modulated(h, m[3], m[4])), approximate="tanh"))
    out = network.head(_modulated(h, *network.modulation(F.silu(e))[:, None].chunk(2, dim=2)))
    return out.view(patches.shape).permute(0, 1, 4, 2, 5, 3, 6).reshape(n, -1)


def _modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


@dataclass(frozen=True)
class Way:
    """A way of ours to draw shapes."""

    system: CaloDream
    precision: Precision
    scheduled: bool = False

    def bind(self, c: Tensor) -> Velocity:
        """The velocity of n showers for conditions c [n, C]."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            bound = networks(self.system)[1].bind(c)
            if self.scheduled:
                bound.schedule(self.system.shape_solvers.of(SHAPE_EVALUATIONS[0]).times()[:-1])
        return bound


def networks(system: CaloDream) -> tuple[AutoregressiveTransformer, VoxelTransformer]:
    """Those of the energies and of the shapes."""
    flows = system.energy_flow, system.shape_flow
    return cast(AutoregressiveTransformer, flows[0].network), cast(VoxelTransformer, flows[1].network)


def check(system: CaloDream) -> None:
    """Both ways give the same velocities."""
    energies, shapes = networks(system)
    x, c, voxels, given, t = (torch.randn(2, n) for n in (LAYERS, 1, shapes.patches.voxels, LAYERS + 1, 1))
    theirs, t, k = AuthorsEnergies(energies), t[:, 0].sigmoid(), 9
    pairs = [
        (theirs.velocity(theirs.context(x[:, :k], c))(c, t[:1]), energies.given(x, c, slice(k, k + 1))(c, t[0])),
        (authors_shapes(shapes, voxels, t, given), shapes(voxels, t, given)),
    ]
    for a, b in pairs:
        assert float((a - b).abs().max() / b.abs().max()) < 1e-4


def in_turn(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least process CPU time of each call in ms, one after the other."""
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            least[name] = min(least[name], 1e3 * (time.process_time() - start))
    return least


def energy_ms(system: CaloDream, n: int, repeats: int) -> dict[str, float]:
    """ms for n showers of the authors' energies, and of ours by their evaluations."""
    c, z, network = torch.rand(n, 1), torch.randn(n, LAYERS), networks(system)[0]
    theirs = AuthorsEnergies(network)
    velocity = theirs.velocity(torch.randn(n, network.width))
    times = torch.linspace(0, 1, ENERGY_STEPS + 1)[: STEPS_RUN + 1]
    runs: dict[str, Callable[[], object]] = {str(k): partial(theirs.context, z[:, : k - 1], c) for k in (1, 23, 45)}
    runs["steps"] = partial(integrate, velocity, z[:, :1], times, STEPS["three_eighths"])
    for k in ENERGY_EVALUATIONS:
        runs[f"{k} evaluations"] = partial(system.energy_flow.sample, c, noise=z, solver=system.energy_solvers.of(k))
    ms = in_turn(runs, repeats)
    context = (ms.pop("1") + 4 * ms.pop("23") + ms.pop("45")) / 6
    return {"authors": LAYERS * (context + ms.pop("steps") * ENERGY_STEPS / STEPS_RUN), **ms}


def shape_ms(ways: dict[str, Way], n: int, repeats: int) -> dict[str, float]:
    """ms for n showers of the authors' shapes, and of ours by way and evaluations."""
    network = networks(ways["float32"].system)[1]
    x, c, t = torch.randn(n, network.patches.voxels), torch.randn(n, LAYERS + 1), torch.zeros(n)  # 0 is scheduled
    runs: dict[str, Callable[[], object]] = {"authors": partial(authors_shapes, network, x, t, c)}
    for name, way in ways.items():
        runs |= {f"bind {name}": partial(way.bind, c), name: partial(way.bind(c), x, t)}
    ms = in_turn(runs, max(repeats, CALLS_RUN))
    found = {"authors": ms["authors"] * SHAPE_CALLS}
    for name, way in ways.items():
        for k in SHAPE_EVALUATIONS[:1] if way.scheduled else SHAPE_EVALUATIONS:
            found[f"{k} evaluations, {name}"] = ms[f"bind {name}"] + k * ms[name]
    return found


def table(ways: dict[str, Way], n: int, repeats: int, complete: bool) -> None:
    """ms a shower and the ratio to the same part of the authors' way."""
    system, incident = ways["float32"].system, Incident.gun(n, energy=50.0, pdg=11)
    parts = {"energies": energy_ms(system, n, repeats), "shapes": shape_ms(ways, n, repeats)}
    u, x = torch.randn(n, LAYERS), torch.randn(n, networks(system)[1].patches.voxels)
    decode = partial(system.space.decode, u, x, incident.energy, system.detector.threshold_gev.tolist())
    whole: dict[str, Callable[[], object]] = {
        f"sample, {name}": partial(way.system.sample, incident, seed=1, batch_size=n, precision=way.precision)
        for name, way in ways.items()
        if not way.scheduled and (complete or n == 1 or name == USUAL)
    }
    authors = sum(part["authors"] for part in parts.values())
    parts |= {"decode": in_turn({"": decode}, repeats), "whole": {"authors": authors, **in_turn(whole, repeats)}}
    print(f"\nbatch {n:<38}{'ms a shower':>12}{'ratio':>8}\n{'published':44}{PUBLISHED_MS[n]:12.1f}")
    for part, found in parts.items():
        for name, ms in found.items():
            ratio = f"{found['authors'] / ms:8.1f}" if "authors" in found else ""
            print(f"{part:10}{name:34}{ms / n:12.1f}{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="at batch 1")
    parser.add_argument("--all", action="store_true", help="`sample` at batch 100 in every way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = replace(PRESETS["published"].config, energy_evaluations=ENERGY_EVALUATIONS)
    system = CaloDream.create(config, CALOCHALLENGE_2)
    system.domain.fit(Incident.gun(2, energy=50.0, pdg=11))
    for part in system.parts().values():
        part.eval()
    with torch.inference_mode():
        for weight in networks(system)[1].parameters():
            weight.add_(0.02 * torch.randn_like(weight))  # untrained, the velocity is zero, which checks nothing
        stored = copy.deepcopy(system)
        networks(stored)[1].blocks.bfloat16()
        ways = {
            "float32": Way(system, "float32"),
            "bfloat16": Way(system, "bfloat16"),
            USUAL: Way(stored, "bfloat16"),
            "bfloat16, scheduled": Way(stored, "bfloat16", scheduled=True),
        }
        check(system)
        for n in PUBLISHED_MS:
            table(ways, n, options.repeats if n == 1 else 1, options.all)


if __name__ == "__main__":
    main()
