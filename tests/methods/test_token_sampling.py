"""Sequences of tokens: their distribution, their independence of batch mates, the limit, what stops."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare
from torch import Tensor, nn

from calogen.methods.further_tokens import further_loss
from calogen.methods.token_choice import Sharpening
from calogen.methods.token_sampling import sample_tokens
from calogen.methods.token_slots import DrawnTokens, TooLongError
from calogen.networks.token_drafts import TokenDrafts
from calogen.networks.token_transformer import TokenTransformer, modern_token_transformer, published_token_transformer

CODES, C, LIMIT = 24, 3, 500


def streams(seed: int = 1):
    return lambda i: np.random.Generator(np.random.SFC64([seed, i]))


def network(name: str) -> TokenTransformer:
    torch.manual_seed(3)
    if name == "published":
        made = published_token_transformer(CODES, 16, 2, 4, 32)
    else:
        made = modern_token_transformer(
            CODES, condition=C, width=16, blocks=2, heads=4, feedforward=20, groups=4, rank=6, recalls=name == "recalls"
        )
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn_like(p))
        if name == "recalls":
            made.vocabulary.log_again.fill_(-1.5)
    return made.eval()


NETWORKS = {name: network(name) for name in ("published", "modern", "recalls")}
every_network = pytest.mark.parametrize("name", NETWORKS)


def conditions(n: int) -> Tensor:
    return torch.randn(100, C, generator=torch.Generator().manual_seed(5))[:n]


def drawn(name: str, n: int, slots: int = 8, limit: int = LIMIT, cut: bool = False) -> DrawnTokens:
    c = conditions(n) if name != "published" else None
    return sample_tokens(NETWORKS[name], n, streams(), c, limit=limit, slots=slots, cut=cut)


@every_network
def test_a_sequence_does_not_know_its_batch(name: str) -> None:
    n = 20
    together = drawn(name, n)
    for slots in (1, 3, 64):
        other = drawn(name, n, slots)
        assert np.array_equal(other.tokens, together.tokens)
        assert np.array_equal(other.offsets, together.offsets)
    fewer = drawn(name, 7)
    assert np.array_equal(fewer.tokens, together.tokens[: together.offsets[7]])
    assert together.complete.all()
    assert len(np.unique(np.diff(together.offsets))) > 3
    assert 1 <= together.tokens.min() <= together.tokens.max() <= CODES


@every_network
def test_lengths_of_zero_to_the_limit_and_the_limit_itself(name: str) -> None:
    """A limit cuts those that are longer and no others; one that has exactly so many tokens may stop there."""
    n = 60
    free = drawn(name, n)
    lengths = np.diff(free.offsets)
    limit = int(np.sort(lengths)[n // 2])
    cut = drawn(name, n, limit=limit, cut=True)
    assert np.array_equal(np.diff(cut.offsets), np.minimum(lengths, limit))
    assert np.array_equal(cut.complete, lengths <= limit)
    for a, b in zip(np.split(free.tokens, free.offsets[1:-1]), np.split(cut.tokens, cut.offsets[1:-1]), strict=True):
        assert np.array_equal(a[:limit], b)
    first = int(np.flatnonzero(lengths > limit)[0])
    with pytest.raises(TooLongError, match=f"sequence {first} has not stopped after {limit} tokens"):
        drawn(name, n, slots=1, limit=limit)


class Chain(nn.Module):
    """A toy whose next token depends on the last alone; its law is known. A row is the token itself.

    A row below 0 is a bad guess of a row: its law is another one.
    """

    def __init__(self, codes: int, seed: int = 0) -> None:
        super().__init__()
        self.vocabulary = self
        self.levels, self.codes, self.stop, self.recalls = 1, codes, codes + 1, False
        table = torch.randn(2 * codes + 3, codes + 2, generator=torch.Generator().manual_seed(seed))
        self.table = nn.Parameter(table)

    def law(self) -> Tensor:
        """Probabilities of the next token, 1 first, given the last one [codes + 1, codes + 1]."""
        return self.table.detach().double()[: self.codes + 1, 1:].softmax(1)

    def decoder(self, slots: int, room: int) -> "Chain":
        return self

    def enter(self, slots: Sequence[int], c: Tensor | None = None, n: Tensor | None = None) -> None:
        return None

    def advance(self, slots: Sequence[int], tokens: Tensor) -> Tensor:
        return tokens

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens

    def extend(self, slots: Sequence[int], tokens: Tensor, keep: bool = True) -> tuple[Tensor, "Chain"]:
        return tokens, self

    def keep(self, counts: Sequence[int]) -> None:
        return None

    def logits(self, h: Tensor, path: Sequence[Tensor] = (), used: Tensor | None = None) -> Tensor:
        return self.table[h]

    def forbidden(self, level: int) -> int:
        return 0

    def token(self, path: Sequence[Tensor]) -> Tensor:
        return path[0]


class Guess:
    """Guesses by the law of the last token (right for the first alone), or by that of bad rows."""

    def __init__(self, *good: bool) -> None:
        self.number, self.good = len(good), torch.tensor(good)

    def __call__(self, h: Tensor, token: Tensor) -> Tensor:
        return torch.where(self.good, token[:, None], -1 - token[:, None])


DRAFTS = {"none": None, "good": Guess(True, True, True), "bad": Guess(False, False), "both": Guess(True, False)}


@pytest.mark.parametrize("drafts", DRAFTS)
def test_lengths_and_pairs_follow_the_network(drafts: str) -> None:
    """No bias by length, though short sequences leave early, nor by guesses: a chain has the law of its matrix."""
    chain, n = Chain(3), 12_000
    made = sample_tokens(chain, n, streams(2), limit=200, slots=500, drafts=DRAFTS[drafts])
    p = chain.law()
    state, law = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64), []
    for _ in range(12):
        law.append(float(state @ p[:, -1]))
        state = torch.cat([torch.zeros(1, dtype=torch.float64), state @ p[:, :-1]])
    lengths = np.bincount(np.minimum(np.diff(made.offsets), 12), minlength=13)
    assert chisquare(lengths, n * np.array([*law, 1 - sum(law)])).pvalue > 1e-3
    assert lengths[0] > 0
    pairs = np.zeros((4, 4))
    for row in np.split(made.tokens, made.offsets[1:-1]):
        for a, b in itertools.pairwise([0, *row.tolist(), 4]):
            pairs[a, b - 1] += 1
    for a in range(4):
        assert chisquare(pairs[a], pairs[a].sum() * p[a].numpy()).pvalue > 1e-3
    tokens = len(made.tokens) + n
    if drafts == "none":
        assert made.passes == tokens
    else:
        assert made.passes < tokens * (0.95 if drafts == "bad" else 0.8)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 12), st.integers(1, 14), st.integers(0, 1000))
def test_any_number_in_any_slots(n: int, slots: int, seed: int) -> None:
    chain = Chain(4, seed)
    finished: list[int] = []
    made = sample_tokens(chain, n, streams(seed), limit=300, slots=slots, done=finished.append)
    alone = [sample_tokens(chain, 1, lambda _, i=i: streams(seed)(i), limit=300).tokens for i in range(n)]
    assert np.array_equal(made.tokens, np.concatenate([np.empty(0, np.int64), *alone]))
    assert sum(finished) == n == len(made.complete) == len(made.offsets) - 1


def test_the_likeliest_alone() -> None:
    """With one option kept, what is drawn is the likeliest token each time, whatever the random numbers."""
    net = NETWORKS["published"]
    made = [sample_tokens(net, 3, streams(seed), limit=12, sharpening=Sharpening(top_k=1), cut=True) for seed in (1, 2)]
    assert np.array_equal(made[0].tokens, made[1].tokens)
    row = torch.tensor([0, *made[0].tokens[: made[0].offsets[1]].tolist()])
    logits = net.vocabulary.logits(net(row, torch.tensor([len(row)])))
    assert (1 + logits[:-1, 1:].argmax(1)).tolist() == row[1:].tolist()


def test_half_precision_draws_from_nearly_the_same_law() -> None:
    net = NETWORKS["published"]
    half = net.in_precision(torch.bfloat16)
    n = 150
    a, b = (np.diff(sample_tokens(m, n, streams(), limit=LIMIT).offsets) for m in (net, half))
    assert abs(a.mean() - b.mean()) < 4 * np.hypot(a.std(), b.std()) / np.sqrt(n)
    assert (a == b).mean() > 0.5


@pytest.mark.parametrize("wrong", [{"n": -1}, {"limit": 0}, {"slots": 0}])
def test_bad_requests(wrong: dict[str, int]) -> None:
    n = wrong.pop("n", 1)
    with pytest.raises(ValueError, match="1 or more of the others"):
        sample_tokens(Chain(3), n, streams(), **{"limit": 5, **wrong})


def test_a_condition_is_asked_for() -> None:
    with pytest.raises(ValueError, match="must be"):
        sample_tokens(NETWORKS["modern"], 2, streams(), limit=5)


def again(made: DrawnTokens) -> tuple[int, int]:
    """How many tokens their sequence has already, and how many there are."""
    rows = np.split(made.tokens, made.offsets[1:-1])
    return sum(len(row) - len(np.unique(row)) for row in rows), len(made.tokens)


@pytest.mark.parametrize("guesses", [False, True])
def test_what_is_forbidden_to_come_again_does_not(guesses: bool) -> None:
    """With no weight for codes in use none comes twice, as long as its group has others."""
    net = network("recalls")
    n = 60
    how = {"limit": 8, "slots": 7, "cut": True, "drafts": drafts_of(net) if guesses else None}
    some, tokens = again(sample_tokens(net, n, streams(), conditions(n), **how))
    with torch.no_grad():
        net.vocabulary.log_again.fill_(-60)
    none, _ = again(sample_tokens(net, n, streams(), conditions(n), **how))
    assert none == 0 < some < tokens


# --- guesses ---------------------------------------------------------------------------------------------------------


def drafts_of(network: TokenTransformer) -> TokenDrafts:
    torch.manual_seed(9)
    made = TokenDrafts(network.width, 3).eval()
    torch.nn.init.normal_(made.narrow.weight, std=0.1)
    return made


@every_network
def test_guesses_do_not_change_the_law(name: str) -> None:
    """First tokens, lengths and pairs of neighbours of sequences drawn with and without guesses, in two levels too."""
    net, n = NETWORKS[name], 600
    c = conditions(1).expand(n, -1) if name != "published" else None
    how = {"limit": LIMIT, "slots": 200}
    plain = sample_tokens(net, n, streams(1), c, **how)
    guessed = sample_tokens(net, n, streams(2), c, drafts=drafts_of(net), **how)
    assert guessed.passes < 0.9 * (len(guessed.tokens) + n)
    for numbers in (first_tokens, lengths_in_bins, steps_in_bins):
        table = np.array([numbers(made) for made in (plain, guessed)])
        assert chi2_contingency(table[:, table.sum(0) > 10]).pvalue > 1e-3, numbers.__name__


def first_tokens(made: DrawnTokens) -> np.ndarray:
    rows = np.split(made.tokens, made.offsets[1:-1])
    return np.bincount([row[0] if len(row) else 0 for row in rows], minlength=CODES + 1)


def lengths_in_bins(made: DrawnTokens) -> np.ndarray:
    return np.histogram(np.diff(made.offsets), [0, 2, 4, 8, 12, 16, 24, 32, 64, 1000])[0]


def steps_in_bins(made: DrawnTokens) -> np.ndarray:
    """Second and third tokens, those a guess gives first."""
    rows = [row[:3] for row in np.split(made.tokens, made.offsets[1:-1]) if len(row) > 2]
    return np.bincount([row[1] // 6 * 5 + row[2] // 6 for row in rows], minlength=25)


@every_network
def test_a_guessed_sequence_does_not_know_its_batch(name: str) -> None:
    net, n = NETWORKS[name], 12
    c = conditions(n) if name != "published" else None
    how = {"limit": LIMIT, "drafts": drafts_of(net)}
    whole = sample_tokens(net, n, streams(), c, slots=12, **how)
    few = sample_tokens(net, n, streams(), c, slots=5, **how)
    assert np.array_equal(whole.tokens, few.tokens)
    assert np.array_equal(whole.offsets, few.offsets)
    limit = int(np.median(np.diff(whole.offsets)))
    cut = sample_tokens(net, n, streams(), c, slots=4, cut=True, **how | {"limit": limit})
    assert np.array_equal(np.diff(cut.offsets), np.minimum(np.diff(whole.offsets), limit))


@every_network
def test_guesses_of_the_likeliest_tokens_change_nothing(name: str) -> None:
    """With one option kept there is one sequence, so what is kept of the guesses must be where it belongs."""
    net, n = NETWORKS[name], 6
    c = conditions(n) if name != "published" else None
    how = {"limit": 40, "cut": True, "slots": 4, "sharpening": Sharpening(top_k=1)}
    plain = sample_tokens(net, n, streams(), c, **how)
    drafts = drafts_of(net)
    optimizer = torch.optim.Adam(drafts.parameters(), lr=1e-2)
    for _ in range(40):  # guesses that are right now and then
        codes, counts = torch.from_numpy(plain.tokens - 1), torch.from_numpy(np.diff(plain.offsets))
        optimizer.zero_grad()
        further_loss(net, drafts, codes, c, counts, number=3).mean().backward()
        optimizer.step()
    guessed = sample_tokens(net, n, streams(), c, drafts=drafts, **how)
    assert np.array_equal(plain.tokens, guessed.tokens)
    assert np.array_equal(plain.offsets, guessed.offsets)
    assert guessed.passes < 0.9 * plain.passes
