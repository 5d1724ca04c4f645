"""A mixture of counts: it is a distribution, it is learned, and what is drawn follows it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calogen.methods.count_mixture import LEAST_SCALE, CountMixture


def mixture(seed: int = 0, condition: int = 2, counts: Tensor | None = None) -> CountMixture:
    torch.manual_seed(seed)
    made = CountMixture(condition)
    made.standardise(torch.tensor([3, 20, 90]) if counts is None else counts)
    return made


@given(st.integers(0, 50), st.floats(-3, 3), st.floats(-3, 3))
@settings(deadline=None, max_examples=30)
def test_probabilities_of_counts_add_up_to_what_is_below(seed: int, a: float, b: float) -> None:
    """P(N <= n) of the head of the file, from the network's outputs; it goes to one."""
    made, n = mixture(seed), torch.arange(3000)
    c = torch.tensor([[a, b]])
    with torch.no_grad():
        p = (-made.loss(n, c.expand(len(n), 2))).exp()
        weight, mean, width = made.network(c).double()[0].chunk(3)
        place = ((n.double() + 0.5).log() - made.shift) / made.scale
        scale = torch.nn.functional.softplus(width) + LEAST_SCALE
        below = torch.sigmoid((place[:, None] - mean) / scale) @ weight.softmax(0)
    torch.testing.assert_close(p.cumsum(0), below, rtol=1e-6, atol=1e-7)


def test_what_is_drawn_has_these_probabilities() -> None:
    made = mixture(3, counts=torch.tensor([0, 1, 2, 3, 5]))
    c = torch.zeros(200_000, 2)
    drawn = made.draw(c, torch.rand(len(c), 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    found = torch.bincount(drawn, minlength=8)[:8] / len(c)
    expected = (-made.loss(torch.arange(8), c[:8])).exp().float()
    assert (found - expected).abs().max() < 0.004
    assert expected[0] > 0.01


def test_ends_of_uniform_numbers_are_finite() -> None:
    made = mixture()
    u = torch.tensor([[0.0, 0.0], [1 - 2**-53, 1 - 2**-53]], dtype=torch.float64)
    drawn = made.draw(torch.zeros(2, 2), u)
    assert drawn[0] >= 0
    assert drawn[0] <= drawn[1] < 2**62


def test_counts_that_grow_with_energy_are_learned() -> None:
    random = np.random.default_rng(5)
    log_energy = torch.from_numpy(random.uniform(-1, 1, 3000)).float()[:, None]
    mean, spread = 300 * torch.exp(0.9 * log_energy[:, 0]), 0.08
    n = (mean * torch.exp(spread * torch.from_numpy(random.standard_normal(3000)).float())).round().long()
    made = mixture(1, condition=1, counts=n)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(500):
        optimizer.zero_grad()
        loss = made.loss(n, log_energy).mean()
        loss.backward()
        optimizer.step()
    entropy = float((mean * spread).log().mean()) + 0.5 * np.log(2 * np.pi * np.e)
    assert float(loss.detach()) < entropy + 0.05
    for at in (-0.8, 0.7):
        u = torch.from_numpy(random.random((4000, 2)))
        drawn = made.draw(torch.full((4000, 1), at), u).double()
        assert float(drawn.log().mean()) == pytest.approx(np.log(300) + 0.9 * at, abs=0.015)
        assert float(drawn.log().std()) == pytest.approx(spread, rel=0.15)


def test_without_a_condition() -> None:
    made = mixture(2, condition=0)
    assert made.loss(torch.tensor([4, 9]), torch.zeros(2, 0)).shape == (2,)


def test_no_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="there are none"):
        CountMixture(1).standardise(torch.zeros(0, dtype=torch.int64))
