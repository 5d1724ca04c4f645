"""The transformer of voxels: its sizes, how it starts, who sees whom. Parity: tests/systems/test_published_vit.py."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calogen.methods.conditional import Bindable
from calogen.methods.flow_matching import FlowMatching
from calogen.networks.patches import ABSENT, Patches
from calogen.networks.voxel_positions import FixedFrequencies, LearnedFrequencies
from calogen.networks.voxel_transformer import VoxelTransformer

SIZES: dict[str, Any] = {"width": 24, "heads": 3, "blocks": 2, "feedforward": 40}
GRID = Patches.of_grid((4, 4, 3), (2, 2, 1))  # 12 patches in two layers of six
STACK = Patches.of_layers([(1, 5), (4, 3), (4, 3), (2, 2)], (2, 2, 2))


def network(patches: Patches = GRID, **options: Any) -> VoxelTransformer:
    """One that is away from its start."""
    torch.manual_seed(0)
    net = VoxelTransformer(patches, 5, **(SIZES | options))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net


def inputs(net: VoxelTransformer, n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, net.patches.voxels, generator=generator)
    return x, torch.rand(n, generator=generator), torch.randn(n, 5, generator=generator)


@pytest.mark.parametrize(
    ("grid", "patch", "options", "size"),
    [
        ((45, 16, 9), (3, 16, 1), {}, 26_042_688),
        ((45, 50, 18), (3, 5, 2), {"width": 240, "feedforward": 720}, 5_868_870),
        ((15, 9, 9), (3, 1, 1), {"width": 240, "feedforward": 960, "blocks": 10, "channels": 2}, 10_711_566),
        ((9, 26, 16), (3, 2, 2), {"width": 240, "feedforward": 960, "blocks": 10, "channels": 2}, 10_720_224),
    ],
    ids=["data set 2", "data set 3", "latents of 2", "latents of 3"],
)
def test_published_sizes(
    grid: tuple[int, int, int], patch: tuple[int, int, int], options: dict[str, int], size: int
) -> None:
    channels = options.pop("channels", 1)
    net = VoxelTransformer(Patches.of_grid(grid, patch, channels), 46, **options)
    assert sum(p.numel() for p in net.parameters()) == size


def test_the_start_is_a_velocity_of_zero() -> None:
    net = VoxelTransformer(GRID, 5, **SIZES)
    x, t, c = inputs(net)
    v = net(x, t, c)
    assert torch.equal(v, torch.zeros_like(x))
    (v - x).square().mean().backward()
    assert net.head.weight.grad is not None
    assert float(net.head.weight.grad.abs().max()) > 0  # and it can leave


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_who_sees_whom(causal: bool) -> None:
    net = network(STACK, causal=causal)
    x, t, c = inputs(net)
    before = net(x, t, c)
    last = x.clone()
    last[:, -1] += 1  # a voxel of the last layer
    changed = (net(last, t, c) - before).abs().amax(0) > 0
    assert changed[29:].all()  # its whole layer
    assert bool(changed[:29].any()) != causal
    first = x.clone()
    first[:, 0] += 1
    assert ((net(first, t, c) - before).abs().amax(0) > 0).all()


@pytest.mark.parametrize("grad", [True, False])
def test_a_causal_mask_in_steps_is_the_mask(grad: bool) -> None:
    """Attention layer by layer is what a dense mask makes of it."""
    net = network(blocks=1, causal=True)
    x, t, c = inputs(net)
    depth = torch.arange(len(GRID)) // 6
    mask = depth[:, None] >= depth
    with torch.set_grad_enabled(grad):
        ours = net(x, t, c)
        dense = nn.functional.scaled_dot_product_attention
        net.causal = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.functional, "scaled_dot_product_attention", lambda *qkv: dense(*qkv, attn_mask=mask))
            torch.testing.assert_close(ours, net(x, t, c), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_absent_voxels_do_not_matter(causal: bool) -> None:
    """Layers of three rings are the same as layers of four whose last ring is empty and ignored."""
    rings = [(0.0, 0.25, 0.5)] * 4
    layers = Patches.of_layers([(4, 3)] * 4, (2, 2, 2), rings=rings)
    grid = Patches.of_grid((4, 4, 4), (2, 2, 2))
    assert ABSENT in layers.index
    assert ABSENT not in grid.index
    ours, padded = network(layers, causal=causal), network(grid, causal=causal)
    padded.load_state_dict(ours.state_dict())
    x, t, c = inputs(ours)
    full = nn.functional.pad(x.view(3, 16, 3), (0, 1)).flatten(1)
    expected = padded(full, t, c).view(3, 16, 4)[:, :, :3].flatten(1)
    torch.testing.assert_close(ours(x, t, c), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("patches", [GRID, STACK], ids=["grid", "stack"])
@torch.no_grad()
def test_a_shower_alone_is_what_it_is_in_a_batch(patches: Patches) -> None:
    net = network(patches)
    x, t, c = inputs(net, 100)  # more than go through the blocks together
    together = net(x, t, c)
    for k in (0, 1, 57, 99):
        alone = net(x[k : k + 1], t[k : k + 1], c[k : k + 1])
        torch.testing.assert_close(alone, together[k : k + 1], atol=2e-6, rtol=1e-5)
    assert net(x[:0], t[:0], c[:0]).shape == (0, patches.voxels)


@pytest.mark.parametrize("gelu", ["tanh", "none"])
def test_with_gradient_and_without(gelu: str) -> None:
    net = network(gelu=gelu)
    x, t, c = inputs(net, 70)
    learning = net(x, t, c)
    with torch.no_grad():
        drawing = net.bind(c)(x, t)
    torch.testing.assert_close(learning, drawing, atol=2e-6, rtol=1e-5)
    learning.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


@torch.no_grad()
def test_times_given_in_advance() -> None:
    net = network()
    x, t, c = inputs(net)
    plain, scheduled = net.bind(c), net.bind(c)
    scheduled.schedule(torch.tensor([0.0, 0.3]))
    for time in (torch.full((3,), 0.3), torch.zeros(3), torch.full((3,), 0.4), t, torch.tensor(0.3).expand(3)):
        torch.testing.assert_close(scheduled(x, time), plain(x, time), atol=2e-6, rtol=1e-5)


def test_bfloat16_is_near() -> None:
    net = network(STACK)
    x, t, c = inputs(net, 50)
    exact = net(x, t, c).detach()
    with torch.autocast("cpu", torch.bfloat16):
        near = net(x, t, c)
        with torch.no_grad():
            drawn = net(x, t, c)
    assert near.dtype == drawn.dtype == torch.float32
    near.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.blocks.bfloat16()
    with torch.no_grad():
        stored = net(x, t, c)
    torch.testing.assert_close(stored, drawn, atol=0, rtol=0)
    for other in (near, drawn):
        error = (other.detach() - exact).square().mean() / exact.square().mean()
        assert 0 < float(error) < 1e-3


def test_it_learns_and_draws_as_a_flow() -> None:
    """Voxels that follow from the condition are drawn near what they should be."""
    torch.manual_seed(2)
    net = VoxelTransformer(STACK, 5, **SIZES)
    assert isinstance(net, Bindable)
    flow = FlowMatching(net, STACK.voxels)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    direction = torch.randn(5, STACK.voxels)
    for _ in range(80):
        c = torch.randn(32, 5)
        optimizer.zero_grad()
        flow.loss(c @ direction, c).mean().backward()
        optimizer.step()
    c = torch.randn(64, 5)
    x = flow.sample(c, steps=8, generator=torch.Generator().manual_seed(3))
    target = c @ direction
    assert float((x - target).square().mean() / target.square().mean()) < 0.4


def test_positions() -> None:
    """Cartesian axes know that an angle of one turn is none; the last axis comes first."""
    where = torch.tensor([[0.5, 0.0, 0.3], [0.5, 1.0, 0.3], [0.5, 0.25, 0.3]])
    p = FixedFrequencies(24, "cartesian")(where)
    torch.testing.assert_close(p[0], p[1])
    torch.testing.assert_close(p[2, 8:12], torch.sin(0.3 * 10_000.0 ** (-torch.arange(4) / 3)))
    assert float(p[2, :4].abs().max()) < 1e-6
    learned = LearnedFrequencies(24)
    torch.testing.assert_close(learned(where)[0, :4], torch.sin(2 * torch.pi * 0.3 * learned.frequencies[8:]))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 6"):
        VoxelTransformer(GRID, 5, width=32, heads=4)
    with pytest.raises(ValueError, match="7 heads"):
        VoxelTransformer(GRID, 5, width=24, heads=7)
    with pytest.raises(ValueError, match="unknown axes"):
        FixedFrequencies(24, "polar")  # type: ignore[arg-type]
    net = network()
    x, t, c = inputs(net)
    with pytest.raises(ValueError, match=r"must be \[N, 5\]"):
        net(x, t, c[:, :4])
    with pytest.raises(ValueError, match="need as many x and t"):
        net(x, t[:2], c)
    with pytest.raises(ValueError, match="counts must be one"):
        net.bind(c, torch.tensor([1, 2, 1]))
