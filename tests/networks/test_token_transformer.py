"""The token transformer: the authors' numbers, packed as one by one, a cache that changes nothing, bad input."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calogen.networks.token_attention import TokenAttention
from calogen.networks.token_transformer import (
    TokenTransformer,
    modern_token_transformer,
    published_token_transformer,
)
from calogen.networks.vocabulary_head import TwoLevelVocabulary, WholeVocabulary
from calogen.systems.published_files import convert
from calogen.systems.published_omnijet_gpt import token_transformer_from_omnijet

TOLERANCE = 1e-5
CODES, C = 24, 3
COUNTS = torch.tensor([5, 1, 9, 5, 2])


def same(ours: Tensor, theirs: Tensor) -> None:
    assert float((ours - theirs).detach().abs().max()) < TOLERANCE * max(1.0, float(theirs.detach().abs().max()))


def moved(network: TokenTransformer) -> TokenTransformer:
    """With weights that start at zero moved, so that they matter."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            if "steer" in name or name.endswith("bias"):
                p.normal_(std=0.3)
    return network.eval()


def networks() -> dict[str, TokenTransformer]:
    torch.manual_seed(0)
    small: dict[str, Any] = {"width": 16, "blocks": 2, "heads": 4}
    modern: dict[str, Any] = small | {"feedforward": 20, "condition": C, "rank": 6, "groups": 4}
    made = {
        "published": published_token_transformer(CODES, feedforward=32, **small),
        "modern": modern_token_transformer(CODES, **modern),
        "places": modern_token_transformer(CODES, **modern | {"rotary": True, "steered": False}),
        "tied": modern_token_transformer(CODES, **modern | {"groups": 0, "condition": 0}),
        "counted": modern_token_transformer(CODES, **modern | {"counted": True}),
    }
    return {name: moved(network) for name, network in made.items()}


NETWORKS = networks()
every_network = pytest.mark.parametrize("name", NETWORKS)


def inputs(network: TokenTransformer, counts: Tensor = COUNTS) -> tuple[Tensor, Tensor | None]:
    """Tokens [P] with a start in front of each sequence, and conditions."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, CODES + 1, (int(counts.sum()),), generator=generator)
    tokens[counts.cumsum(0) - counts] = 0
    c = torch.randn(len(counts), C, generator=generator) if network.condition else None
    return tokens, c


# --- the authors' network --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, Any]:
    return torch.load(shared / "parity" / "omnijet_gpt.pt", weights_only=True)


@pytest.fixture(scope="module")
def theirs(published: dict[str, Any]) -> TokenTransformer:
    c = published["config"]
    d = c["embedding_dim"]
    net = published_token_transformer(c["vocab_size"] - 2, d, c["n_GPT_blocks"], c["n_heads"], 4 * d)
    net.load_state_dict(token_transformer_from_omnijet(published["state_dict"]))
    return net.eval()


def test_sizes() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in published_token_transformer().parameters()) == 35_987_970
        modern = modern_token_transformer(condition=16)
    head = sum(p.numel() for p in modern.vocabulary.parameters())
    assert head < 0.5 * sum(p.numel() for p in modern.parameters()) < 0.2 * 35_987_970


@torch.no_grad()
def test_published_logits_and_loss(published: dict[str, Any], theirs: TokenTransformer) -> None:
    mask, tokens = published["inputs"]["mask"], published["inputs"]["idx"]
    hidden = theirs(tokens[mask], mask.sum(1))
    logits = theirs.vocabulary.logits(hidden)
    same(logits, published["outputs"]["logits_mask"][mask])
    # Their loss is the mean over padding too, whose logits are [1e6, 0, ...] for the target 0: exactly nothing.
    surprise = torch.nn.functional.cross_entropy(logits, published["inputs"]["target"][mask], reduction="sum")
    same(surprise / mask.numel(), published["outputs"]["loss"])


@torch.no_grad()
def test_published_generation(published: dict[str, Any], theirs: TokenTransformer) -> None:
    """The authors' draws come back from the cache: those that have stopped are drawn on, as they do."""
    length, n, stop = published["config"]["max_sequence_len"], 3, theirs.vocabulary.stop
    decoder, tokens = theirs.decoder(n, length + 1), [torch.zeros(n, dtype=torch.int64)]
    decoder.enter(range(n))
    torch.manual_seed(77)
    for _ in range(length):
        logits = theirs.vocabulary.logits(decoder.advance(range(n), tokens[-1]))
        tokens.append(1 + torch.multinomial(logits[:, 1:].softmax(1), 1)[:, 0])
        if bool((torch.stack(tokens) == stop).any(0).all()):
            break
    for row, expected in zip(torch.stack(tokens, 1).tolist(), published["outputs"]["generated"], strict=True):
        assert row[: row.index(stop) if stop in row else None] == expected


def test_published_file(shared: Path, tmp_path: Path, published: dict[str, Any], theirs: TokenTransformer) -> None:
    torch.save({"state_dict": published["state_dict"]}, tmp_path / "generator.pt")
    made = convert(tmp_path / "generator.pt")
    assert all(torch.equal(made[f"state_dict/{name}"], value) for name, value in theirs.state_dict().items())
    assert len(made) == len(theirs.state_dict())


@pytest.mark.parametrize("name", ["head.fc2.weight", "module.GPT_blocks.0.mha_block.query.bias"])
def test_foreign_names_are_refused(published: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match="is no part of OmniJet"):
        token_transformer_from_omnijet(published["state_dict"] | {name: torch.zeros(1)})


def test_a_missing_map_is_refused(published: dict[str, Any]) -> None:
    state = {name: value for name, value in published["state_dict"].items() if "0.mha_block.key" not in name}
    with pytest.raises(ValueError, match="block 0 of OmniJet's generator has no map to key"):
        token_transformer_from_omnijet(state)


# --- sequences -------------------------------------------------------------------------------------------------------


@every_network
@torch.no_grad()
def test_a_sequence_does_not_know_its_batch(name: str) -> None:
    net = NETWORKS[name]
    tokens, c = inputs(net)
    together = net(tokens, COUNTS, c).split(COUNTS.tolist())
    for k, own in enumerate(tokens.split(COUNTS.tolist())):
        same(net(own, COUNTS[k : k + 1], None if c is None else c[k : k + 1]), together[k])
    assert net(tokens[:0], COUNTS[:0], None if c is None else c[:0]).shape == (0, net.width)


@every_network
@torch.no_grad()
def test_a_token_sees_those_before_it_alone(name: str) -> None:
    net, counts = NETWORKS[name], torch.tensor([9])
    tokens, c = inputs(net, counts)
    for changed in range(1, 9):
        other = tokens.clone()
        other[changed] = 1 + tokens[changed] % CODES
        difference = (net(other, counts, c) - net(tokens, counts, c)).abs().amax(1)
        assert bool((difference[:changed] == 0).all())
        assert bool((difference[changed:] > 1e-7).all())
    if c is not None:
        assert bool(((net(tokens, counts, c + 1) - net(tokens, counts, c)).abs().amax(1) > 1e-6).all())


@torch.no_grad()
def test_places_matter_to_rotary_networks_alone() -> None:
    """Without places the last row is the same whatever the order of those before it, in a network of one block."""
    torch.manual_seed(2)
    for rotary in (False, True):
        net = modern_token_transformer(CODES, width=16, blocks=1, heads=4, groups=4, rank=6, rotary=rotary)
        tokens, counts = torch.tensor([0, 5, 9, 17, 3]), torch.tensor([5])
        other = tokens[[0, 3, 1, 2, 4]]
        assert torch.allclose(net(tokens, counts)[-1], net(other, counts)[-1], atol=1e-6) != rotary


@every_network
@pytest.mark.parametrize("count", [1, 3])
@torch.no_grad()
def test_the_cache_changes_nothing(name: str, count: int) -> None:
    """Sequences enter late, leave, are as long as others or not, and go on by one token or several."""
    net, counts = NETWORKS[name], torch.tensor([6, 9, 3, 6])
    tokens, c = inputs(net, counts)
    whole = net(tokens, counts, c).split(counts.tolist())
    decoder = net.decoder(3, 9)
    for slots, sequences in (((0, 1, 2), (0, 1, 2)), ((0, 2), (3, 2))):
        decoder.enter(
            slots, None if c is None else c[list(sequences)], counts[list(sequences)] - 1 if net.counted else None
        )
        for start in range(0, 9, count):
            at = [(slot, k) for slot, k in zip(slots, sequences, strict=True) if int(counts[k]) > start]
            if at:
                new = torch.cat([tokens.split(counts.tolist())[k][start : start + count] for _, k in at])
                rows = decoder.advance([slot for slot, _ in at], new)
                same(rows, torch.cat([whole[k][start : start + count] for _, k in at]))
    decoder.enter((1,), None if c is None else c[:1], counts[:1] if net.counted else None)
    with pytest.raises(ValueError, match="do not fit into room for 9"):
        decoder.advance((1,), torch.zeros(10, dtype=torch.int64))


@torch.no_grad()
def test_a_counted_network_is_told_n_and_others_are_not() -> None:
    counted, plain = NETWORKS["counted"], NETWORKS["modern"]
    counts = torch.tensor([4])
    tokens, c = inputs(counted, counts)
    longer = counted(torch.cat([tokens, tokens[1:2]]), counts + 1, c)[:4]
    assert bool(((longer - counted(tokens, counts, c)).abs().amax(1) > 1e-5).all())
    same(plain(torch.cat([tokens, tokens[1:2]]), counts + 1, c)[:4], plain(tokens, counts, c))
    for net, n, match in ((counted, None, "give n"), (plain, counts, "not told")):
        with pytest.raises(ValueError, match=match):
            net.decoder(1, 9).enter((0,), c, n)
    places = torch.tensor([0, 2, 3])
    turned = counted.turned(places, torch.tensor([3, 3, 3]))
    assert torch.equal(turned[:2], counted.turned(places[:2], torch.tensor([3, 3])))
    assert torch.isfinite(counted.turned(torch.tensor([0]), torch.tensor([0]))).all()


@torch.no_grad()
def test_tokens_that_do_not_stay_are_forgotten() -> None:
    net = NETWORKS["modern"]
    counts = torch.tensor([6, 6])
    tokens, c = inputs(net, counts)
    decoder = net.decoder(2, 12)
    decoder.enter((0, 1), c)
    first, rows = decoder.extend((0, 1), tokens.view(2, 6)[:, :4].flatten(), keep=False)
    rows.keep([2, 4])
    again = decoder.advance((0,), tokens[2:6])
    whole = net(tokens, counts, c)
    same(first, whole.view(2, 6, -1)[:, :4].flatten(0, 1))
    same(again, whole[2:6])
    same(decoder.advance((1,), tokens[10:]), whole[10:])


# --- choices ---------------------------------------------------------------------------------------------------------


@every_network
@torch.no_grad()
def test_choices_are_those_of_the_logits_and_add_up(name: str) -> None:
    """Every token's log p, by the linear choices, is that by the levels' logits; all together make 1."""
    vocabulary = NETWORKS[name].vocabulary
    h = torch.randn(1, 16, generator=torch.Generator().manual_seed(3)).expand(CODES + 1, -1)
    tokens = torch.arange(1, CODES + 2)
    log_p = torch.zeros(CODES + 1)
    for choice in vocabulary.choices(h, tokens):
        rows = torch.arange(len(h)) if choice.rows is None else choice.rows
        logits = choice.features @ choice.weight.T + choice.bias
        log_p[rows] += logits.log_softmax(1).gather(1, choice.target[:, None])[:, 0]
    first = vocabulary.logits(h[:1]).log_softmax(1)[0]
    left_out = float(first[0].exp()) if vocabulary.forbidden(0) == 0 else 0.0
    assert float(log_p.exp().sum()) == pytest.approx(1 - left_out, abs=1e-6)
    if vocabulary.levels == 1:
        same(log_p, first[1:])
        return
    for group in range(4):
        second = vocabulary.logits(h[:1], [torch.tensor([group])]).log_softmax(1)[0]
        same(log_p[6 * group : 6 * group + 6], first[group] + second)
    same(log_p[-1:], first[-1:])
    path = [torch.tensor([0, 3, 4]), torch.tensor([5, 0, 2])]
    assert vocabulary.token(path).tolist() == [6, 19, CODES + 1]


@every_network
@torch.no_grad()
def test_half_precision_keeps_the_numbers_near(name: str) -> None:
    net = NETWORKS[name]
    half = net.in_precision(torch.bfloat16)
    tokens, c = inputs(net)
    a, b = (n.vocabulary.logits(n(tokens, COUNTS, c)) for n in (half, net))
    assert a.dtype == torch.float32
    assert 0 < float((a - b).abs().max() / b.abs().max()) < 0.05
    assert half.in_precision(torch.bfloat16) is half
    assert net.in_precision(torch.float32) is net


@pytest.mark.parametrize("groups", [0, 16])
@torch.no_grad()
def test_all_codes_are_about_as_likely_at_first(groups: int) -> None:
    torch.manual_seed(4)
    net = modern_token_transformer(1024, width=64, blocks=2, heads=4, feedforward=64, groups=groups, rank=16)
    tokens = torch.randint(1, 1025, (300,))
    tokens[0] = 0
    surprise = torch.zeros(300)
    for choice in net.vocabulary.choices(net(tokens, torch.tensor([300])), tokens.roll(-1).clamp(min=1)):
        rows = slice(None) if choice.rows is None else choice.rows
        logits = choice.features @ choice.weight.T + choice.bias
        surprise[rows] += torch.nn.functional.cross_entropy(logits, choice.target, reduction="none")
    assert float(surprise.mean()) == pytest.approx(math.log(1024), rel=0.1)


def test_all_parameters_learn() -> None:
    for name, net in NETWORKS.items():
        tokens, c = inputs(net)
        net.zero_grad()
        h = net(tokens, COUNTS, c)
        target = torch.arange(1, len(h) + 1) % (CODES + 1) + 1
        total = sum(
            torch.nn.functional.cross_entropy(choice.features @ choice.weight.T + choice.bias, choice.target)
            for choice in net.vocabulary.choices(h, target)
        )
        assert isinstance(total, Tensor)
        total.backward()
        for parameter, p in net.named_parameters():
            assert p.grad is not None, (name, parameter)
            assert float(p.grad.abs().max()) > 0, (name, parameter)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="cannot be cut into 3 heads"):
        TokenAttention(16, 3)
    with pytest.raises(ValueError, match="cannot be cut into 16 heads of pairs"):
        TokenAttention(16, 16, rotary=True)
    with pytest.raises(ValueError, match="10 codes cannot be cut into 3 groups"):
        TwoLevelVocabulary(10, 16, groups=3, rank=4)
    with pytest.raises(ValueError, match="rank 17 of a vocabulary"):
        WholeVocabulary(10, 16, rank=17)
    with pytest.raises(ValueError, match="vocabulary of 0 codes"):
        WholeVocabulary(0, 16)
    with pytest.raises(ValueError, match="0 blocks"):
        TokenTransformer(WholeVocabulary(10, 16), [])


def test_bad_sequences() -> None:
    net = NETWORKS["modern"]
    tokens, c = inputs(net)
    with pytest.raises(ValueError, match="do not describe 22 tokens"):
        net(tokens, COUNTS + 1, c)
    with pytest.raises(ValueError, match="do not describe"):
        net(tokens, torch.tensor([22, 0]), c)
    with pytest.raises(ValueError, match="not the start 0"):
        net(tokens + 1, COUNTS, c)
    with pytest.raises(ValueError, match="tokens 0 to 26 are not within 0 to 25"):
        net(torch.where(tokens > 0, CODES + 2, 0), COUNTS, c)
    with pytest.raises(ValueError, match=r"must be \[5, 3\], not \[5, 2\]"):
        net(tokens, COUNTS, torch.zeros(5, 2))
    with pytest.raises(ValueError, match="not None"):
        net(tokens, COUNTS)
    with pytest.raises(ValueError, match="this network has none"):
        NETWORKS["published"](tokens, COUNTS, c)
