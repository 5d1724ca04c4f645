"""Transforms: round trips on anything in their domain, numbers in the state, bad values refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calogen.transforms import (
    Affine,
    Chain,
    Dequantize,
    LayerFractions,
    Log,
    Logit,
    PerFeature,
    Standardize,
    Transform,
)


def rows(low: float, high: float) -> st.SearchStrategy[torch.Tensor]:
    shape = st.tuples(st.integers(1, 20), st.just(3))
    elements = st.floats(low, high, width=32, allow_subnormal=False)
    return hnp.arrays("float32", shape, elements=elements).map(torch.from_numpy)


CASES = {
    "affine": (lambda: Affine([1.0, -2.0, 0.5], 3.0), 0.0),
    "standardize": (lambda: Standardize(3, std=0.5), 0.0),
    "log": (lambda: Log(0.5), 0.0),
    "logit": (lambda: Logit(), 0.0),
    "fractions": (lambda: LayerFractions(), 0.0),
    "chain": (lambda: Chain(Log(1.0), Standardize(3)), 0.0),
    "features": (lambda: PerFeature((1, Log(1.0)), (2, Affine(scale=2.0))), 0.0),
}


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_round_trip(name: str, data: st.DataObject) -> None:
    make, low = CASES[name]
    x = data.draw(rows(low, 1.0 if name == "logit" else 1000.0))
    transform = make()
    transform.fit(x)
    scale = max(1.0, float(x.abs().max()))
    torch.testing.assert_close(transform.inverse(transform(x)), x, atol=1e-5 * scale, rtol=1e-5)


@given(rows(0, 1000).map(torch.round), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_dequantize(x: torch.Tensor, seed: int) -> None:
    torch.manual_seed(seed)
    transform = Dequantize()
    y = transform(x)
    assert torch.equal(transform.inverse(y), x)
    assert torch.equal(transform.inverse(transform(x, noise=torch.full_like(x, 1 - 2**-24))), x)


def test_standardize_has_the_moments_of_real_rows() -> None:
    x = 5 + 3 * torch.randn(50, 20, 2)
    mask = torch.rand(50, 20) < 0.5
    x[~mask] = torch.nan
    transform = Standardize(2, std=0.5)
    transform.fit(x, mask)
    y = transform(x[mask])
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=0, correction=0), torch.full((2,), 0.5), atol=1e-5, rtol=0)


def test_constant_dimension_is_only_shifted() -> None:
    transform = Standardize(1)
    transform.fit(torch.full((4, 1), 7.0))
    assert transform(torch.tensor([[7.0]])).item() == 0


def test_fractions_are_fractions() -> None:
    u = LayerFractions()(torch.tensor([[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]]))
    assert u.tolist() == [[4.0, 0.25, pytest.approx(1 / 3)], [0.0, 0.0, 0.0]]


def test_state_carries_the_numbers() -> None:
    fitted, fresh = (Chain(Log(1.0), Standardize(2)) for _ in range(2))
    x = torch.rand(30, 2)
    fitted.fit(x)
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(x), fitted(x))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", [*CASES, "dequantize"])
def test_bad_values_are_refused(name: str, bad: float) -> None:
    transform: Transform = Dequantize() if name == "dequantize" else CASES[name][0]()
    x = torch.ones(4, 3)
    x[2, 1] = bad
    for action in (transform.fit, transform, transform.inverse):
        with pytest.raises(ValueError, match=r"1 of \d+ values are NaN or infinite"):
            action(x)


def test_values_outside_the_domain_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs values > -0\.5"):
        Log(0.5)(torch.tensor([-1.0]))
    with pytest.raises(ValueError, match=r"\[0\.0, 1\.0\]"):
        Logit()(torch.tensor([1.5]))
    with pytest.raises(ValueError, match="whole numbers"):
        Dequantize()(torch.tensor([1.5]))
    with pytest.raises(ValueError, match="layer fractions"):
        LayerFractions()(torch.tensor([-1.0, 2.0]))
    with pytest.raises(ValueError, match="scale 0"):
        Affine(scale=0.0)
    with pytest.raises(ValueError, match="no rows"):
        Standardize(2).fit(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="3 features"):
        PerFeature((1, Log(1.0)), (2, Affine()))(torch.zeros(4, 2))
