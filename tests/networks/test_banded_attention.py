"""Banded attention is dense masked attention, forward and backward, and no set touches another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from calogen.networks import banded_attention as module
from calogen.networks.banded_attention import Band, banded_attention, banded_plan, layer_counts
from calogen.networks.rectangle_attention import Rectangle, rectangle_attention

HEADS, WIDTH = 2, 4

BANDS = st.builds(Band, st.integers(-4, 0), st.integers(0, 4))
SETS = st.integers(1, 7).flatmap(
    lambda layers: st.lists(st.lists(st.integers(0, 9), min_size=layers, max_size=layers), min_size=1, max_size=4)
)


def draw(points: int, seed: int = 0, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(points, HEADS, WIDTH, generator=generator) for _ in range(3)]


def dense(q: Tensor, k: Tensor, v: Tensor, per_layer: Tensor, band: Band) -> Tensor:
    """All pairs of all points, masked."""
    sets, layers = per_layer.shape
    cell = torch.repeat_interleave(torch.arange(sets * layers), per_layer.flatten())
    apart = cell[:, None] % layers - cell % layers
    seen = (cell[:, None] // layers == cell // layers) & (apart >= band.lower) & (apart <= band.upper)
    q, k, v = (a.transpose(0, 1) for a in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(0, 1)


@given(SETS, BANDS, st.sampled_from([0, 20, 10**6]), st.sampled_from([8, 10**6]))
@settings(max_examples=60, deadline=None)
def test_is_dense_masked_attention(sets: list[list[int]], band: Band, call: int, largest: int) -> None:
    """However layers are merged and cut into rectangles."""
    per_layer = torch.tensor(sets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CALL", call)
        patch.setattr(module, "LARGEST", largest)
        plan = banded_plan(per_layer, band)
    ours, theirs = draw(plan.points), draw(plan.points)
    for a in (*ours, *theirs):
        a.requires_grad_()
    out, expected = banded_attention(*ours, plan), dense(*theirs, per_layer, band)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    if plan.points:
        (out**2).sum().backward()
        (expected**2).sum().backward()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)


@given(SETS, BANDS, st.data())
@settings(max_examples=40, deadline=None)
def test_a_set_alone_is_what_it_is_in_a_batch(sets: list[list[int]], band: Band, data: st.DataObject) -> None:
    per_layer = torch.tensor(sets)
    k = data.draw(st.integers(0, len(sets) - 1))
    sizes = per_layer.sum(1).tolist()
    qkv = draw(sum(sizes))
    together = banded_attention(*qkv, banded_plan(per_layer, band)).split(sizes)[k]
    alone = banded_attention(*(a.split(sizes)[k] for a in qkv), banded_plan(per_layer[k : k + 1], band))
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_scores_of_any_size(scale: float) -> None:
    """Scores whose exponential overflows float32, also in pairs that are masked."""
    per_layer, band = torch.tensor([[5, 0, 9, 20, 3]]), Band(-1, 1)
    plan = banded_plan(per_layer, band)
    assert any(r.seen is not None for r in plan.rectangles)
    ours, theirs = draw(37, scale=scale), draw(37, scale=scale)
    ours[2], theirs[2] = ours[2] / scale, theirs[2] / scale
    for a in (*ours, *theirs):
        a.requires_grad_()
    out, expected = banded_attention(*ours, plan), dense(*theirs, per_layer, band)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    out.sin().sum().backward()
    expected.sin().sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-3 * scale, rtol=1e-3)


def test_one_huge_hidden_score_spoils_nothing() -> None:
    """A point that is not seen may have any score with those that do not see it."""
    per_layer = torch.tensor([[3, 3, 3]])
    plan = banded_plan(per_layer, Band(0, 0))
    assert len(plan.rectangles) == 1
    q, k, v = draw(9)
    k[:3] *= 1e4
    q[:3] = 0
    leaves = [a.requires_grad_() for a in (q, k, v)]
    out = banded_attention(*leaves, plan)
    torch.testing.assert_close(out, dense(q, k, v, per_layer, Band(0, 0)), atol=1e-5, rtol=1e-5)
    out.sum().backward()
    assert all(torch.isfinite(a.grad).all() for a in leaves)


def test_gradient_is_the_numerical_one() -> None:
    plan = banded_plan(
        torch.tensor([[2, 3, 0, 1], [0, 0, 4, 0]]), Band(-1, 1), like=torch.zeros(0, dtype=torch.float64)
    )
    leaves = [a.double().requires_grad_() for a in draw(10)]
    assert torch.autograd.gradcheck(lambda q, k, v: banded_attention(q, k, v, plan), leaves)


def test_views_of_a_fused_map_and_half_precision() -> None:
    per_layer = torch.tensor([[40, 0, 60, 30]])
    plan = banded_plan(per_layer, Band())
    fused = torch.cat(draw(130), dim=2).bfloat16()
    q, k, v = fused.split(WIDTH, dim=2)
    out = banded_attention(q, k, v, plan)
    assert out.dtype == torch.bfloat16
    expected = dense(*(a.float() for a in (q, k, v)), per_layer, Band())
    torch.testing.assert_close(out.float(), expected, atol=1e-2, rtol=1e-2)


def test_work_is_within_the_band() -> None:
    """Large layers: hardly anything is computed that is not seen."""
    per_layer = torch.randint(60, 120, (3, 30), generator=torch.Generator().manual_seed(0))
    padded = F.pad(per_layer, (2, 2))
    seen = int((per_layer * padded.unfold(1, 5, 1).sum(-1)).sum())
    plan = banded_plan(per_layer, Band(-2, 2))
    assert seen <= plan.pairs < 1.02 * seen
    assert max(r.pairs for r in plan.rectangles) <= module.LARGEST


def test_layers_of_points_to_counts() -> None:
    per_layer = torch.tensor([[2, 0, 3], [0, 0, 0], [0, 1, 0]])
    layer = torch.repeat_interleave(torch.arange(3).repeat(3), per_layer.flatten())
    offsets = torch.tensor([0, 5, 5, 6])
    assert torch.equal(layer_counts(layer, offsets, 3), per_layer)
    with pytest.raises(ValueError, match="not sorted"):
        layer_counts(layer.flip(0), offsets, 3)
    with pytest.raises(ValueError, match="not within"):
        layer_counts(layer, offsets, 2)
    with pytest.raises(ValueError, match="do not cut"):
        layer_counts(layer, offsets[:-1], 3)


def test_what_does_not_fit_is_refused() -> None:
    plan = banded_plan(torch.tensor([[2, 3]]), Band())
    with pytest.raises(ValueError, match="a plan for 5 points"):
        banded_attention(*draw(6), plan)
    with pytest.raises(ValueError, match="does not contain 0"):
        Band(1, 2)
    with pytest.raises(ValueError, match="whole numbers"):
        banded_plan(torch.tensor([[2.5]]), Band())
    with pytest.raises(ValueError, match="whole numbers"):
        banded_plan(torch.tensor([[-1]]), Band())
    with pytest.raises(ValueError, match="do not cover"):
        rectangle_attention(*draw(6), [Rectangle(0, 5, 0, 6)])
