"""The point network: its ways of computing agree, with gradients, and sets and points do not mix."""

import pytest
import torch

from calogen.networks.layers import ConcatSquash, FourierFeatures
from calogen.networks.pointwise import CHUNK, PointwiseNet

COUNTS = torch.tensor([3, 0, CHUNK + 5, 1, 40])


@pytest.fixture
def net() -> PointwiseNet:
    torch.manual_seed(0)
    return PointwiseNet(features=3, condition=2, widths=(8, 16))


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(int(COUNTS.sum()), 3), torch.randn(5), torch.randn(5, 2), COUNTS


def test_the_ways_agree(net: PointwiseNet) -> None:
    x, t, c, counts = inputs()
    u = net.context(t, c)
    packed = net._packed(x, u, counts)
    torch.testing.assert_close(net._each_set(x, u, counts), packed, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(net(x, t, c, counts), packed, atol=1e-5, rtol=1e-4)


def test_gradients_agree(net: PointwiseNet) -> None:
    x, t, c, counts = inputs()
    x.requires_grad_()
    wanted = [x, *net.parameters()]
    ways = (net._packed, net._each_set)
    one, other = (
        torch.autograd.grad((way(x, net.context(t, c), counts) ** 2).sum(), wanted, allow_unused=True) for way in ways
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_each_set_alone(net: PointwiseNet) -> None:
    x, t, c, counts = inputs()
    with torch.no_grad():
        together = net(x, t, c, counts).split(counts.tolist())
        for k, points in enumerate(x.split(counts.tolist())):
            alone = net(points, t[k : k + 1], c[k : k + 1], counts[k : k + 1])
            torch.testing.assert_close(alone, together[k], atol=1e-6, rtol=1e-5)


def test_half_precision_is_close_and_leaves_sets_alone(net: PointwiseNet) -> None:
    x, t, c, counts = inputs()
    with torch.no_grad():
        exact = net(x, t, c, counts)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x, t, c, counts)
            last = net(x[-40:], t[-1:], c[-1:], counts[-1:])
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough[-40:], last, atol=1e-6, rtol=1e-5)
    error = (rough - exact).square().mean().sqrt() / exact.std()
    assert 0 < error < 0.02  # eight bits of mantissa in the inner maps


def test_points_are_equivariant(net: PointwiseNet) -> None:
    x, t, c, counts = inputs()
    order = torch.cat([start + torch.randperm(n) for start, n in zip(counts.cumsum(0) - counts, counts, strict=True)])
    with torch.no_grad():
        torch.testing.assert_close(net(x[order], t, c, counts), net(x, t, c, counts)[order], atol=1e-6, rtol=1e-5)


def test_no_sets(net: PointwiseNet) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert net(torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 2), none).shape == (0, 3)
    with torch.no_grad():
        assert net(torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 2), none).shape == (0, 3)


def test_concat_squash_is_its_formula() -> None:
    layer, x, u = ConcatSquash(3, 5, 2), torch.randn(4, 3), torch.randn(1, 2)
    formula = layer.map(x) * torch.sigmoid(layer.gate(u)) + layer.shift(u)
    torch.testing.assert_close(layer(x, u, torch.zeros(4, dtype=torch.int64)), formula)


def test_fourier_features_lie_on_circles() -> None:
    features = FourierFeatures(8)(torch.randn(5))
    cos, sin = features.chunk(2, dim=1)
    torch.testing.assert_close(cos**2 + sin**2, torch.ones(5, 4))
    with pytest.raises(ValueError, match="pairs"):
        FourierFeatures(7)


def test_what_does_not_fit_is_refused(net: PointwiseNet) -> None:
    x, t, c, counts = inputs()
    with pytest.raises(ValueError, match="packed as"):
        net(x[:, :2], t, c, counts)
    with pytest.raises(ValueError, match="5 sets need"):
        net(x, t[:3], c, counts)
    with pytest.raises(ValueError, match="add up to"):
        net(x[1:], t, c, counts)
