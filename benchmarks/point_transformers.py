"""One evaluation of the transformers of AllShowers and CaloHadronic at published size, beside the authors' way.

    OMP_NUM_THREADS=1 python benchmarks/point_transformers.py [--repeats 5]

The authors' way, rebuilt after the description of their code from torch's own parts with the same weights, in the same
run on the same machine:

- AllShowers: padded to a multiple of 128 points, torch's flex_attention with the mask of the window as their code calls
  it on a CPU, not compiled (the mask is made beforehand and costs nothing here). 1,500 points on 78 layers.
- CaloHadronic: nn.TransformerEncoder (and the HCal's nn.TransformerDecoder) on padded sets, as shipped: its inference
  path holds the scores of all pairs; "one line" is the same with `torch.backends.mha.set_fastpath_enabled(False)`.
  1,500 points as pions share them (the published PointCountFM: 556 to 1,050), and 1,700 in each calorimeter.

Both compute the same (checked). One thread, no gradient, least process CPU time of the repeats, taking turns.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from banded_attention import BAND, LAYERS, showers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from calogen.networks.hadronic_transformer import HadronicTransformer, PointCondition
from calogen.networks.point_transformer import PointTransformer
from calogen.networks.set_attention import SetAttention, SetBlock

ECAL_SHARE = 556 / (556 + 1050)
"""Of a pion's points (10 to 90 GeV, published PointCountFM)."""
BLOCK = 128
"""Points that the authors' flex_attention pads to."""


class PaddedAllShowers:
    """The network on one shower padded to a multiple of `BLOCK` points, by eager flex_attention."""

    def __init__(self, network: PointTransformer, c: Tensor, counts: Tensor) -> None:
        self.network, self.bound = network, network.bind(c, counts).bound
        n = int(counts[0])
        self.points, self.padded = n, -(-n // BLOCK) * BLOCK
        layer = torch.full((self.padded,), LAYERS + 100)  # padding sees padding alone
        layer[:n] = torch.repeat_interleave(torch.arange(LAYERS), c[0, -LAYERS:].long())

        def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            apart = layer[i] - layer[j]
            return (apart >= BAND.lower) & (apart <= BAND.upper)

        self.mask = create_block_mask(seen, None, None, self.padded, self.padded, device="cpu")

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        h = F.pad(self.network.embed(x, t, self.bound), (0, 0, 0, self.padded - self.points))
        for block in self.network.blocks:
            k, q, v = block.key_query_value(h).view(len(h), block.heads, 3, -1).permute(2, 1, 0, 3)[:, None]
            seen = flex_attention(q.contiguous(), k.contiguous(), v.contiguous(), block_mask=self.mask)
            h = block.norm_attention(h + seen[0].transpose(0, 1).reshape(h.shape))
            h = block.norm_feedforward(h + block.narrow(F.gelu(block.widen(h))))
        out: Tensor = self.network.head(h)[: self.points]
        return out


class PaddedHadronic:
    """The network on sets of equal size [N, n, 4] by torch's transformer modules."""

    def __init__(self, network: HadronicTransformer, c: Tensor | PointCondition, counts: Tensor) -> None:
        self.network, self.bound = network, network.bind(c, counts)
        width, blocks = network.head[0].in_features, [b for b in network.encoder if isinstance(b, SetBlock)]
        heads, inner = blocks[0].attention.heads, blocks[0].widen.out_features
        layer = nn.TransformerEncoderLayer(width, heads, inner, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, len(blocks)).eval()
        for own, block in zip(self.encoder.layers, blocks, strict=True):
            _copy(block, own, [(block.attention, own.self_attn)], [block.norm_attention, block.norm_feedforward])
        if network.given:
            block = network.decoder
            self.decoder = nn.TransformerDecoderLayer(width, heads, inner, batch_first=True).eval()
            pairs = [(block.attention, self.decoder.self_attn), (block.memory_attention, self.decoder.multihead_attn)]
            _copy(block, self.decoder, pairs, [block.norm_attention, block.norm_memory, block.norm_feedforward])

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        n = len(t)
        points = self.network.points(x).view(n, len(x) // n, -1)
        tokens = torch.cat([points, self.network.time(t)[:, None], self.bound.context], dim=1)
        h = self.encoder(tokens)
        h = self.decoder(points, h) if self.network.given else h[:, : points.shape[1]]
        return self.network.head(h).flatten(0, 1)


def _copy(
    block: SetBlock, layer: nn.Module, attentions: list[tuple[SetAttention, nn.Module]], norms: list[nn.Module]
) -> None:
    for own, theirs in attentions:
        weights = own.state_dict()
        theirs.load_state_dict(
            {
                "in_proj_weight": weights["query_key_value.weight"],
                "in_proj_bias": weights["query_key_value.bias"],
                "out_proj.weight": weights["output.weight"],
                "out_proj.bias": weights["output.bias"],
            }
        )
    layer.linear1.load_state_dict(block.widen.state_dict())
    layer.linear2.load_state_dict(block.narrow.state_dict())
    for k, norm in enumerate(norms, start=1):
        getattr(layer, f"norm{k}").load_state_dict(norm.state_dict())


def ours(bound: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, *, half: bool = False) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        return bound(x, t)


def without_fast_path(run: Callable[[], Tensor]) -> Tensor:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return run()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def allshowers_runs(number: int, points: int) -> dict[str, Callable[[], Tensor]]:
    """Calls of one evaluation for `number` showers; theirs is one shower, as a batch takes as much for each."""
    network = PointTransformer(band=BAND).eval()
    per_layer = showers(points, number, np.random.default_rng(points))
    c = torch.cat([torch.randn(number, 4), torch.zeros(number, 1), per_layer / 1.0], dim=1)
    counts, t = per_layer.sum(1), torch.full((number,), 0.3)
    x = torch.randn(int(counts.sum()), 3)
    theirs, bound = PaddedAllShowers(network, c[:1], counts[:1]), network.bind(c, counts)
    return {
        "authors": partial(theirs, x[:points], t[:1]),
        "float32": partial(ours, bound, x, t),
        "bfloat16": partial(ours, bound, x, t, half=True),
    }


def hadronic_runs(number: int, ecal_points: int, hcal_points: int) -> dict[str, Callable[[], Tensor]]:
    """Calls of one evaluation of both networks; all points of one call are one tensor."""
    ecal = HadronicTransformer().eval()
    hcal = HadronicTransformer(condition=49, heads=16, blocks=4, given=4).eval()
    t = torch.full((number,), 0.3)
    sizes = [torch.full((number,), n) for n in (ecal_points, hcal_points)]
    x = [torch.randn(number * n, 4) for n in (ecal_points, hcal_points)]
    conditions = torch.randn(number, 31), PointCondition(torch.randn(number, 49), x[0], sizes[0])
    nets = list(zip((ecal, hcal), conditions, sizes, strict=True))
    theirs, own = [PaddedHadronic(*net) for net in nets], [net.bind(c, n) for net, c, n in nets]

    def both(calls: list[Callable[..., Tensor]], half: bool = False) -> Tensor:
        return torch.cat([ours(call, points, t, half=half) for call, points in zip(calls, x, strict=True)])

    return {
        "authors": partial(both, theirs),
        "one line": partial(without_fast_path, partial(both, theirs)),
        "float32": partial(both, own),
        "bfloat16": partial(both, own, True),
    }


def row(name: str, number: int, points: str, runs: dict[str, Callable[[], Tensor]], repeats: int) -> None:
    """Check that all agree, time them in turn, print milliseconds a shower and ratios to the authors' way."""
    with torch.no_grad():
        expected = runs["float32"]()
        for way, run in runs.items():
            found = run()
            error = float((found - expected[: len(found)]).abs().max() / expected.abs().max())
            assert error < (0.1 if way == "bfloat16" else 1e-4), (way, error)
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(repeats):
            for way, run in runs.items():
                start = time.process_time()
                shape = run().shape
                share = shape[0] / len(expected)  # theirs may be fewer showers
                best[way] = min(best[way], (time.process_time() - start) / share / number)
    cells = f"{name:13}{number:6d}{points:>12}"
    for way in ("authors", "one line", "float32", "bfloat16"):
        seconds = best.get(way)
        ratio = best["authors"] / seconds if seconds else 0.0
        cells += f"{1e3 * seconds:10.1f} ({ratio:5.2f})" if seconds else f"{'-':>18}"
    print(cells, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    warnings.filterwarnings("ignore", message=".*flex_attention called without torch.compile.*")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ways = "".join(f"{way:>18}" for way in ("authors", "one line", "float32", "bfloat16"))
    print(f"{'ms per shower':13}{'batch':>6}{'points':>12}{ways}   (times the authors' speed)")
    for number in (1, 16):
        row("AllShowers", number, "1500", allshowers_runs(number, 1500), repeats)
    ecal = round(1500 * ECAL_SHARE)
    for number, points in ((1, (ecal, 1500 - ecal)), (16, (ecal, 1500 - ecal)), (1, (1500, 1500)), (1, (1700, 1700))):
        row("CaloHadronic", number, "+".join(map(str, points)), hadronic_runs(number, *points), repeats)


if __name__ == "__main__":
    main()
