"""The transformer of near layers: its size, its sets, and layers known by their properties. Parity: tests/systems."""

import pytest
import torch
from torch import Tensor

from calogen.networks.banded_attention import Band
from calogen.networks.point_transformer import PointTransformer

PER_LAYER = torch.tensor([[0, 4, 9, 2, 0, 3], [0, 0, 0, 0, 0, 0], [7, 0, 0, 1, 5, 30]])
COUNTS = PER_LAYER.sum(1)
LAYERS = PER_LAYER.shape[1]
SIZES = {"particles": 3, "width": 16, "heads": 2, "blocks": 2, "feedforward": 24, "counts_width": 20}


def network(layers: int | Tensor = LAYERS, **options: object) -> PointTransformer:
    torch.manual_seed(0)
    return PointTransformer(layers, **(SIZES | options))


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, numbers = torch.randn(int(COUNTS.sum()), 3, generator=generator), torch.randn(3, 4, generator=generator)
    c = torch.cat([numbers, torch.tensor([[0.0], [2.0], [1.0]]), PER_LAYER], dim=1)
    return x, torch.rand(3, generator=generator), c, COUNTS


@pytest.mark.parametrize("layers", [LAYERS, torch.linspace(-1, 1, 2 * LAYERS).view(LAYERS, 2)], ids=["index", "map"])
@torch.no_grad()
def test_a_set_alone_is_what_it_is_in_a_batch(layers: int | Tensor) -> None:
    net = network(layers)
    x, t, c, counts = inputs()
    together = net(x, t, c, counts).split(counts.tolist())
    for k, mine in enumerate(x.split(counts.tolist())):
        alone = net(mine, t[k : k + 1], c[k : k + 1], counts[k : k + 1])
        torch.testing.assert_close(alone, together[k], atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_points_see_near_layers_only() -> None:
    """With one block, moving the points of layer 5 reaches layers 3 to 5 of the same set and no other."""
    net = network(blocks=1, band=Band(-2, 2))
    x, t, c, counts = inputs()
    before = net(x, t, c, counts)
    moved = x.clone()
    moved[15:18] += 1  # layer 5 of the first set
    changed = (net(moved, t, c, counts) - before).abs().amax(1) > 0
    assert changed.nonzero()[:, 0].tolist() == [13, 14, 15, 16, 17]  # the two points of layer 3, the three of layer 5


@torch.no_grad()
def test_bound_once_or_each_time() -> None:
    net = network()
    x, t, c, counts = inputs()
    bound = net.bind(c, counts)
    torch.testing.assert_close(bound(x, t), net(x, t, c, counts))
    torch.testing.assert_close(bound(2 * x, 1 - t), net(2 * x, 1 - t, c, counts))


@torch.no_grad()
def test_forms_with_and_without_gradient_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calogen.networks.point_transformer.CHUNK", 7)
    net, arguments = network(), inputs()
    without = net(*arguments)
    with torch.enable_grad():
        torch.testing.assert_close(net(*arguments).detach(), without, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_half_precision_is_close() -> None:
    net = network()
    exact = net(*inputs())
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(*inputs())
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).square().mean().sqrt() / exact.std() < 0.03


def test_parameters_of_a_detector_fit_another() -> None:
    """Known by properties, layers may be more, others, or those of two detectors one after the other."""
    generator = torch.Generator().manual_seed(2)
    here, there = torch.randn(LAYERS, 3, generator=generator), torch.randn(4, 3, generator=generator)
    one, both = network(here), network(torch.cat([there, here]))
    both.load_state_dict(one.state_dict())
    x, t, c, counts = inputs()
    shifted = torch.cat([c[:, :5], torch.zeros(3, 4), c[:, 5:]], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(both(x, t, shifted, counts), one(x, t, c, counts), atol=1e-5, rtol=1e-5)
    network(there).load_state_dict(one.state_dict())


@pytest.mark.parametrize("layers", [LAYERS, torch.linspace(-1, 1, 2 * LAYERS).view(LAYERS, 2)], ids=["index", "map"])
def test_every_parameter_has_a_gradient(layers: int | Tensor) -> None:
    net = network(layers)
    net(*inputs()).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_published_size() -> None:
    assert sum(p.numel() for p in PointTransformer().parameters()) == 263_491


def test_what_does_not_fit_is_refused() -> None:
    net = network()
    x, t, c, counts = inputs()
    with pytest.raises(ValueError, match="add up to its count"):
        net(x, t, c, counts + 1)
    with pytest.raises(ValueError, match="need a condition"):
        net(x, t, c[:, 1:], counts)
    with pytest.raises(ValueError, match="points must be"):
        net(x[1:], t, c, counts)
    with pytest.raises(ValueError, match="known are 0 to 2"):
        net(x, t, c.index_fill(1, torch.tensor([4]), 3), counts)
    with pytest.raises(ValueError, match="cut into"):
        network(heads=5)
    with pytest.raises(ValueError, match="finite numbers"):
        network(torch.full((LAYERS, 2), torch.nan))
