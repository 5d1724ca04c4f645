"""Tokens that a sequence has had: pairs against a plain search, and the law they make against its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.methods.next_token import NextToken, Shifted, surprise
from calogen.methods.token_steps import InUse
from calogen.networks.recall import seen_before
from calogen.networks.token_transformer import TokenTransformer, modern_token_transformer

CODES, GROUPS = 12, 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), max_size=9), max_size=4), st.integers(1, 4))
def test_pairs_are_those_of_a_plain_search(sequences: list[list[int]], size: int) -> None:
    owner = [i for i, tokens in enumerate(sequences) for _ in tokens]
    token = [t for tokens in sequences for t in tokens]
    made = seen_before(*(torch.tensor(x, dtype=torch.int64) for x in (owner, [t // size for t in token], token)))
    pairs, again = set(), []
    for i in range(len(token)):
        earlier = {token[j] for j in range(i) if owner[j] == owner[i]}
        again.append(token[i] in earlier)
        pairs |= {(i, t) for t in earlier if t // size == token[i] // size}
    found = list(zip(made.row.tolist(), made.token.tolist(), strict=True))
    assert made.again.tolist() == again
    assert len(found) == len(set(found))
    assert set(found) == pairs
    chosen = [i for i in range(len(token) - 1, -1, -2) for _ in range(2)]
    some = made.of(torch.tensor(chosen, dtype=torch.int64))
    expected = [(a, t) for a, i in enumerate(chosen) for j, t in pairs if i == j]
    assert sorted(zip(some.row.tolist(), some.token.tolist(), strict=True)) == sorted(expected)
    assert some.again.tolist() == [again[i] for i in chosen]


def network() -> TokenTransformer:
    torch.manual_seed(0)
    made = modern_token_transformer(
        CODES, width=16, blocks=2, heads=4, feedforward=20, groups=GROUPS, rank=6, recalls=True
    )
    with torch.no_grad():
        made.vocabulary.log_again.copy_(torch.tensor([-3.0, -0.5, 0.7]))
    return made


@torch.no_grad()
def test_probabilities_are_those_of_the_choices() -> None:
    """-log p of a sequence is that of each choice by its logits, given what came before; and they add up to 1."""
    net = network()
    vocabulary = net.vocabulary
    codes, counts = torch.tensor([0, 1, 0, 5, 5, 9, 0, 7, 7]), torch.tensor([6, 0, 3])
    made = Shifted(codes, counts, CODES)
    h = net(made.inputs, made.counts)
    nats = surprise(vocabulary, h, made.target, seen=vocabulary.seen(made.owner, made.target))
    used = torch.zeros(CODES + 2, dtype=torch.bool)
    for i, token in enumerate(made.target.tolist()):
        if made.inputs[i] == 0:
            used[:] = False
        row = h[i : i + 1]
        first = vocabulary.logits(row).log_softmax(1)[0]
        total = first[-1].exp()
        for k in range(CODES):
            group = torch.tensor([k // (CODES // GROUPS)])
            second = vocabulary.logits(row, [group], InUse(used[None], torch.tensor([0]))).log_softmax(1)[0]
            log_p = first[group[0]] + second[k % (CODES // GROUPS)]
            total = total + log_p.exp()
            if token == k + 1:
                assert float(nats[i]) == pytest.approx(-float(log_p), abs=1e-5)
        assert float(total) == pytest.approx(1, abs=1e-5)
        if token == vocabulary.stop:
            assert float(nats[i]) == pytest.approx(-float(first[-1]), abs=1e-5)
        used[token] = True


@torch.no_grad()
def test_further_tokens_in_use_count_as_those_of_the_table() -> None:
    vocabulary = network().vocabulary
    rows, group = torch.randn(4, 16), torch.tensor([0, 1, 2, 2])
    more = torch.tensor([[1, 0, 5], [5, 5, 8], [12, vocabulary.stop, 1], [0, 0, 0]])
    table = torch.zeros(4, CODES + 2, dtype=torch.bool)
    table[2, 11] = True
    without = InUse(table, torch.arange(4), more)
    table = table.clone()
    table[torch.arange(4)[:, None], more] = True
    within = InUse(table, torch.arange(4))
    assert torch.equal(vocabulary.logits(rows, [group], without), vocabulary.logits(rows, [group], within))
    assert not torch.equal(vocabulary.logits(rows, [group], without), vocabulary.logits(rows, [group]))


def test_how_seldom_codes_come_again_is_learned() -> None:
    """Sequences of four different codes at random: what comes again has next to no probability in the end."""
    net = network()
    with torch.no_grad():
        net.vocabulary.log_again.zero_()
    method = NextToken(net)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        codes = torch.cat([torch.randperm(CODES, generator=generator)[:6] for _ in range(8)])
        loss = method.loss(codes, None, torch.full((8,), 6)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(net.vocabulary.log_again.detach().max()) < -2


def test_groups_are_needed() -> None:
    with pytest.raises(ValueError, match="needs groups"):
        modern_token_transformer(CODES, width=16, heads=4, groups=0, rank=6, recalls=True)
