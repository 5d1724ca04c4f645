"""One of many options: probabilities, the cumulative distribution in two steps, sharpening, bad numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from calogen.methods.token_choice import BLOCK, PLAIN, Sharpening, choose, of_weights


@pytest.mark.parametrize("options", [3, 2 * BLOCK, 2 * BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 7])
def test_options_are_drawn_with_their_probabilities(options: int) -> None:
    """A grid of uniform numbers finds each option as often as it must, to one."""
    weights = torch.rand(1, options, generator=torch.Generator().manual_seed(0)) ** 4
    n = 100_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    found = np.concatenate([of_weights(weights.expand(1000, -1), part).numpy() for part in u.split(1000)])
    expected = weights[0].double() / weights.double().sum()
    counts = np.bincount(found, minlength=options)
    assert np.abs(counts - n * expected.numpy()).max() < 1.01
    assert (np.diff(found) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3 * BLOCK), st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_an_option_without_weight_is_never_drawn(options: int, seed: int, u: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(1, options, generator=generator) * (torch.rand(1, options, generator=generator) < 0.1)
    weights[0, int(torch.randint(options, (1,), generator=generator))] = 1e-3
    for at in (u, 0.0, float(np.nextafter(1.0, 0.0))):
        assert float(weights[0, of_weights(weights, torch.tensor([at], dtype=torch.float64))]) > 0


def test_plain_choice_follows_the_softmax() -> None:
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(1))
    u = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = np.bincount(choose(logits.expand(len(u), -1).clone(), u).numpy(), minlength=40)
    assert chisquare(found, len(u) * logits.double().softmax(1)[0].numpy()).pvalue > 1e-3
    shut = np.bincount(choose(logits.expand(len(u), -1).clone(), u, forbidden=int(logits.argmax())).numpy())
    assert shut[int(logits.argmax())] == 0


def test_sharpening() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, 1.0]])
    assert PLAIN(logits) is logits
    assert torch.equal(Sharpening(temperature=0.5)(logits), 2 * logits)
    assert (Sharpening(top_k=1)(logits) > -9).tolist() == [[True, False, False, False]]
    assert (Sharpening(top_k=2)(logits) > -9).tolist() == [[True, False, True, True]]
    p = logits.softmax(1)[0]
    assert (Sharpening(top_p=float(p[0]) - 1e-4)(logits) > -9).tolist() == [[True, False, False, False]]
    assert int((Sharpening(top_p=float(p[0]) + 1e-4)(logits) > -9).sum()) == 2
    assert (Sharpening(top_p=1.0)(logits) > -9).all()


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 1.5}])
def test_bad_sharpening(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sharpening(**wrong)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_no_numbers(bad: float) -> None:
    logits = torch.zeros(2, 3)
    logits[1] = bad
    with pytest.raises(ValueError, match="options of row 1"):
        choose(logits, torch.zeros(2))
