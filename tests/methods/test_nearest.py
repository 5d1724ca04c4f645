"""The nearest code is the nearest one: as brute force in double precision finds it, whatever the numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from calogen.methods.nearest import BLOCK, ROWS, nearest


def brute(x: Tensor, codes: Tensor) -> Tensor:
    """By all distances in double precision; the first of equals."""
    apart = (x.double()[:, None] - codes.double()).square().sum(2)
    return (apart == apart.amin(1, keepdim=True)).int().argmax(1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40),
    st.sampled_from([1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]),
    st.integers(1, 12),
    st.sampled_from([1e-4, 1.0, 1e4]),
    st.integers(0, 10_000),
)
def test_as_brute_force(points: int, codes: int, dim: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(points, dim, generator=generator)
    table = torch.randn(codes, dim, generator=generator)
    assert torch.equal(nearest(x, table), brute(x, table))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2 * BLOCK), st.integers(1, 3), st.integers(0, 10_000))
def test_the_first_of_equals(codes: int, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(-2, 3, (codes, dim), generator=generator).float()
    x = torch.randint(-4, 5, (30, dim), generator=generator) / 2
    assert torch.equal(nearest(x, table), brute(x, table))


@pytest.mark.parametrize("far", [1e3, 1e5])
def test_far_from_the_origin_products_cannot_tell(far: float) -> None:
    """Where |c|² is millions of times the distances, single-precision products give noise."""
    generator = torch.Generator().manual_seed(0)
    table = far + torch.randn(700, 12, generator=generator)
    x = far + torch.randn(50, 12, generator=generator)
    s = table.square().sum(1) / 2 - x @ table.T
    assert not torch.equal(s.argmin(1), brute(x, table))
    assert torch.equal(nearest(x, table), brute(x, table))


def test_many_points_as_few() -> None:
    generator = torch.Generator().manual_seed(0)
    x, table = torch.randn(2 * ROWS + 5, 12, generator=generator), torch.randn(4096, 12, generator=generator)
    together = nearest(x, table)
    assert torch.equal(together, torch.cat([nearest(part, table) for part in x.split(333)]))
    order = torch.randperm(len(x), generator=generator)
    assert torch.equal(nearest(x[order], table), together[order])


def test_codes_are_their_own_nearest() -> None:
    table = torch.randn(2000, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(nearest(table, table), torch.arange(2000))
    assert torch.equal(nearest(table.bfloat16(), table.bfloat16()), brute(table.bfloat16(), table.bfloat16()))


@pytest.mark.parametrize(
    ("x", "codes", "said"),
    [
        (torch.zeros(3, 2), torch.zeros(0, 2), "at least 1"),
        (torch.zeros(3, 2), torch.zeros(4, 3), "points"),
        (torch.tensor([[float("nan")]]), torch.zeros(1, 1), "points hold NaN"),
        (torch.zeros(1, 1), torch.tensor([[float("inf")]]), "codes hold NaN"),
        (torch.tensor([[3e38]]), torch.zeros(1, 1), "overflow"),
    ],
)
def test_refusals(x: Tensor, codes: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        nearest(x, codes)
