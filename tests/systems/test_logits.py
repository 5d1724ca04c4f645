"""Logits by name: the authors' numbers, ways back, moments from batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose

from calogen.systems.logits import LOGITS, Moments
from calogen.transforms import Standardize

ALPHA = 1e-6


def test_the_authors_numbers(shared: Path) -> None:
    reference = torch.load(shared / "parity" / "dream_transforms.pt", weights_only=True)
    expected = {name: value.to_dense().double() for name, value in reference["outputs"].items()}
    x = expected["normed"][:, :20]
    regularised, clamped = LOGITS["regularised"](ALPHA), LOGITS["clamped"](ALPHA)
    y = regularised(x)
    assert_allclose(y, expected["logit_rescale"], rtol=1e-5)
    assert_allclose(regularised.inverse(y), expected["logit_inv"], atol=1e-9, rtol=1e-5)
    assert_allclose(clamped(x), expected["logit_clamp"], rtol=1e-5)


@pytest.mark.parametrize("name", LOGITS)
@given(x=hnp.arrays("float32", 5, elements=st.one_of(st.sampled_from([0.0, 1.0, 1e-7]), st.floats(0, 1, width=32))))
@settings(max_examples=60, deadline=None)
def test_there_and_back(name: str, x: np.ndarray) -> None:
    values = torch.from_numpy(x)
    logit = LOGITS[name](ALPHA)
    for v in (values, values.double()):
        y = logit(v)
        assert torch.isfinite(y).all()
        single = v.dtype == torch.float32
        assert_allclose(logit.inverse(y), v, atol=ALPHA * (1 if name == "clamped" else 0.5 if single else 1e-6))
    ends = torch.tensor([0.0, 1.0])
    assert_allclose(logit.inverse(logit(ends)), ends, atol=2e-7)


def test_what_has_no_logit_is_refused() -> None:
    for name in LOGITS:
        for bad in (-0.1, 1.1, torch.nan):
            with pytest.raises(ValueError):
                LOGITS[name](ALPHA)(torch.tensor([0.5, bad]))
        with pytest.raises(ValueError, match="between 0 and"):
            LOGITS[name](0.5)


@given(
    x=hnp.arrays("float32", st.tuples(st.integers(2, 30), st.just(3)), elements=st.floats(-14, 14, width=32)),
    at=st.integers(0, 30),
)
@settings(max_examples=60, deadline=None)
def test_moments_of_batches(x: np.ndarray, at: int) -> None:
    moments, standardize = Moments(3), Standardize(3)
    for part in (x[:at], x[at:]):
        moments.add(torch.from_numpy(part))
    moments.store(standardize)
    exact = x.astype(np.float64)
    assert_allclose(standardize.shift, exact.mean(0), atol=1e-5)
    spread = exact.std(0, ddof=1)
    assert_allclose(standardize.scale, np.where(spread > 1e-6, spread, 1.0), rtol=1e-4)


def test_moments_need_two_showers() -> None:
    moments = Moments(3)
    moments.add(torch.ones(1, 3))
    with pytest.raises(ValueError, match="two showers or more, got 1"):
        moments.store(Standardize(3))
