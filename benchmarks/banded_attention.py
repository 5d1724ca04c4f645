"""Ways to compute layer-banded attention of ragged showers on a CPU, side by side, and the networks that use it.

    OMP_NUM_THREADS=1 python benchmarks/banded_attention.py [--repeats 7] [--networks] [--compiled]

Showers of 200, 1,000 and 3,000 points on 78 layers, with a peak in depth as hadrons have it; 4 heads of 16; the
published window, layer_q - layer_k in [-3, 2]. Everything starts from the fused key, query and value of the points and
ends with one row a point, forward and forward + backward. GFLOP/s count the products of pairs that see each other (4 d
a pair and head forward, 3.5 times that with backward), nothing else: padding, masked pairs and exp are work that is not
counted. "of GEMM" is that rate over the rate of a 1,024² matrix product of the same type, measured in turn with the
rest. One thread, least of the repeats; ways take turns, so that all see the same machine.

- rectangles: what `calogen.networks.banded_attention` does (half precision is computed in float32)
- blocks: stretches of 64 queries with gathered windows of keys and a mask, in a few shapes, torch's fused kernel
- products: the same blocks as two matrix products and a softmax
- layers: torch's fused kernel on each layer with its own window, no mask, no merging
- dense: torch's fused kernel on all pairs of padded showers, masked
- flex: flex_attention with a block mask, compiled (only with --compiled: its first call takes a minute)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from calogen.networks.banded_attention import Band, BandedPlan, banded_attention, banded_plan
from calogen.networks.hadronic_transformer import HadronicTransformer, PointCondition
from calogen.networks.point_transformer import PointTransformer

LAYERS, HEADS, WIDTH = 78, 4, 16
BAND = Band(-3, 2)
BLOCK = 64
"""Queries of a gathered block; 16, 32 and 128 are slower in most of the table's rows."""

Way = Callable[[Tensor], Tensor]
"""Fused [P, H, 3, d] (key, query, value) -> [P, H, d]."""


def showers(points: int, number: int, rng: np.random.Generator) -> Tensor:
    """Points in each layer [N, L] of showers with `points` each: a narrow peak where it starts, and a tail."""
    layer = np.arange(LAYERS)
    profiles = []
    for start in rng.integers(0, 40, number):
        peak = 1.5 * np.exp(-0.5 * ((layer - start - 10) / 8.0) ** 2)
        tail = (
            np.where(layer >= start, 1.0, 0.05) * np.exp(-(layer - start) / 35) * np.clip((layer - start) / 6, 0.1, 1)
        )
        profiles.append(rng.multinomial(points, (peak + tail) / (peak + tail).sum()))
    return torch.from_numpy(np.stack(profiles))


def seen_pairs(per_layer: Tensor) -> int:
    """Pairs of points that see each other."""
    padded = F.pad(per_layer, (BAND.upper, -BAND.lower))
    return int((per_layer * padded.unfold(1, BAND.upper - BAND.lower + 1, 1).sum(-1)).sum())


def rectangles(plan: BandedPlan) -> Way:
    """The package's own."""
    return lambda fused: banded_attention(fused[:, :, 1], fused[:, :, 0], fused[:, :, 2], plan)


def each_layer(per_layer: Tensor) -> Way:
    """The fused kernel on every layer; without gradient only (slices of slices are slow to differentiate)."""
    edges = F.pad(per_layer.flatten().cumsum(0), (1, 0)).tolist()
    stretches = []
    for n in range(len(per_layer)):
        for layer in per_layer[n].nonzero()[:, 0].tolist():
            at, last = n * LAYERS + layer, min(layer - BAND.lower + 1, LAYERS)
            first = max(layer - BAND.upper, 0)
            stretches.append((edges[at], edges[at + 1], edges[n * LAYERS + first], edges[n * LAYERS + last]))

    def way(fused: Tensor) -> Tensor:
        k, q, v = fused.permute(2, 1, 0, 3).unsqueeze(1).unbind(0)
        parts = [
            F.scaled_dot_product_attention(q[..., a:b, :], k[..., c:d, :], v[..., c:d, :]) for a, b, c, d in stretches
        ]
        return torch.cat(parts, dim=2)[0].transpose(0, 1)

    return way


class Blocks:
    """Gathered blocks: queries [B, 64], windows of keys [B, W], and which see which [B, 64, W], in a few W."""

    def __init__(self, per_layer: Tensor, dtype: torch.dtype) -> None:
        n = per_layer.shape[0]
        cell = torch.repeat_interleave(torch.arange(n * LAYERS), per_layer.flatten())
        layer, shower = cell % LAYERS, cell // LAYERS
        edges = F.pad(per_layer.flatten().cumsum(0), (1, 0))
        first = edges[shower * LAYERS + (layer - BAND.upper).clamp(min=0)]
        last = edges[shower * LAYERS + (layer - BAND.lower + 1).clamp(max=LAYERS)]
        ends = per_layer.sum(1).cumsum(0)
        starts = [torch.arange(int(e - s), int(e), BLOCK) for e, s in zip(ends, per_layer.sum(1), strict=True)]
        begin = torch.cat(starts)
        end = torch.minimum(begin + BLOCK, ends[shower[begin]])
        width = last[end - 1] - first[begin]
        self.parts = []
        order = width.argsort(descending=True)
        while len(order):
            wide = int(width[order[0]])
            fits = width[order] * 1.15 >= wide - 8
            chosen, order = order[fits], order[~fits]
            query = begin[chosen, None] + torch.arange(BLOCK)
            real = query < end[chosen, None]
            query = torch.minimum(query, end[chosen, None] - 1)
            key = first[begin[chosen], None] + torch.arange(wide)
            seen = (key[:, None] >= first[query][..., None]) & (key[:, None] < last[query][..., None])
            mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, -torch.inf)[:, None]
            self.parts.append((query, key.clamp(max=len(cell) - 1), mask, real))
        self.back = torch.cat([query[real] for query, _, _, real in self.parts]).argsort()

    def way(self, attend: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], fused: Tensor) -> Tensor:
        k, q, v = fused.unbind(2)
        rows = []
        for query, key, mask, real in self.parts:
            take = [a.index_select(0, i.flatten()).view(*i.shape, HEADS, WIDTH).transpose(1, 2) for a, i in
                    ((q, query), (k, key), (v, key))]  # fmt: skip
            rows.append(attend(*take, mask).transpose(1, 2)[real])
        return torch.cat(rows)[self.back]


def fused_kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def two_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return ((q * WIDTH**-0.5) @ k.transpose(-1, -2) + mask).softmax(-1) @ v


def dense(per_layer: Tensor) -> Way:
    """Showers of equal size: nothing is padded, everything is masked."""
    n, points = len(per_layer), int(per_layer[0].sum())
    layer = torch.stack([torch.repeat_interleave(torch.arange(LAYERS), row) for row in per_layer])
    apart = layer[:, :, None] - layer[:, None]
    mask = ((apart >= BAND.lower) & (apart <= BAND.upper))[:, None]

    def way(fused: Tensor) -> Tensor:
        k, q, v = fused.view(n, points, HEADS, 3, WIDTH).permute(3, 0, 2, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).reshape(n * points, HEADS, WIDTH)

    return way


def flex(per_layer: Tensor) -> Way:
    """torch's compiled flex_attention, without gradient (it has none on a CPU)."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    n, points = len(per_layer), int(per_layer[0].sum())
    layer = torch.stack([torch.repeat_interleave(torch.arange(LAYERS), row) for row in per_layer])

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        apart = layer[b, i] - layer[b, j]
        return (apart >= BAND.lower) & (apart <= BAND.upper)

    mask = create_block_mask(seen, n, None, points, points, device="cpu")
    compiled = torch.compile(flex_attention)

    def way(fused: Tensor) -> Tensor:
        k, q, v = (a.contiguous() for a in fused.view(n, points, HEADS, 3, WIDTH).permute(3, 0, 2, 1, 4).unbind(0))
        return compiled(q, k, v, block_mask=mask).transpose(1, 2).reshape(n * points, HEADS, WIDTH)

    return way


def in_turn(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least seconds of a call of each, taking turns; the call before it is its own, so that its data are in cache."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            run()
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def forward(way: Way, fused: Tensor) -> None:
    with torch.no_grad():
        way(fused)


def both(way: Way, fused: Tensor) -> None:
    leaf = fused.detach().requires_grad_()
    way(leaf).float().sum().backward()


def ways(per_layer: Tensor, dtype: torch.dtype, compiled: bool) -> dict[str, Way]:
    blocks = Blocks(per_layer, dtype)
    found: dict[str, Way] = {
        "rectangles": rectangles(banded_plan(per_layer, BAND)),
        "blocks": partial(blocks.way, fused_kernel),
        "products": partial(blocks.way, two_products),
        "layers": each_layer(per_layer),
    }
    if per_layer.sum() <= 16_000:  # 16 showers of 3,000 points take seconds
        found["dense"] = dense(per_layer)
    if compiled:
        found["flex"] = flex(per_layer)
    return found


def attention_table(repeats: int, compiled: bool) -> None:
    head = f"{'dtype':9}{'batch':>6}{'points':>7} {'way':11}"
    print(head + f"{'forward ms':>11}{'GFLOP/s':>9}{'of GEMM':>8}{'both ms':>10}{'GFLOP/s':>9}{'of GEMM':>8}")
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.randn(1024, 1024).to(dtype)
        for number in (1, 16):
            for points in (200, 1000, 3000):
                per_layer = showers(points, number, np.random.default_rng(points))
                fused = torch.randn(points * number, HEADS, 3, WIDTH).to(dtype)
                found = ways(per_layer, dtype, compiled)
                _check(found, fused, 1e-5 if dtype == torch.float32 else 0.1)
                runs: dict[str, Callable[[], object]] = {"gemm": partial(torch.mm, square, square)}
                for name, way in found.items():
                    runs[f"{name} forward"] = partial(forward, way, fused)
                    if name not in ("layers", "flex"):
                        runs[f"{name} both"] = partial(both, way, fused)
                times = in_turn(runs, repeats)
                gemm, flops = 2 * 1024**3 / times["gemm"], 4 * WIDTH * HEADS * seen_pairs(per_layer)
                for name in found:
                    cells = f"{str(dtype)[6:]:9}{number:6d}{points:7d} {name:11}"
                    for kind, work, width in (("forward", flops, 11), ("both", 3.5 * flops, 10)):
                        seconds = times.get(f"{name} {kind}")
                        if seconds:
                            rate = work / seconds
                            cells += f"{1e3 * seconds:{width}.2f}{rate / 1e9:9.1f}{rate / gemm:8.1%}"
                    print(cells, flush=True)
                print(f"{'':23}matrix product: {gemm / 1e9:.0f} GFLOP/s", flush=True)


def _check(found: dict[str, Way], fused: Tensor, tolerance: float) -> None:
    """All ways compute the same."""
    with torch.no_grad():
        expected = found["rectangles"](fused).float()
        for name, way in found.items():
            assert (way(fused).float() - expected).abs().max() < tolerance, name


def network_table(repeats: int) -> None:
    """Evaluations of the networks at published size, beside their plain padded forms."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    print(
        f"\n{'network':12}{'batch':>6}{'points':>7}{'eval ms/shower':>15}{'bfloat16':>9}{'training':>9}{'bfloat16':>9}"
    )
    ecal, hcal = HadronicTransformer(), HadronicTransformer(condition=49, heads=16, blocks=4, given=4)
    net = PointTransformer(band=BAND)
    for number in (1, 16):
        for points in (200, 1500, 3000):
            per_layer = showers(points, number, rng)
            c = torch.cat([torch.randn(number, 4), torch.zeros(number, 1), per_layer / 1.0], dim=1)
            _network_row("allshowers", net, torch.randn(number * points, 3), c, per_layer.sum(1), repeats)
    for number, points in ((1, 850), (1, 1700), (16, 850)):
        counts = torch.full((number,), points)
        x = torch.randn(number * points, 4)
        _network_row("ecal", ecal, x, torch.randn(number, 31), counts, repeats)
        given = PointCondition(torch.randn(number, 49), x[: len(x) // 2], counts // 2)
        _network_row("hcal", hcal, x, given, counts, repeats)


def _network_row(
    name: str, net: torch.nn.Module, x: Tensor, c: Tensor | PointCondition, counts: Tensor, repeats: int
) -> None:
    t, number = torch.full((len(counts),), 0.3), len(counts)
    with torch.no_grad():
        bound = net.bind(c, counts)

    def evaluate(half: bool) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            bound(x, t)

    def train(half: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = net(x, t, c, counts)
        out.square().mean().backward()

    runs = {f"{run.__name__} {half}": partial(run, half) for run in (evaluate, train) for half in (False, True)}
    times = [1e3 * seconds / number for seconds in in_turn(runs, repeats).values()]
    cells = f"{name:12}{number:6d}{int(counts[0]):7d}"
    print(cells + f"{times[0]:15.1f}{times[1]:9.1f}{times[2]:9.1f}{times[3]:9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--networks", action="store_true", help="time the networks instead")
    parser.add_argument("--compiled", action="store_true", help="also flex_attention, which compiles first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.networks:
        network_table(options.repeats)
    else:
        attention_table(options.repeats, options.compiled)


if __name__ == "__main__":
    main()
