"""The codebook: its loss and gradients are the formulas, codes that nobody uses move, and it says how much is used."""

import math

import pytest
import torch
from torch import Tensor

from calogen.methods.codebook import Codebook, Usage, beside


def book(codes: int = 40, dim: int = 3, **changes: float) -> Codebook:
    """A codebook in double precision whose affine map does something."""
    torch.manual_seed(0)
    made = Codebook(codes, dim, **changes).double()
    with torch.no_grad():
        made.scale.normal_(std=0.1)
        made.bias.normal_(std=0.1)
    return made


def points(n: int = 25, dim: int = 3) -> Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_values_ids_and_loss() -> None:
    b, z = book(beta=0.8), points()
    out = b(z)
    codes = (1 + 2 * b.scale) * b.weight + 2 * b.bias
    assert torch.equal(out.ids, torch.cdist(z, codes).argmin(1))
    assert torch.equal(out.values, codes[out.ids])  # not only nearly: decoding the ids gives the same
    assert torch.equal(out.values, b.lookup(out.ids))
    torch.testing.assert_close(out.loss, (z - codes[out.ids]).square().mean(1))


@pytest.mark.parametrize("sync", [0.0, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.8, 1.0])
def test_who_moves(beta: float, sync: float) -> None:
    """Points get the gradient of their values whole, codes a share of it; the loss is divided by beta."""
    b, z = book(beta=beta, sync=sync), points().requires_grad_()
    out = b(z)
    code, g = out.values.detach(), torch.randn_like(z)
    by_point, by_weight, by_bias = torch.autograd.grad((out.values * g).sum(), (z, b.weight, b.bias), retain_graph=True)
    torch.testing.assert_close(by_point, g)
    to_codes = torch.zeros_like(b.weight).index_add(0, out.ids, sync * g)
    torch.testing.assert_close(by_weight, to_codes * (1 + 2 * b.scale.detach()))
    torch.testing.assert_close(by_bias, 2 * sync * g.sum(0))
    by_point, by_weight = torch.autograd.grad(out.loss.sum(), (z, b.weight))
    apart = 2 * (z.detach() - code) / 3
    torch.testing.assert_close(by_point, (1 - beta) * apart)
    to_codes = torch.zeros_like(b.weight).index_add(0, out.ids, -beta * apart)
    torch.testing.assert_close(by_weight, to_codes * (1 + 2 * b.scale.detach()))


def test_the_unused_die_on_time_and_come_back_where_points_are() -> None:
    b, z = book(patience=3), points()
    b.train()
    generator = torch.Generator().manual_seed(0)
    used = b(z).ids.unique()
    unused = sorted(set(range(40)) - set(used.tolist()))
    for step in range(3):
        b.forget()
        b(z)
        dead = b.age()
        assert dead.tolist() == (unused if step == 2 else [])
    assert (b.life[used] == 3).all()
    before = b.codes().detach().clone()
    b.replace(dead, b.fresh(dead, generator))
    after = b.codes().detach()
    assert torch.equal(after[used], before[used])
    near = torch.cdist(after[dead], z)
    assert (near.amin(1) < 0.06 * z[near.argmin(1)].norm(dim=1)).all()
    assert (b.life == 3).all()
    assert len(set(near.argmin(1).tolist())) == min(len(dead), len(z))  # each point once before any twice


def test_an_evaluation_is_not_accounted_for() -> None:
    b = book().eval()
    b(points())
    assert not b.used.any()
    assert not b.tally.any()
    assert b.seen is None


def test_without_points_the_dead_stay_where_they_are() -> None:
    b = book()
    b.train()(points(0))
    dead = torch.tensor([3, 5])
    assert torch.equal(b.fresh(dead, torch.Generator()), b.codes()[dead])


def test_codes_can_start_at_points() -> None:
    b, z = book(codes=60), points()
    b.start_at(z, torch.Generator().manual_seed(0))
    assert len(b.eval()(z).ids.unique()) == len(z)
    assert float(b(z).loss.detach().max()) < 1e-2
    with pytest.raises(ValueError, match="there are none"):
        b.start_at(z[:0], torch.Generator())


def test_repeats_by_its_generator() -> None:
    z = points()
    one, same, other = (beside(z, 60, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_usage() -> None:
    assert Usage.of(torch.tensor([0, 0, 5, 5])) == (0.5, pytest.approx(2.0))
    assert Usage.of(torch.zeros(4)) == (0.0, 0.0)
    assert Usage.of(torch.tensor([9, 0, 0])) == (pytest.approx(1 / 3), 1.0)
    b = book()
    b.train()
    ids = torch.cat([b(points()).ids, b(points()).ids])
    assert torch.equal(b.tally, torch.bincount(ids, minlength=40))
    entropy = Usage.of(b.tally).perplexity
    assert 1 < entropy <= len(ids.unique())
    assert not math.isnan(entropy)


def test_it_learns_clusters() -> None:
    """Points in 16 places: all codes but few are used, and points come close to theirs."""
    torch.manual_seed(0)
    b = Codebook(16, 2, patience=5).train()
    centres = torch.tensor([(x, y) for x in range(4) for y in range(4)]).float()
    optimizer = torch.optim.Adam(b.parameters(), lr=0.03)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        z = centres[torch.randint(16, (64,), generator=generator)] + 0.05 * torch.randn(64, 2, generator=generator)
        b.forget()
        loss = b(z).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dead = b.age()
        b.replace(dead, b.fresh(dead, generator))
    assert float(b(centres).loss.mean()) < 0.05
    assert len(b(centres).ids.unique()) >= 14


def test_refusals() -> None:
    b = book()
    with pytest.raises(ValueError, match="NaN"):
        b(torch.full((1, 3), float("nan")).double())
    with pytest.raises(ValueError, match="40 is no code: this codebook has 0 to 39"):
        b.lookup(torch.tensor([3, 40]))
    with pytest.raises(ValueError, match="-1 is no code"):
        b.lookup(torch.tensor([-1]))
    with pytest.raises(ValueError, match="a codebook needs 2 codes"):
        Codebook(1, 3)
    with torch.no_grad():
        b.scale.fill_(-0.5)
    with pytest.raises(ValueError, match="collapsed"):
        b.replace(torch.tensor([0]), torch.zeros(1, 3).double())
