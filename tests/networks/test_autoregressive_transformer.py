"""The energy network of CaloDREAM: the authors' numbers, torch's transformer, a cache that changes nothing, order."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calogen.networks.autoregressive_transformer import AutoregressiveTransformer, ElementVelocity
from calogen.networks.sequence_attention import SequenceAttention
from calogen.systems.published_dream import autoregressive_transformer_from_calodream

TOLERANCE = 1e-5  # of the largest value compared
SIZES = {"width": 16, "heads": 2, "encoder_blocks": 2, "decoder_blocks": 2, "feedforward": 24}
VELOCITY = {"velocity_width": 20, "velocity_depth": 4, "time_features": 8}
LENGTH, N = 7, 5


def same(ours: Tensor, theirs: Tensor) -> None:
    assert float((ours - theirs).detach().abs().max() / theirs.detach().abs().max()) < TOLERANCE


def network(condition: int = 1) -> AutoregressiveTransformer:
    torch.manual_seed(0)
    return AutoregressiveTransformer(LENGTH, condition, **SIZES, **VELOCITY)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def times(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


# --- the authors' network --------------------------------------------------------------------------------------------


def test_published_sizes() -> None:
    def size(**changes: int) -> int:
        return sum(p.numel() for p in AutoregressiveTransformer(**changes).parameters())

    assert size() == 2_384_705
    assert size(feedforward=1024, velocity_width=256) == 1_695_297


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, Any]:
    return torch.load(shared / "parity" / "dream_energy.pt", weights_only=True)


def test_published_velocity(published: dict[str, Any]) -> None:
    c = published["config"]
    net = AutoregressiveTransformer(
        c["shape"][0],
        c["n_con"],
        width=c["dim_embedding"],
        heads=c["n_head"],
        encoder_blocks=c["n_encoder_layers"],
        decoder_blocks=c["n_decoder_layers"],
        feedforward=c["dim_feedforward"],
        velocity_width=c["intermediate_dim"],
        velocity_depth=c["layers_per_block"],
        time_features=c["encode_t_dim"],
    )
    net.load_state_dict(autoregressive_transformer_from_calodream(published["state_dict"]))
    x_t, t, x, condition = (published["inputs"][name][..., 0] for name in ("x_t", "t", "x", "c"))
    same(net(x_t, t, x, condition), published["outputs"]["velocity"][..., 0])
    prefix = {f"model.net.{name}": value for name, value in published["state_dict"].items()}
    net.load_state_dict(autoregressive_transformer_from_calodream(prefix))


@pytest.mark.parametrize("name", ["transformer.encoder.layers.0.norm3.weight", "subnet.4.weight", "c_embed.0.weight"])
def test_foreign_names_are_refused(published: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        autoregressive_transformer_from_calodream(published["state_dict"] | {name: torch.zeros(1)})


@pytest.mark.parametrize("condition", [1, 3])
def test_velocity_is_that_of_torchs_transformer(condition: int) -> None:
    """With several conditions there is no reference of the authors; with one, attention to it is cut short."""
    torch.manual_seed(3)
    d, heads, blocks = SIZES["width"], SIZES["heads"], SIZES["encoder_blocks"]
    torchs = nn.Transformer(d, heads, blocks, blocks, SIZES["feedforward"], dropout=0.0, batch_first=True)
    for p in torchs.parameters():
        nn.init.normal_(p, std=0.3)
    net = network(condition)
    names = {f"transformer.{name}": value for name, value in torchs.state_dict().items()}
    missing, unexpected = net.load_state_dict(autoregressive_transformer_from_calodream(names), strict=False)
    assert not unexpected
    assert all(name.startswith("velocity.") for name in missing)

    x, c, u, t = draw(N, LENGTH), draw(N, condition, seed=4), draw(N, LENGTH, seed=5), times(N, LENGTH)

    def tokens(values: Tensor) -> Tensor:
        n = values.shape[1]
        places = F.one_hot(torch.arange(n), n).expand(len(values), n, n)
        return F.pad(torch.cat([values[..., None], places], dim=2), (0, d - 1 - n))

    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    h = torchs(tokens(c), tokens(F.pad(x[:, :-1], (1, 0))), tgt_mask=mask)
    v = net.velocity
    rows = torch.cat([u[..., None], v.time(v.fourier(t.flatten())).unflatten(0, t.shape), h], dim=2)
    hidden = F.silu(v.first(rows))
    for linear, norm in zip(v.maps, v.norms, strict=True):
        hidden = F.silu(norm(linear(hidden)))
    same(net(u, t, x, c), v.last(hidden)[..., 0])


# --- element after element -------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("condition", [1, 3])
def test_the_cache_changes_nothing(condition: int) -> None:
    net, x, c, u = network(condition), draw(N, LENGTH), draw(N, condition, seed=4), draw(N, LENGTH, seed=5)
    prefix, previous, velocities = net.begin(c), None, []
    for i in range(LENGTH):
        velocity = prefix.next(previous)
        velocities.append(velocity(u[:, i : i + 1], torch.tensor(0.3)))
        previous = x[:, i : i + 1]
    same(torch.cat(velocities, dim=1), net(u, torch.full((N, LENGTH), 0.3), x, c))
    with pytest.raises(ValueError, match="all 7 elements are drawn"):
        prefix.next(previous)


@torch.no_grad()
@pytest.mark.parametrize("changed", range(LENGTH))
def test_an_element_sees_those_before_it_alone(changed: int) -> None:
    net, x, c, u, t = network(), draw(N, LENGTH), draw(N, 1, seed=4), draw(N, LENGTH, seed=5), times(N, LENGTH)
    other = x.clone()
    other[:, changed] += 1
    difference = (net(u, t, other, c) - net(u, t, x, c)).abs().amax(0)
    assert bool((difference[: changed + 1] == 0).all())
    assert bool((difference[changed + 1 :] > 1e-6).all())
    assert bool(((net(u, t, x, c + 1) - net(u, t, x, c)).abs().amax(0) > 1e-6).all())


@torch.no_grad()
def test_a_sequence_does_not_know_its_batch() -> None:
    net, x, c, u, t = network(2), draw(N, LENGTH), draw(N, 2, seed=4), draw(N, LENGTH, seed=5), times(N, LENGTH)
    together = net(u, t, x, c)
    for k in range(N):
        row = slice(k, k + 1)
        same(net(u[row], t[row], x[row], c[row]), together[row])
    assert net(u[:0], t[:0], x[:0], c[:0]).shape == (0, LENGTH)


def test_one_time_for_all_with_and_without_gradient() -> None:
    net, x, c, u = network(), draw(N, LENGTH), draw(N, 1, seed=4), draw(N, LENGTH, seed=5)
    t = torch.tensor(0.3, requires_grad=True)
    chosen = slice(2, 5)
    velocity = net.given(x, c, chosen)
    with torch.no_grad():
        first, second = velocity(u[:, chosen], t), velocity(u[:, chosen], t)
    each = net(u, torch.full((N, LENGTH), 0.3), x, c)[:, chosen]
    same(first, each)
    same(second, each)
    learned = velocity(u[:, chosen], t)
    same(learned, each)
    slope = torch.autograd.grad(learned.sum(), t)[0]
    step = 1e-3
    with torch.no_grad():
        rise = (velocity(u[:, chosen], t + step) - velocity(u[:, chosen], t - step)).sum() / (2 * step)
    assert abs(float(slope - rise)) < 0.05 * abs(float(slope))


def test_everything_learns_but_queries_of_the_only_condition() -> None:
    net, x, c, u, t = network(), draw(N, LENGTH), draw(N, 1, seed=4), draw(N, LENGTH, seed=5), times(N, LENGTH)
    net(u, t, x, c).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        idle = (name.startswith("encoder") and ".attention.query" in name) or "memory_attention.query" in name
        values = p.grad[2 * SIZES["width"] :] if idle else p.grad
        assert float(values.abs().max()) > 0, name
        if idle:
            assert float(p.grad[: 2 * SIZES["width"]].abs().max()) < 1e-7


def test_half_precision_keeps_the_numbers_near() -> None:
    net, x, c, u, t = network(), draw(N, LENGTH), draw(N, 1, seed=4), draw(N, LENGTH, seed=5), times(N, LENGTH)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(u, t, x, c)
    whole = net(u, t, x, c)
    assert half.dtype == torch.float32
    assert float((half - whole).detach().abs().max() / whole.detach().abs().max()) < 0.05


# --- what is refused -------------------------------------------------------------------------------------------------


def test_sizes_that_cannot_be() -> None:
    for length, condition in ((16, 1), (0, 1), (7, 0), (7, 16)):
        with pytest.raises(ValueError, match="a width above both"):
            AutoregressiveTransformer(length, condition, **SIZES, **VELOCITY)
    with pytest.raises(ValueError, match="cannot be cut into 3 heads"):
        SequenceAttention(16, 3)
    with pytest.raises(ValueError, match="depth=1 is below 2"):
        ElementVelocity(16, depth=1)


def test_shapes_that_do_not_fit() -> None:
    net, x, c = network(), draw(N, LENGTH), draw(N, 1)
    with pytest.raises(ValueError, match=r"sequences must be \[5, 7\]"):
        net.given(x[:, 1:], c)
    with pytest.raises(ValueError, match=r"conditions must be \[N, 1\]"):
        net.given(x, draw(N, 2))
    velocity = net.given(x, c)
    with pytest.raises(ValueError, match="at one time or one each"):
        velocity(x, torch.zeros(N))
    with pytest.raises(ValueError, match="at one time or one each"):
        velocity(x[:, 1:], torch.tensor(0.5))
    prefix = net.begin(c)
    with pytest.raises(ValueError, match="the first None"):
        prefix.next(x[:, :1])
    prefix.next(None)
    with pytest.raises(ValueError, match="the first None"):
        prefix.next(None)
    with pytest.raises(ValueError, match="element 1 follows one"):
        prefix.next(x[:, 0])
