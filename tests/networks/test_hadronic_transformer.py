"""The transformers of CaloHadronic: torch's own layers with equal weights agree, and no set sees another."""

import math

import pytest
import torch
from torch import Tensor, nn

from calogen.networks.hadronic_transformer import HadronicTransformer, PointCondition, PointFeatures, SetCompressor
from calogen.systems.published_points import hadronic_transformer_from_calohadronic

COUNTS, GIVEN = torch.tensor([30, 0, 1, 75]), torch.tensor([12, 5, 0, 40])
SIZES = {"width": 32, "heads": 4, "blocks": 2, "feedforward": 48, "condition": 5, "time_features": 16}
SETS = len(COUNTS)


def network(given: int, added: bool = False) -> HadronicTransformer:
    torch.manual_seed(0)
    return HadronicTransformer(given=given, added=added, **SIZES)


def inputs(given: int) -> tuple[Tensor, Tensor, Tensor | PointCondition, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x, t, values = draw(int(COUNTS.sum()), 4), draw(SETS), draw(SETS, 5)
    c = PointCondition(values, draw(int(GIVEN.sum()), given), GIVEN) if given else values
    return x, t, c, COUNTS


class Reference(nn.Module):
    """One padded set at a time through torch's transformer layers, modules named as the published checkpoints are."""

    def __init__(self, given: int) -> None:
        super().__init__()
        d, heads, wide, context = SIZES["width"], SIZES["heads"], SIZES["feedforward"], SIZES["condition"]
        half, time = d // 2, SIZES["time_features"]
        self.given = given
        self.timestep_embeding = nn.Sequential(nn.Identity(), nn.Linear(time, time), nn.GELU(), nn.Linear(time, d))
        self.timestep_embeding[0].weight = nn.Parameter(torch.randn(time // 2, 1))
        out = half if given else d
        self.context_embeding = nn.Sequential(nn.Linear(context, context), nn.GELU(), nn.Linear(context, out))
        self.point_embeding = nn.Sequential(nn.Identity(), nn.Linear(260, d))
        layer = nn.TransformerEncoderLayer(d, heads, wide, dropout=0.0, batch_first=True)
        self.denoiser = nn.TransformerEncoder(layer, SIZES["blocks"], enable_nested_tensor=False)
        if given:
            self.context_embeding_ecal = nn.Sequential(nn.Linear(given, given), nn.GELU(), nn.Linear(given, half))
            self.extra_layer = nn.Linear(half, d)
            self.compressor = nn.ModuleDict({"token_proj": nn.Linear(given, 10), "point_proj": nn.Linear(given, given)})
            decoder = nn.TransformerDecoderLayer(d, heads, wide, dropout=0.0, batch_first=True)
            self.trasf_decoder = nn.TransformerDecoder(decoder, 1)
        self.decoder = nn.Sequential(
            nn.Linear(d, half), nn.GELU(), nn.Linear(half, half // 2), nn.GELU(), nn.Linear(half // 2, 4)
        )

    def forward(self, x: Tensor, t: Tensor, values: Tensor, points: Tensor | None, padding: int) -> Tensor:
        """x [n, 4], t scalar, values [C], points [m, F] -> [n, 4], with so much padding behind the points."""
        n = len(x)
        x = torch.cat([x, torch.full((padding, 4), 7.0)])
        waves = [wave(f * x) for f in 2 ** torch.linspace(0, 16, 32) for wave in (torch.sin, torch.cos)]
        embedded = self.point_embeding[1](torch.cat([x, *waves], dim=1))
        phase = 2 * math.pi * t * self.timestep_embeding[0].weight[:, 0]
        time = self.timestep_embeding[1:](torch.cat([phase.cos(), phase.sin()]))[None]
        context = self.context_embeding(values)[None]
        if points is not None:
            w = self.compressor["token_proj"](points).softmax(1)
            tokens = (w.T @ self.compressor["point_proj"](points)) / (w.sum(0)[:, None] + 1e-6)
            context = self.extra_layer(torch.cat([context, self.context_embeding_ecal(tokens)]))
        hidden = torch.arange(len(x)) >= n
        all_hidden = torch.cat([hidden, torch.zeros(1 + len(context), dtype=torch.bool)])[None]
        h = self.denoiser(torch.cat([embedded, time, context])[None], src_key_padding_mask=all_hidden)
        if points is not None:
            h = self.trasf_decoder(
                embedded[None], h, tgt_key_padding_mask=hidden[None], memory_key_padding_mask=all_hidden
            )
        return self.decoder(h[0, :n])


@pytest.mark.parametrize("given", [0, 4])
@pytest.mark.parametrize("grad", [True, False])
def test_torchs_own_layers_agree(given: int, grad: bool) -> None:
    torch.manual_seed(2)
    theirs, ours = Reference(given), network(given)
    ours.load_state_dict(
        hadronic_transformer_from_calohadronic(
            {f"module.diffusion.inner_model.{name}": value for name, value in theirs.state_dict().items()}
        )
    )
    x, t, c, counts = inputs(given)
    values, points = (c.values, c.points.split(GIVEN.tolist())) if isinstance(c, PointCondition) else (c, [None] * SETS)
    with torch.set_grad_enabled(grad):
        out = ours(x, t, c, counts).split(counts.tolist())
        for k, mine in enumerate(x.split(counts.tolist())):
            if len(mine):
                expected = theirs(mine, t[k], values[k], points[k], padding=9)
                torch.testing.assert_close(out[k], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("given", [0, 4])
@torch.no_grad()
def test_a_set_alone_is_what_it_is_in_a_batch(given: int, added: bool) -> None:
    net = network(given, added)
    x, t, c, counts = inputs(given)
    together = net(x, t, c, counts).split(counts.tolist())
    for k, mine in enumerate(x.split(counts.tolist())):
        alone = net(mine, t[k : k + 1], c[k : k + 1], counts[k : k + 1])
        torch.testing.assert_close(alone, together[k], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("given", [0, 4])
@torch.no_grad()
def test_points_are_equivariant_and_see_each_other(given: int) -> None:
    net = network(given)
    x, t, c, counts = inputs(given)
    before = net(x, t, c, counts)
    order = torch.cat([torch.randperm(30), torch.arange(30, len(x))])
    torch.testing.assert_close(net(x[order], t, c, counts), before[order], atol=2e-6, rtol=1e-5)
    x[0] += 1
    assert (net(x, t, c, counts) - before)[1:30].abs().min() > 0


def test_given_points_change_their_own_set_only() -> None:
    net = network(4)
    x, t, c, counts = inputs(4)
    assert isinstance(c, PointCondition)
    moved = PointCondition(c.values, c.points.index_fill(0, torch.tensor([0]), 3.0), c.counts)
    difference = (net(x, t, moved, counts) - net(x, t, c, counts)).abs().amax(1)
    assert difference[:30].min() > 0
    assert difference[30:].max() == 0


@pytest.mark.parametrize("given", [0, 4])
def test_every_parameter_has_a_gradient(given: int) -> None:
    net = network(given)
    net(*inputs(given)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@torch.no_grad()
def test_half_precision_is_close() -> None:
    net = network(4)
    exact = net(*inputs(4))
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(*inputs(4))
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).square().mean().sqrt() / exact.std() < 0.03


def test_published_sizes() -> None:
    sizes = [
        sum(p.numel() for p in net.parameters())
        for net in (HadronicTransformer(), HadronicTransformer(condition=49, heads=16, blocks=4, given=4))
    ]
    assert sizes == [656_260, 1_128_400]


def test_point_features_are_their_formula() -> None:
    x = torch.tensor([[0.5, -1.0]])
    features = PointFeatures(highest=2.0, number=3)(x)
    expected = torch.cat([x, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos(), (4 * x).sin(), (4 * x).cos()], dim=1)
    torch.testing.assert_close(features, expected)


def test_compressed_tokens_are_means() -> None:
    compressor = SetCompressor(4, 10)
    points = torch.randn(1, 4).repeat(6, 1)
    tokens = compressor(points, torch.tensor([6, 0]))
    torch.testing.assert_close(tokens[0], compressor.values(points[:1]).expand(10, 4), atol=1e-4, rtol=1e-4)
    assert not tokens[1].any()


def test_rows_of_a_condition() -> None:
    _, _, c, _ = inputs(4)
    assert isinstance(c, PointCondition)
    part = c[1:3]
    assert len(part) == 2
    assert part.counts.tolist() == [5, 0]
    torch.testing.assert_close(part.points, c.points[12:17])


def test_what_does_not_fit_is_refused() -> None:
    x, t, c, counts = inputs(4)
    assert isinstance(c, PointCondition)
    with pytest.raises(ValueError, match="takes no points"):
        network(0)(x, t, c, counts)
    with pytest.raises(ValueError, match="needs points"):
        network(4)(x, t, c.values, counts)
    with pytest.raises(ValueError, match="need a condition"):
        network(4)(x, t, c, counts[:3])
    with pytest.raises(ValueError, match="points must be"):
        network(4)(x[1:], t, c, counts)
    with pytest.raises(ValueError, match="do not describe"):
        PointCondition(c.values, c.points[1:], c.counts)
    with pytest.raises(ValueError, match="cut into"):
        HadronicTransformer(heads=7)
    with pytest.raises(ValueError, match="no part of a denoiser"):
        hadronic_transformer_from_calohadronic({"other.weight": torch.zeros(1)})
