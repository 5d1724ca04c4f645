"""Learning the next token: cross entropy without logits against torch's, sequences, a law that is learned."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from calogen.methods.further_tokens import further_loss
from calogen.methods.linear_cross_entropy import linear_cross_entropy
from calogen.methods.next_token import NextToken, Shifted
from calogen.networks.token_drafts import TokenDrafts
from calogen.networks.token_transformer import TokenTransformer, modern_token_transformer, published_token_transformer

CODES = 12


def problem(rows: int, options: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((rows, 5), (options, 5))]
    bias = torch.randn(options, generator=generator, dtype=torch.float64)
    target = torch.randint(options, (rows,), generator=generator)
    return *(x.requires_grad_() for x in (*made, bias)), target  # type: ignore[return-value]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 12), st.integers(1, 9), st.integers(1, 40), st.integers(0, 100))
def test_values_and_gradients_are_torchs(rows: int, options: int, block: int, seed: int) -> None:
    h, weight, bias, target = problem(rows, options, seed)
    ours = linear_cross_entropy(h, weight, bias, target, block)
    theirs = F.cross_entropy(F.linear(h, weight, bias), target, reduction="none")
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    of_ours = torch.autograd.grad(ours, (h, weight, bias), upstream)
    of_theirs = torch.autograd.grad(theirs, (h, weight, bias), upstream, allow_unused=True)
    for a, b in zip(of_ours, of_theirs, strict=True):
        assert torch.allclose(a, torch.zeros_like(a) if b is None else b, rtol=1e-10, atol=1e-12)


def test_gradients_by_differences() -> None:
    h, weight, bias, target = problem(6, 4)
    assert torch.autograd.gradcheck(lambda *x: linear_cross_entropy(*x, target, 8), (h, weight, bias))


def test_half_precision_is_near() -> None:
    h, weight, bias, target = (x.detach().float() if x.is_floating_point() else x for x in problem(64, 9))
    for x in (h, weight, bias):
        x.requires_grad_()
    whole = linear_cross_entropy(h, weight, bias, target, 90)
    with torch.autocast("cpu", torch.bfloat16):
        half = linear_cross_entropy(h, weight, bias, target, 90)
    assert 0 < float((half - whole).detach().abs().max()) < 0.1
    grads = [torch.autograd.grad(x.mean(), (h, weight, bias)) for x in (whole, half)]
    for a, b in zip(*grads, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert float((a - b).abs().max()) < 0.03 * float(a.abs().max())


def test_a_target_that_is_no_option() -> None:
    h, weight, bias, target = problem(3, 4)
    with pytest.raises(ValueError, match="are not within 0 to 3"):
        linear_cross_entropy(h, weight, bias, target + 4)


def test_tokens_further_on() -> None:
    made = Shifted(torch.tensor([4, 5, 6, 7]), torch.tensor([3, 0, 1]), CODES)
    assert made.inputs.tolist() == [0, 5, 6, 7, 0, 0, 8]
    assert made.target.tolist() == [5, 6, 7, 13, 13, 8, 13]
    rows, target = made.further(2)
    assert rows.tolist() == [0, 1]
    assert target.tolist() == [7, 13]
    assert made.further(9)[0].tolist() == []
    assert made.mean(torch.ones(2), rows).tolist() == [1, 0, 0]


def networks() -> dict[str, TokenTransformer]:
    torch.manual_seed(0)
    return {
        "published": published_token_transformer(CODES, 16, 2, 4, 32),
        "modern": modern_token_transformer(CODES, width=16, blocks=2, heads=4, feedforward=20, groups=3, rank=6),
    }


@pytest.mark.parametrize("name", ["published", "modern"])
def test_a_loss_for_each_sequence(name: str) -> None:
    """The mean of -log p of its tokens by torch, whatever the batch."""
    net = networks()[name]
    method = NextToken(net)
    codes, counts = torch.arange(9) % CODES, torch.tensor([5, 0, 4])
    loss = method.loss(codes, None, counts, block=30)
    assert torch.allclose(method.surprise(codes, None, counts), loss * (counts + 1))
    for k, own in enumerate(codes.split(counts.tolist())):
        alone = torch.tensor([len(own)])
        assert torch.allclose(method.loss(own, None, alone), loss[k : k + 1], atol=1e-5)
        made = Shifted(own, alone, CODES)
        h = net(made.inputs, made.counts)
        assert mean_surprise(net.vocabulary, h, made.target).item() == pytest.approx(loss[k].item(), abs=1e-5)


@pytest.mark.parametrize("name", ["published", "modern"])
def test_guesses_of_further_tokens_have_a_loss_of_their_own(name: str) -> None:
    """The mean over all of a sequence of -log q of each, by torch; the network has no part in it."""
    net = networks()[name]
    drafts = TokenDrafts(16, 3)
    torch.nn.init.normal_(drafts.narrow.weight)
    codes, counts = torch.arange(7) % CODES, torch.tensor([5, 0, 2])
    loss = further_loss(net, drafts, codes, None, counts, number=3)
    for k, own in enumerate(codes.split(counts.tolist())):
        made = Shifted(own, torch.tensor([len(own)]), CODES)
        rows = drafts(net(made.inputs, made.counts), net.vocabulary.embed(made.target))
        parts = [(rows[i, j], made.target[i + j + 1]) for i in range(len(own) + 1) for j in range(min(3, len(own) - i))]
        expected = 0.0
        if parts:
            expected = mean_surprise(net.vocabulary, *(torch.stack(x) for x in zip(*parts, strict=True))).item()
        assert loss[k].item() == pytest.approx(expected, abs=1e-5)
    loss.sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in drafts.parameters())
    assert all(p.grad is None for p in net.blocks.parameters())


def mean_surprise(vocabulary: torch.nn.Module, h: Tensor, target: Tensor) -> Tensor:
    """By all logits, of a whole vocabulary or of groups and members."""
    first = vocabulary.logits(h).log_softmax(1)
    if vocabulary.levels == 1:
        return -first.gather(1, target[:, None]).mean()
    stop = target == vocabulary.stop
    group = torch.where(stop, vocabulary.groups, (target - 1) // vocabulary.members)
    second = vocabulary.logits(h, [group]).log_softmax(1).gather(1, ((target - 1) % vocabulary.members)[:, None])[:, 0]
    return -(first.gather(1, group[:, None])[:, 0] + second.masked_fill(stop, 0.0)).mean()


@pytest.mark.parametrize("name", ["published", "modern"])
def test_a_law_is_learned(name: str) -> None:
    """Sequences that count upwards from a random code and stop after 4: the entropy left is that of the first."""
    net = networks()[name]
    method = NextToken(net)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        first = torch.randint(CODES, (16, 1), generator=generator)
        codes = ((first + torch.arange(4)) % CODES).flatten()
        loss = method.loss(codes, None, torch.full((16,), 4)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(math.log(CODES) / 5, rel=0.25)


@pytest.mark.parametrize(
    ("codes", "counts", "words"),
    [([1, 2], [3], "do not describe 2 codes"), ([1, 12], [2], "codes 1 to 12"), ([1], [2, -1], "do not describe")],
)
def test_bad_sequences(codes: list[int], counts: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NextToken(networks()["modern"]).loss(torch.tensor(codes), None, torch.tensor(counts))
