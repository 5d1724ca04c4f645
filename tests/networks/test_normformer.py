"""NormFormer: at first it changes nothing; order means nothing; sets do not see each other."""

import pytest
import torch
from torch import Tensor

from calogen.networks.normformer import NormFormer, NormFormerBlock

COUNTS = torch.tensor([5, 0, 1, 9])


def awake(condition: int = 0, dropout: float = 0.0) -> NormFormer:
    """A small network in double precision, none of whose weights is 0."""
    torch.manual_seed(0)
    net = NormFormer(4, 3, width=16, heads=4, blocks=2, dropout=dropout, condition=condition).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def points(seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(int(COUNTS.sum()), 4, dtype=torch.float64, generator=generator)


def test_a_new_block_changes_nothing_and_can_learn() -> None:
    torch.manual_seed(0)
    block, h = NormFormerBlock(16, 4), torch.randn(7, 16)
    out = block(h, [3, 4])
    assert torch.equal(out, h)
    out.square().sum().backward()
    assert float(block.norm_attention.weight.grad.abs().max()) > 0
    assert float(block.narrow.weight.grad.abs().max()) > 0


@torch.no_grad()
def test_sets_do_not_see_each_other_and_have_no_order() -> None:
    net, x = awake(), points()
    out = net(x, COUNTS)
    assert out.shape == (15, 3)
    for part, own in zip(x.split(COUNTS.tolist()), out.split(COUNTS.tolist()), strict=True):
        torch.testing.assert_close(net(part, torch.tensor([len(part)])), own)
    order = torch.cat([torch.randperm(n) + start for n, start in zip([5, 1, 9], [0, 5, 6], strict=True)])
    torch.testing.assert_close(net(x[order], COUNTS), out[order])
    moved = x.clone()
    moved[14] += 1
    changed = (net(moved, COUNTS) - out).abs().amax(1) > 1e-9
    assert changed.tolist() == [False] * 6 + [True] * 9


@torch.no_grad()
def test_a_condition_is_nothing_at_first_and_each_set_s_own() -> None:
    torch.manual_seed(0)
    new = NormFormer(4, 3, width=16, heads=4, blocks=2, condition=2).double()
    x, c = points(), torch.randn(4, 2).double()
    assert torch.equal(new(x, COUNTS, c), new(x, COUNTS, torch.zeros_like(c)))
    net = awake(condition=2)
    out, other = net(x, COUNTS, c), c.clone()
    other[0] += 1
    changed = (net(x, COUNTS, other) - out).abs().amax(1) > 1e-9
    assert changed.tolist() == [True] * 5 + [False] * 10


def test_gradients_are_those_of_differences() -> None:
    net, x = awake(), points().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, COUNTS), x)


@torch.no_grad()
def test_dropout_acts_in_training_alone() -> None:
    net, x = awake(dropout=0.5), points()
    assert not torch.equal(net.train()(x, COUNTS), net(x, COUNTS))
    assert torch.equal(net.eval()(x, COUNTS), net(x, COUNTS))
    attention = net.blocks[0].attention.train()
    assert not torch.equal(attention(torch.ones(9, 16).double(), [9]), attention(torch.ones(9, 16).double(), [9]))


@torch.no_grad()
def test_nothing_gives_nothing() -> None:
    net = awake()
    assert net(torch.zeros(0, 4).double(), torch.zeros(3, dtype=torch.int64)).shape == (0, 3)
    assert net(torch.zeros(0, 4).double(), torch.zeros(0, dtype=torch.int64)).shape == (0, 3)


def test_refusals() -> None:
    x = points()
    with pytest.raises(ValueError, match=r"need x \[14, 4\]"):
        awake()(x, COUNTS - torch.tensor([1, 0, 0, 0]))
    with pytest.raises(ValueError, match="takes no condition"):
        awake()(x, COUNTS, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"a condition \[4, 2\], not None"):
        awake(condition=2)(x, COUNTS)
    with pytest.raises(ValueError, match="cannot be cut"):
        NormFormerBlock(10, 4)
