"""Equal groups: each point in one of them, near its fellows, the same whenever it is done."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.methods.equal_groups import equal_groups


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
def test_an_order_of_all_points(groups: int, members: int, dim: int, seed: int) -> None:
    points = torch.randn(groups * members, dim, generator=torch.Generator().manual_seed(seed)).round()
    order = equal_groups(points, groups)
    assert sorted(order.tolist()) == list(range(len(points)))
    assert torch.equal(order, equal_groups(points.clone(), groups))


def test_groups_are_much_narrower_than_the_whole() -> None:
    points = torch.randn(1024, 3, generator=torch.Generator().manual_seed(1))
    grouped = points[equal_groups(points, 64)].view(64, 16, 3)
    within = (grouped - grouped.mean(1, keepdim=True)).square().sum(2).mean()
    assert within < 0.2 * (points - points.mean(0)).square().sum(1).mean()


def test_clusters_are_found() -> None:
    centres = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 30.0], [50.0, 30.0]])
    points = centres.repeat(8, 1) + torch.randn(32, 2, generator=torch.Generator().manual_seed(2))
    for group in (equal_groups(points, 4) % 4).view(4, 8):
        assert len(set(group.tolist())) == 1


@pytest.mark.parametrize(
    ("points", "groups", "match"),
    [
        (torch.zeros(6, 2), 4, "6 points cannot be cut into 4 groups"),
        (torch.zeros(6, 2), 0, "into 0 groups"),
        (torch.full((4, 2), torch.nan), 2, "finite"),
    ],
)
def test_refusals(points: torch.Tensor, groups: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        equal_groups(points, groups)
