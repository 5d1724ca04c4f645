"""Patches of voxels: the published rearrangement, layers that differ, and nothing lost on the way there and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calogen.networks.patches import ABSENT, Patches

LENGTH = st.integers(1, 5)


def test_a_grid_is_cut_as_published() -> None:
    """b c (l p1) (a p2) (r p3) -> b (l a r) (p1 p2 p3 c)."""
    x = torch.arange(2 * 2 * 6 * 8 * 6.0).view(2, 2, 6, 8, 6)
    patches = Patches.of_grid((6, 8, 6), (3, 2, 2), channels=2)
    expected = x.view(2, 2, 2, 3, 4, 2, 3, 2).permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(2, 24, 24)
    assert torch.equal(patches.cut(x.flatten(1)), expected)
    assert patches.per_depth == (12, 12)
    assert torch.equal(
        patches.coordinates[[0, 1, 3, 12]], torch.tensor([[0, 0, 0], [0, 0, 1 / 3], [0, 0.25, 0], [0.5, 0, 0]])
    )


def test_the_photons_of_calochallenge_1() -> None:
    """Its layers have 8, 16, 19, 5 and 5 rings; the second and third are cut in 10 sectors."""
    layout = [(1, 8), (10, 16), (10, 19), (1, 5), (1, 5)]
    patches = Patches.of_layers(layout, (2, 5, 4))
    assert patches.voxels == 368
    assert patches.per_depth == (2, 8, 10, 2)  # the last two layers are alike and share patches
    assert patches.index[-1].tolist() == [362, *[ABSENT] * 19, 367, *[ABSENT] * 19]
    assert patches.coordinates[-1].tolist() == pytest.approx([3 / 5, 0, 4 / 5])


def test_rings_of_other_widths_are_no_layers_alike() -> None:
    same = Patches.of_layers([(2, 2)] * 2, (2, 2, 1))
    other = Patches.of_layers([(2, 2)] * 2, (2, 2, 1), rings=[(0, 0.5), (0, 0.25)])
    assert (len(same), len(other)) == (2, 4)
    assert other.coordinates[:, 2].tolist() == [0, 0.5, 0, 0.25]


def test_numbers_of_layers_are_patches_of_the_layers_that_share_patches() -> None:
    """Behind all voxels, outside of all rings; whatever the layers are, nothing is lost."""
    patches = Patches.of_layers([(2, 2)] * 4 + [(1, 3)], (3, 2, 1), numbers=[2, 2, 2, 2, 7])
    assert patches.voxels == 19 + 15
    own = patches.index[patches.coordinates[:, 2] == 1.0]
    assert own[:2].tolist() == [[19, 20, 21, 22, 23, 24], [25, 26, *[ABSENT] * 4]]
    assert own[2:].tolist() == [[27, 28, 29, 30, 31, 32], [33, *[ABSENT] * 5]]  # more than fit one patch
    assert patches.per_depth == (3, 3, 5)
    x = torch.randn(2, 34)
    assert torch.equal(patches.join(patches.cut(x)), x)
    with pytest.raises(ValueError, match="1 layers need as many numbers of numbers, not 2"):
        Patches.of_layers([(2, 2)], (3, 2, 2), numbers=[1, 1])


@given(
    layout=st.lists(st.tuples(LENGTH, LENGTH), min_size=1, max_size=6),
    patch=st.tuples(LENGTH, LENGTH, LENGTH),
    channels=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_there_and_back(layout: list[tuple[int, int]], patch: tuple[int, int, int], channels: int) -> None:
    patches = Patches.of_layers(layout, patch, channels)
    voxels = channels * sum(angles * radii for angles, radii in layout)
    assert patches.voxels == voxels
    assert sum(patches.per_depth) == len(patches)
    assert float(patches.coordinates.min()) >= 0
    assert float(patches.coordinates.max()) < 1
    x = torch.randn(2, voxels, requires_grad=True)
    cut = patches.cut(x)
    assert torch.equal(cut[:, patches.index == ABSENT], torch.zeros(2, int((patches.index == ABSENT).sum())))
    assert torch.equal(patches.join(cut), x)
    spoiled = cut.detach().masked_fill(patches.index == ABSENT, float("nan")).requires_grad_()
    assert torch.equal(patches.join(spoiled), x)
    weights = torch.randn(2, voxels)
    (of_x,) = torch.autograd.grad((patches.join(cut) * weights).sum(), x)
    (of_patches,) = torch.autograd.grad((patches.join(spoiled) * weights).sum(), spoiled)
    assert torch.equal(of_x, weights)
    assert torch.equal(of_patches, patches.cut(weights))


def test_the_gradient_of_a_gradient() -> None:
    patches = Patches.of_layers([(1, 3), (2, 2)], (1, 2, 2))
    x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda a: patches.join(patches.cut(a) ** 3), x)


@pytest.mark.parametrize(
    ("index", "depth", "message"),
    [
        ([[0, 1], [1, 2]], [0, 0], "once each"),
        ([[0, 1], [3, ABSENT]], [0, 0], "once each"),
        ([[0, 1], [ABSENT, ABSENT]], [0, 0], "patch 1 has no voxel"),
        ([[0, 1], [2, 3]], [1, 0], "first layer to the last"),
        ([[0, 1], [2, 3]], [0], "need depths"),
    ],
)
def test_what_is_no_set_of_patches(index: list[list[int]], depth: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Patches(torch.tensor(index), torch.tensor(depth), torch.zeros(2, 3))


def test_what_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="lengths of one and more"):
        Patches.of_layers([(1, 3), (0, 2)], (1, 1, 1))
    with pytest.raises(ValueError, match="rings must be"):
        Patches.of_layers([(1, 3)], (1, 1, 1), rings=[(0.0, 0.5)])
    with pytest.raises(ValueError, match=r"must be \[N, 3\]"):
        Patches.of_layers([(1, 3)], (1, 1, 1)).cut(torch.zeros(2, 4))
